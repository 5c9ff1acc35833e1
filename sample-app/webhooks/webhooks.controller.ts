import { Controller, HttpCode, Post, Req, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent, sharedClient } from 'nestjs-pg-idempotency';
import { SEEDED_CLIENTS } from '../database/seeds.js';
import { TicketsService } from '../support/tickets/tickets.service.js';
import { ticketTitle, type PaymentEvent } from './payment-event.js';
import { WebhookSignatureGuard } from './webhook-signature.guard.js';

/** The team that looks after payments. */
const TEAM = SEEDED_CLIENTS[0]?.id ?? '';

/** A request as the signature guard lets it pass. Its body was parsed, but is anybody's JSON. */
interface WebhookRequest {
  readonly body: PaymentEvent;
}

/** `/webhooks/stripe`: redeliveries of an event are acknowledged as the first one was. */
@ApiTags('webhooks')
@Controller('webhooks')
@UseGuards(WebhookSignatureGuard)
export class WebhooksController {
  constructor(private readonly tickets: TicketsService) {}

  @Post('stripe')
  @HttpCode(200)
  @Idempotent({
    client: sharedClient('stripe'),
    key: { from: ({ body }: { body: Partial<PaymentEvent> | null }) => body?.id, maxLength: 255 },
    // It counts down from one delivery to the next.
    fingerprint: { exclude: ['pending_webhooks'] },
  })
  async receive(@Req() { body: event }: WebhookRequest): Promise<{ received: true; ticket?: string }> {
    const title = ticketTitle(event);
    if (title === undefined) return { received: true };
    const { id } = await this.tickets.create(TEAM, { title, priority: 'high', tags: [event.type] });
    return { received: true, ticket: id };
  }
}
