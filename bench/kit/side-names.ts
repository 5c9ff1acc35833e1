/** The sides, in the order that tables have them. */
export const SIDE_NAMES = [
  'bare',
  'transaction',
  'transaction-nested',
  'transaction-tuned',
  'lease',
  'node-idempotency-redis',
  'hand-written',
] as const;
