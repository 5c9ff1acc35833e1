import type { Payout } from './payout.entity.js';

/** A payout as clients see it. */
export interface PayoutResponse {
  readonly id: string;
  /** With two decimals, such as `25.00`. */
  readonly amount: string;
  readonly status: string;
  /** ISO 8601. */
  readonly created_at: string;
}

/** Shows a payout to its client. */
export function payoutResponse({ id, amount, status, createdAt }: Payout): PayoutResponse {
  return { id, amount, status, created_at: createdAt.toISOString() };
}
