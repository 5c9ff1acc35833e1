import { CONTROL } from '../kit/side-names.js';
import type { Side } from './side.js';
import { bare } from './sides/bare.js';
import { handWritten } from './sides/hand-written.js';
import { lease } from './sides/lease.js';
import { nodeIdempotencyRedis } from './sides/node-idempotency-redis.js';
import { transaction, transactionNested } from './sides/transaction.js';

/** Every side by the name that tables give it. */
export const SIDES: Readonly<Record<string, Side>> = {
  bare,
  [CONTROL]: bare,
  transaction,
  'transaction-nested': transactionNested,
  lease,
  'node-idempotency-redis': nodeIdempotencyRedis,
  'hand-written': handWritten,
};
