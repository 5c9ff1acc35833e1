import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import { ArrayMaxSize, ArrayUnique, IsArray, IsOptional, ValidateNested } from 'class-validator';
import { CreateOrderDto } from '../orders/create-order.dto.js';

const LARGEST_CART = 100;

/** What makes two items the same one. Nested items are validated side by side with this: they may be anything. */
const identify = (item?: Partial<CreateOrderDto>): string => `${item?.product_id} ${item?.denomination}`;

/** Body of `PUT /client/api/cart`. */
export class CartContentsDto {
  @ApiProperty({ type: [CreateOrderDto] })
  @IsArray()
  @ArrayMaxSize(LARGEST_CART)
  @ArrayUnique(identify, { message: 'items must name each denomination of a product once' })
  @ValidateNested({ each: true })
  @Type(() => CreateOrderDto)
  items!: CreateOrderDto[];
}

/** Body of `POST /client/api/cart/checkout`: what to order in place of what is in the cart. */
export class CheckoutDto {
  @ApiPropertyOptional({ type: [CreateOrderDto] })
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(LARGEST_CART)
  @ValidateNested({ each: true })
  @Type(() => CreateOrderDto)
  items?: CreateOrderDto[];
}
