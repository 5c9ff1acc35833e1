import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsNotEmpty, IsOptional, IsPositive, Max } from 'class-validator';
import { IsText } from '../text.js';

const LARGEST_INTEGER_COLUMN = 2_147_483_647;
const LONGEST_REF = 200;

/** Body of `POST /charges`. */
export class CreateChargeDto {
  /** In cents. */
  @ApiProperty({ example: 4200 })
  @IsInt()
  @IsPositive()
  @Max(LARGEST_INTEGER_COLUMN)
  amount!: number;

  @ApiProperty({ example: 'inv_88' })
  @IsText(LONGEST_REF)
  @IsNotEmpty()
  ref!: string;
}

/** Query of `GET /charges`. */
export class ListChargesDto {
  /** Default: all. */
  @ApiPropertyOptional({ example: 'inv_88' })
  @IsOptional()
  @IsText(LONGEST_REF)
  ref?: string;
}
