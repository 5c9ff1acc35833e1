import { ApiProperty } from '@nestjs/swagger';
import { IsString, Matches } from 'class-validator';
import { MONEY_PATTERN } from '../money.js';

/** Body of `POST /api/v1/payouts`. */
export class CreatePayoutDto {
  @ApiProperty({ example: '25.00' })
  @IsString()
  @Matches(MONEY_PATTERN, { message: 'amount must be a positive amount of money such as "25.00"' })
  amount!: string;
}
