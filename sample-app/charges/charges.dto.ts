import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsNotEmpty, IsOptional, IsPositive, IsString, Max, MaxLength } from 'class-validator';

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
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_REF)
  ref!: string;
}

/** Query of `GET /charges`. */
export class ListChargesDto {
  /** Default: all. */
  @ApiPropertyOptional({ example: 'inv_88' })
  @IsOptional()
  @IsString()
  ref?: string;
}
