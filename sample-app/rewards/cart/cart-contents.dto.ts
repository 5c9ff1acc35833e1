import { Type } from 'class-transformer';
import { ArrayMaxSize, IsArray, IsOptional, ValidateNested } from 'class-validator';
import { CreateOrderDto } from '../orders/create-order.dto.js';

const LARGEST_CART = 100;

/** Body of `PUT /client/api/cart`. */
export class CartContentsDto {
  @IsArray()
  @ArrayMaxSize(LARGEST_CART)
  @ValidateNested({ each: true })
  @Type(() => CreateOrderDto)
  items!: CreateOrderDto[];
}

/** Body of `POST /client/api/cart/checkout`: what to order in place of what is in the cart. */
export class CheckoutDto {
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(LARGEST_CART)
  @ValidateNested({ each: true })
  @Type(() => CreateOrderDto)
  items?: CreateOrderDto[];
}
