import { Type } from 'class-transformer';
import {
  ArrayNotEmpty,
  IsArray,
  IsInt,
  IsNotEmpty,
  IsString,
  IsUUID,
  Min,
  ValidateNested,
} from 'class-validator';
import { KeyedDto } from '../keyed.dto.js';

class ShippingItemDto {
  @IsString()
  @IsNotEmpty()
  sku!: string;

  @IsInt()
  @Min(1)
  quantity!: number;
}

/** Body of `POST /api/v1/orders/create`. */
export class CreateShippingOrderDto extends KeyedDto {
  @IsString()
  @IsNotEmpty()
  reference!: string;

  @IsArray()
  @ArrayNotEmpty()
  @ValidateNested({ each: true })
  @Type(() => ShippingItemDto)
  items!: ShippingItemDto[];
}

/** Body of `POST /api/v1/orders/void`. */
export class VoidShippingOrderDto extends KeyedDto {
  @IsUUID()
  orderId!: string;
}
