import { ApiProperty } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import {
  ArrayMaxSize,
  ArrayNotEmpty,
  IsArray,
  IsInt,
  IsNotEmpty,
  IsUUID,
  Max,
  Min,
  ValidateNested,
} from 'class-validator';
import { IsText } from '../../text.js';
import { KeyedDto } from '../keyed.dto.js';

const LONGEST_SKU = 100;
const LONGEST_REFERENCE = 200;
const LARGEST_QUANTITY = 10_000;
const MOST_ITEMS = 100;

class ShippingItemDto {
  @ApiProperty({ example: 'mug' })
  @IsText(LONGEST_SKU)
  @IsNotEmpty()
  sku!: string;

  @ApiProperty({ example: 2 })
  @IsInt()
  @Min(1)
  @Max(LARGEST_QUANTITY)
  quantity!: number;
}

/** Body of `POST /api/v1/orders/create`. */
export class CreateShippingOrderDto extends KeyedDto {
  @ApiProperty({ example: 'R-1' })
  @IsText(LONGEST_REFERENCE)
  @IsNotEmpty()
  reference!: string;

  @ApiProperty({ type: [ShippingItemDto] })
  @IsArray()
  @ArrayNotEmpty()
  @ArrayMaxSize(MOST_ITEMS)
  @ValidateNested({ each: true })
  @Type(() => ShippingItemDto)
  items!: ShippingItemDto[];
}

/** Body of `POST /api/v1/orders/void`. */
export class VoidShippingOrderDto extends KeyedDto {
  @ApiProperty({ example: '0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c01' })
  @IsUUID()
  orderId!: string;
}
