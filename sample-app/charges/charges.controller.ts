import { Body, Controller, Get, Post, Query, Req, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import type { AuthenticatedRequest } from '../auth/authenticated-request.js';
import type { Charge } from './charge.entity.js';
import { CreateChargeDto, ListChargesDto } from './charges.dto.js';
import { ChargesGuard, ownerOf } from './charges.guard.js';
import { ChargesService } from './charges.service.js';

/** A charge as callers see it. */
type ChargeResponse = Pick<Charge, 'id' | 'amount' | 'ref' | 'status'>;

/** `/charges` */
@ApiTags('charges')
@Controller('charges')
@UseGuards(ChargesGuard)
export class ChargesController {
  constructor(private readonly charges: ChargesService) {}

  @Get()
  async list(
    @Req() request: AuthenticatedRequest,
    @Query() { ref }: ListChargesDto,
  ): Promise<ChargeResponse[]> {
    return (await this.charges.list(ownerOf(request), ref)).map(chargeResponse);
  }

  @Post()
  @Idempotent({ client: ownerOf, key: { required: false } })
  async create(
    @Req() request: AuthenticatedRequest,
    @Body() { amount, ref }: CreateChargeDto,
  ): Promise<ChargeResponse> {
    return chargeResponse(await this.charges.create(ownerOf(request), amount, ref));
  }
}

function chargeResponse({ id, amount, ref, status }: Charge): ChargeResponse {
  return { id, amount, ref, status };
}
