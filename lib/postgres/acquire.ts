import type { DataSource } from 'typeorm';
import { PooledConnection } from './pooled-connection.js';
import { failure } from './sqlstate.js';

/** Takes a connection of the pool. @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` when none is to be had. */
export async function acquire(from: {
  dataSource: DataSource;
  acquireTimeout: number;
}): Promise<PooledConnection> {
  try {
    return await PooledConnection.acquire(from.dataSource, from.acquireTimeout);
  } catch (error) {
    throw failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
  }
}
