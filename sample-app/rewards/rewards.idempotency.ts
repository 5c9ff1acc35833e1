import type { IdempotentRouteOptions } from 'nestjs-pg-idempotency';
import { formatRewardsError } from './rewards.errors.js';

/** What the rewards API promises about idempotency keys. */
export const REWARDS_IDEMPOTENCY: IdempotentRouteOptions = {
  key: { minLength: 8, maxLength: 256 },
  ttl: '24h',
  errors: formatRewardsError,
};
