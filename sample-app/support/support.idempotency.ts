import type { IdempotentRouteOptions } from 'nestjs-pg-idempotency';

/** What the support API promises about idempotency keys: who sends none wants no protection. */
export const SUPPORT_IDEMPOTENCY: IdempotentRouteOptions = { key: { required: false }, ttl: '24h' };
