import { ApiProperty } from '@nestjs/swagger';
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
  @ApiProperty({ example: 'mug' })
  @IsString()
  @IsNotEmpty()
  sku!: string;

  @ApiProperty({ example: 2 })
  @IsInt()
  @Min(1)
  quantity!: number;
}

/** Body of `POST /api/v1/orders/create`. */
export class CreateShippingOrderDto extends KeyedDto {
  @ApiProperty({ example: 'R-1' })
  @IsString()
  @IsNotEmpty()
  reference!: string;

  @ApiProperty({ type: [ShippingItemDto] })
  @IsArray()
  @ArrayNotEmpty()
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
