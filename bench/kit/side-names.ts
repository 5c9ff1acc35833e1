/** The sides, in the order that tables have them. */
export const SIDE_NAMES = [
  'bare',
  'transaction',
  'transaction-nested',
  'lease',
  'node-idempotency-redis',
  'hand-written',
] as const;

/** The side that needs Redis. */
export const REDIS_SIDE = 'node-idempotency-redis';

/** The bare side once more, in a process of its own: what its ratio to `bare` is off from 1.00 is noise. */
export const CONTROL = 'bare-again';

/** Whether a side answers a repeated request by doing its work again. */
export function isUnprotected(side: string): boolean {
  return side === 'bare' || side === CONTROL;
}
