import type { IdempotencyModuleOptions } from 'nestjs-pg-idempotency';

/** Every documented option that trades something for speed: what `transaction-tuned` has beside the defaults. */
export const TUNING: Partial<IdempotencyModuleOptions> = {
  // Several statements in one write, and those of every request prepared once for each session: the library's, and what
  // the handler repeats.
  tuning: { pipeline: true, preparedStatements: 'all' },
  // Where no thrown error is stored, the transaction needs no savepoint.
  response: { statuses: [200, 201] },
};
