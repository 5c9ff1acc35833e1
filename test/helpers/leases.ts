import { expect } from '@jest/globals';
import { eventually } from './conditions.js';
import type { TestDatabase } from './database.js';
import type { HttpResponse } from './http.js';

/** The row of a key, as far as leases are concerned. */
export interface LeaseRow {
  readonly status: string;
  readonly attempt: number;
  readonly owner_token: string | null;
  readonly locked_until: Date | null;
  readonly response_status: number | null;
  /** Whether the lease has run out, by the database's clock. */
  readonly lapsed: boolean | null;
}

export async function leaseRow(database: TestDatabase, key: string): Promise<LeaseRow | undefined> {
  const [row] = await database.query<LeaseRow>(
    `SELECT status, attempt, owner_token, locked_until, response_status, locked_until <= clock_timestamp() AS lapsed
       FROM idempotency_records WHERE key = $1`,
    [key],
  );
  return row;
}

/** Resolves when the key's lease has run out, by the database's clock. */
export async function untilLapsed(database: TestDatabase, key: string): Promise<void> {
  await eventually(async () => (await leaseRow(database, key))?.lapsed === true, { timeoutMs: 20_000 });
}

/** Expects an error of the library. */
export function expectProblem(answer: HttpResponse, status: number, code: string): void {
  expect({ status: answer.status, body: answer.json() }).toMatchObject({ status, body: { status, code } });
  expect(answer.headers['idempotency-replayed']).toBeUndefined();
}

/** Expects the recorded answer of another request. */
export function expectReplay(answer: HttpResponse, original: HttpResponse): void {
  expect(answer.headers['idempotency-replayed']).toBe('true');
  expect({ status: answer.status, text: answer.text }).toEqual({
    status: original.status,
    text: original.text,
  });
}
