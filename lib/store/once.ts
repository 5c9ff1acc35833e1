import { setTimeout as delay } from 'node:timers/promises';
import { IdempotencyFailure } from '../core/errors.js';
import { pauseBefore } from '../core/waiting.js';
import type { Answer, Statement } from './batch.js';
import { PooledConnection } from './connection.js';
import { failure, failureBeforeCommit, isForbidden, passes, problemOf } from './problems.js';
import type { StoreOptions } from './store-options.js';

/** Takes a connection of the pool. @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` when none is to be had. */
export async function acquire(
  { pool, acquireTimeout, names }: StoreOptions,
  timeout = acquireTimeout,
): Promise<PooledConnection> {
  try {
    return await PooledConnection.acquire(pool, timeout, names);
  } catch (error) {
    throw failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
  }
}

/** Takes a connection for one short piece of work, and gives it back; one that is silent for longer than `patience` is cut. */
export async function acquireOnce<T>(
  options: StoreOptions,
  work: (connection: PooledConnection) => Promise<T>,
  patience = options.acquireTimeout,
): Promise<T> {
  try {
    return await sendOn(options, work, patience);
  } catch (error) {
    if (!isForbidden(error)) throw error;
    // That session is closed. A new one has the role that it logged in with.
    return sendOn(options, work, patience);
  }
}

async function sendOn<T>(
  { pool, acquireTimeout, names }: StoreOptions,
  work: (connection: PooledConnection) => Promise<T>,
  patience: number,
): Promise<T> {
  const connection = await PooledConnection.acquire(pool, acquireTimeout, names);
  const timer = setTimeout(() => connection.close(), patience);
  try {
    const result = await work(connection);
    connection.release();
    return result;
  } catch (error) {
    if (error instanceof IdempotencyFailure) connection.release();
    else if (problemOf(error).kind === 'lost' || isForbidden(error)) connection.close();
    else await connection.rollBackAndRelease();
    throw connection.reasonOf(error);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Sends one statement of the library's own, in a transaction of its own.
 *
 * @throws IdempotencyFailure when it was not executed, or when that is not known.
 */
export async function sendOnce(
  options: StoreOptions,
  statement: Statement,
  patience?: number,
): Promise<Answer> {
  try {
    return await acquireOnce(options, (connection) => connection.sendAlone(statement), patience);
  } catch (error) {
    throw failureBeforeCommit(error);
  }
}

/**
 * Sends again what may or may not have arrived, or failed for a reason that passes, with growing pauses. Only for
 * statements that do no harm the second time.
 *
 * @param isWorthwhile - Whether to send again; asked after each failure, with whether anything was sent so far.
 * @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` when the connection was lost, or none was to be had, to the last.
 */
export async function repeatedly<T>(
  options: StoreOptions,
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
      if (error instanceof IdempotencyFailure || !passes(error)) throw error;
      if (!isWorthwhile(sent)) {
        throw problemOf(error).kind === 'lost' ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : error;
      }
    }
    await delay(pauseBefore(failures, Math.random()));
  }
}
