import { IdempotencyFailure, type IdempotentTask } from 'nestjs-pg-idempotency';
import type { TestDatabase } from './database.js';

/** A task of one client and endpoint, whose key is all that differs. */
export function taskOf(key: string, options: Partial<IdempotentTask> = {}): IdempotentTask {
  return { client: 'queue', endpoint: 'orders.create', key, ...options };
}

/** The failure that a promise rejects with; throws when it does anything else. */
export async function failureOf(promise: Promise<unknown>): Promise<IdempotencyFailure> {
  const reason = await promise.then(
    (value) => new Error(`It resolved with ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (reason instanceof IdempotencyFailure) return reason;
  throw reason;
}

/** The records that there are, whatever their state. */
export function recordsOf(
  database: TestDatabase,
): Promise<{ key: string; status: string; mode: string; response_status: number | null }[]> {
  return database.query('SELECT key, status, mode, response_status FROM idempotency_records ORDER BY key');
}
