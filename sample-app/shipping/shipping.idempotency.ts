import type { IdempotentRouteOptions } from 'nestjs-pg-idempotency';
import { formatShippingError } from './shipping.errors.js';

/** What the shipping API promises about idempotency keys, which are a field of the body. */
export const SHIPPING_IDEMPOTENCY: IdempotentRouteOptions = {
  key: { body: 'idempotencyKey', minLength: 8, maxLength: 64, pattern: /^[A-Za-z0-9_-]*$/ },
  ttl: '24h',
  answers: { reused: 409, replay: 200 },
  errors: formatShippingError,
};
