import { PooledConnection } from './pooled-connection.js';
import { failure } from './sqlstate.js';
import type { PostgresStoreOptions } from './store-options.js';

/** Takes a connection of the pool. @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` when none is to be had. */
export async function acquire(
  { dataSource, acquireTimeout, tuning }: PostgresStoreOptions,
  timeout = acquireTimeout,
): Promise<PooledConnection> {
  try {
    return await PooledConnection.acquire(dataSource, timeout, tuning);
  } catch (error) {
    throw failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
  }
}
