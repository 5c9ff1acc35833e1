import { ApiProperty } from '@nestjs/swagger';
import { IsInt, IsPositive, Max, Min } from 'class-validator';

const LARGEST_INTEGER_COLUMN = 2_147_483_647;
const LARGEST_QUANTITY = 1_000;

/** Body of `POST /api/v1/orders`. */
export class CreateOrderDto {
  @ApiProperty({ example: 123 })
  @IsInt()
  @IsPositive()
  @Max(LARGEST_INTEGER_COLUMN)
  product_id!: number;

  @ApiProperty({ example: 100 })
  @IsInt()
  @IsPositive()
  @Max(LARGEST_INTEGER_COLUMN)
  denomination!: number;

  @ApiProperty({ example: 5 })
  @IsInt()
  @Min(1)
  @Max(LARGEST_QUANTITY)
  quantity!: number;
}
