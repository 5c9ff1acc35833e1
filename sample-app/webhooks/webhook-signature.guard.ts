import {
  Injectable,
  UnauthorizedException,
  type CanActivate,
  type ExecutionContext,
  type RawBodyRequest,
} from '@nestjs/common';
import { SEEDED_WEBHOOK_SECRET } from '../database/seeds.js';
import type { AuthenticatedRequest } from '../auth/authenticated-request.js';
import { isSignedWebhook } from './webhook-signature.js';

const NOTHING = Buffer.alloc(0);

/** Lets requests pass that the provider has signed. The signature is over the bytes, so that parsed JSON is of no use. */
@Injectable()
export class WebhookSignatureGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest<RawBodyRequest<AuthenticatedRequest>>();
    const signature = request.headers['stripe-signature'];
    const now = Math.floor(Date.now() / 1_000);
    if (!isSignedWebhook(request.rawBody ?? NOTHING, signature, SEEDED_WEBHOOK_SECRET, now))
      throw new UnauthorizedException('Send a valid Stripe-Signature');
    return true;
  }
}
