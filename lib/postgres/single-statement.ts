import { setTimeout as delay } from 'node:timers/promises';
import { IdempotencyFailure } from '../core/errors.js';
import { pauseBefore } from '../core/waiting.js';
import { PooledConnection } from './pooled-connection.js';
import type { PostgresStoreOptions } from './store-options.js';
import { failure, isConflict, problemOf } from './sqlstate.js';

/** Takes a connection for one short piece of work, and gives it back; one that is silent for longer than `patience` is cut. */
export async function acquireOnce<T>(
  { dataSource, acquireTimeout, tuning }: PostgresStoreOptions,
  work: (connection: PooledConnection) => Promise<T>,
  patience = acquireTimeout,
): Promise<T> {
  const connection = await PooledConnection.acquire(dataSource, acquireTimeout, tuning);
  const timer = setTimeout(() => connection.close(), patience);
  try {
    const result = await work(connection);
    connection.release();
    return result;
  } catch (error) {
    connection.close(!(error instanceof IdempotencyFailure) && problemOf(error).kind === 'lost');
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Sends again what may or may not have arrived, or gave way to a concurrent transaction, with growing pauses. Only for
 * statements that do no harm the second time.
 *
 * @param isWorthwhile - Whether to send again; asked after each failure, with whether anything was sent so far.
 * @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` when the connection was lost, or none was to be had, to the last.
 */
export async function repeatedly<T>(
  options: PostgresStoreOptions,
  work: (connection: PooledConnection) => Promise<T>,
  isWorthwhile: (sent: boolean) => boolean,
): Promise<T> {
  let sent = false;
  const send = (connection: PooledConnection): Promise<T> => {
    sent = true;
    return work(connection);
  };
  for (let failures = 0; ; failures++) {
    try {
      // Half the patience for each answer: a connection that died unnoticed still leaves time for another.
      return await acquireOnce(options, send, options.acquireTimeout / 2);
    } catch (error) {
      if (error instanceof IdempotencyFailure) throw error;
      const problem = problemOf(error);
      if (problem.kind === 'refused' && !isConflict(problem.sqlState)) throw error;
      if (!isWorthwhile(sent)) {
        throw problem.kind === 'lost' ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : error;
      }
    }
    await delay(pauseBefore(failures, Math.random()));
  }
}
