import { lockNumber, type Identity } from '../core/identity.js';
import type { RecordedResponse, RecordMode } from '../core/record.js';
import type { Raw, Statement } from './batch.js';
import { sendOnce } from './once.js';
import { isTrue, optionalTimeOf, responseOf, timeOf } from './rows.js';
import type { PostgresStoreOptions } from './store-options.js';

/** State of a record; `unresolved` is an attempt in lease mode whose outcome is unknown. */
export type RecordState = 'processing' | 'unresolved' | 'completed' | 'failed';

/** A record as operators see it. */
export interface RecordSummary extends Identity {
  readonly state: RecordState;
  readonly mode: RecordMode;
  /** Number of the latest attempt; 1 for the first. */
  readonly attempt: number;
  readonly createdAt: Date;
  readonly completedAt: Date | undefined;
  readonly expiresAt: Date;
  /** Until when its owner holds it, in lease mode while it runs. */
  readonly lockedUntil: Date | undefined;
  /** HTTP status of the recorded answer; undefined while there is none, and for a tombstone. */
  readonly responseStatus: number | undefined;
}

/** A record with its recorded answer. */
export interface RecordDetails extends RecordSummary {
  readonly response: RecordedResponse | undefined;
}

/** Which records to list: all that match every field given. */
export interface RecordFilter {
  readonly client?: string;
  readonly endpoint?: string;
  readonly state?: RecordState;
  readonly createdBefore?: Date;
  readonly createdAfter?: Date;
  /** Records of a page, 1 to 1000. Default: 50. */
  readonly limit?: number;
  /** `next` of the page before. */
  readonly after?: string;
}

/** What came of an operation on a record. `running`: a handler is at work on it, and nothing was changed. */
export type OperationResult = 'done' | 'absent' | 'running' | 'not-applicable';

interface SummaryRow {
  client: string;
  endpoint: string;
  key: string;
  mode: RecordMode;
  attempt: string;
  created_at: string;
  completed_at: Raw;
  expires_at: string;
  locked_until: Raw;
  state: RecordState;
  response_status: Raw;
}

interface DetailsRow extends SummaryRow {
  response_headers: Raw;
  response_body: Raw;
}

/**
 * Looks at records from outside, and changes what nobody is at work on. Each statement is a transaction of its own, and may
 * fail with an IdempotencyFailure: `IDEMPOTENCY_STORE_UNAVAILABLE` or `IDEMPOTENCY_STORE_REFUSED`.
 */
export class Records {
  constructor(private readonly options: PostgresStoreOptions) {}

  async find({ client, endpoint, key }: Identity): Promise<RecordDetails | undefined> {
    const { find } = this.options.statements;
    const [row] = await this.#query<DetailsRow>(find, [client, endpoint, key]);
    return row && { ...summary(row), response: responseOf(row) };
  }

  async list(filter: RecordFilter, limit: number, after: Identity | undefined): Promise<RecordSummary[]> {
    const { client, endpoint, state, createdBefore, createdAfter } = filter;
    const which = [client, endpoint, state, createdBefore, createdAfter];
    const values = [...which, after?.client, after?.endpoint, after?.key, limit];
    const rows = await this.#query<SummaryRow>(this.options.statements.list, values);
    return rows.map(summary);
  }

  release({ client, endpoint, key }: Identity): Promise<OperationResult> {
    const lock = lockNumber(this.options.statements.table, { client, endpoint, key });
    return this.#operate(this.options.statements.releaseRecord, [lock, client, endpoint, key], 'running');
  }

  settle(
    { client, endpoint, key }: Identity,
    response: RecordedResponse,
    ttl: number,
  ): Promise<OperationResult> {
    const lock = lockNumber(this.options.statements.table, { client, endpoint, key });
    const { status, headers, body } = response;
    const values = [lock, client, endpoint, key, status, JSON.stringify(headers), body, ttl];
    return this.#operate(this.options.statements.settleRecord, values, 'not-applicable');
  }

  async #operate(
    text: string,
    values: Statement['values'],
    otherwise: OperationResult,
  ): Promise<OperationResult> {
    const [row] = await this.#query<{ free: string; done: string; existed: string }>(text, values);
    if (isTrue(row?.done)) return 'done';
    if (row && !isTrue(row.free)) return 'running';
    return isTrue(row?.existed) ? otherwise : 'absent';
  }

  async #query<Row>(text: string, values: Statement['values'] = []): Promise<Row[]> {
    const { rows } = await sendOnce(this.options, { text, values });
    return rows as unknown as Row[];
  }
}

function summary(row: SummaryRow): RecordSummary {
  const { client, endpoint, key, state, mode, attempt } = row;
  return {
    client,
    endpoint,
    key,
    state,
    mode,
    attempt: Number(attempt),
    createdAt: timeOf(row.created_at),
    completedAt: optionalTimeOf(row.completed_at),
    expiresAt: timeOf(row.expires_at),
    lockedUntil: optionalTimeOf(row.locked_until),
    responseStatus: row.response_status === null ? undefined : Number(row.response_status),
  };
}
