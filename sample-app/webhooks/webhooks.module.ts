import { Module } from '@nestjs/common';
import { SupportModule } from '../support/support.module.js';
import { WebhooksController } from './webhooks.controller.js';

/** Events of a payment provider, in the manner of Stripe's, some of which open a support ticket. */
@Module({ imports: [SupportModule], controllers: [WebhooksController] })
export class WebhooksModule {}
