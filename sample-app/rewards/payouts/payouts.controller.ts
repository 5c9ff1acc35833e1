import { Body, Controller, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiSecretGuard } from '../../auth/api-secret.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { REWARDS_IDEMPOTENCY } from '../rewards.idempotency.js';
import { CreatePayoutDto } from './create-payout.dto.js';
import { payoutResponse, type PayoutResponse } from './payout-response.js';
import { PayoutsService } from './payouts.service.js';

/** `/api/v1/payouts`, and the same from the client portal: each path is an endpoint of its own. */
@ApiTags('rewards')
@Controller(['api/v1/payouts', 'client/api/payouts'])
@UseGuards(ApiSecretGuard)
export class PayoutsController {
  constructor(private readonly payouts: PayoutsService) {}

  @Post()
  @Idempotent(REWARDS_IDEMPOTENCY)
  async create(@ClientId() clientId: string, @Body() { amount }: CreatePayoutDto): Promise<PayoutResponse> {
    return payoutResponse(await this.payouts.create(clientId, amount));
  }
}
