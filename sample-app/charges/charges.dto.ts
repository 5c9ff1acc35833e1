import { IsInt, IsNotEmpty, IsOptional, IsPositive, IsString, Max, MaxLength } from 'class-validator';

const LARGEST_INTEGER_COLUMN = 2_147_483_647;
const LONGEST_REF = 200;

/** Body of `POST /charges`. */
export class CreateChargeDto {
  /** In cents. */
  @IsInt()
  @IsPositive()
  @Max(LARGEST_INTEGER_COLUMN)
  amount!: number;

  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_REF)
  ref!: string;
}

/** Query of `GET /charges`. */
export class ListChargesDto {
  /** Default: all. */
  @IsOptional()
  @IsString()
  ref?: string;
}
