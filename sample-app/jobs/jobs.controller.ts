import { Body, Controller, HttpCode, Post, Req, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import type { AuthenticatedRequest } from '../auth/authenticated-request.js';
import { CreateChargeDto } from '../charges/charges.dto.js';
import { ChargesGuard, ownerOf } from '../charges/charges.guard.js';
import { ChargeQueue } from './charge-queue.js';

/** `/jobs`: charges that are made later, by a worker. */
@ApiTags('jobs')
@Controller('jobs')
@UseGuards(ChargesGuard)
export class JobsController {
  constructor(private readonly queue: ChargeQueue) {}

  @Post('charges')
  @HttpCode(202)
  @Idempotent({ client: ownerOf, key: { required: false } })
  async charge(
    @Req() request: AuthenticatedRequest,
    @Body() { amount, ref }: CreateChargeDto,
  ): Promise<{ job: string }> {
    return { job: await this.queue.send({ owner: ownerOf(request), amount, ref }) };
  }
}
