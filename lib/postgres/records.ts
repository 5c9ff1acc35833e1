import type { DataSource } from 'typeorm';
import { outside } from '../core/ambient.js';
import { lockNumber, type Identity } from '../core/identity.js';
import type { RecordedHeader, RecordedResponse, RecordMode } from '../core/record.js';
import { headersOf, timeOf, type Time } from './row-values.js';
import type { Statements } from './statements.js';

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
  attempt: number;
  created_at: Time;
  completed_at: Time | null;
  expires_at: Time;
  locked_until: Time | null;
  state: RecordState;
  response_status: number | null;
  response_headers?: RecordedHeader[] | string | null;
  response_body?: Buffer | null;
}

interface OperationRow {
  free: boolean;
  done: boolean;
  existed: boolean;
}

/** Looks at records from outside, and changes what nobody is at work on. */
export class Records {
  constructor(
    private readonly dataSource: DataSource,
    private readonly statements: Statements,
  ) {}

  async find({ client, endpoint, key }: Identity): Promise<RecordDetails | undefined> {
    const [row] = await this.#query<SummaryRow>(this.statements.find, [client, endpoint, key]);
    if (!row) return undefined;
    const { response_status: status, response_headers: headers, response_body: body } = row;
    const response =
      status === null ? undefined : { status, headers: headersOf(headers), body: body ?? Buffer.alloc(0) };
    return { ...summary(row), response };
  }

  async list(filter: RecordFilter, limit: number, after: Identity | undefined): Promise<RecordSummary[]> {
    const { client, endpoint, state, createdBefore, createdAfter } = filter;
    const values = [
      client,
      endpoint,
      state,
      createdBefore,
      createdAfter,
      after?.client,
      after?.endpoint,
      after?.key,
    ];
    const rows = await this.#query<SummaryRow>(this.statements.list, [...values, limit]);
    return rows.map(summary);
  }

  release({ client, endpoint, key }: Identity): Promise<OperationResult> {
    const lock = lockNumber(this.statements.table, { client, endpoint, key });
    return this.#operate(this.statements.releaseRecord, [lock, client, endpoint, key], 'running');
  }

  settle(
    { client, endpoint, key }: Identity,
    response: RecordedResponse,
    ttl: number,
  ): Promise<OperationResult> {
    const lock = lockNumber(this.statements.table, { client, endpoint, key });
    const { status, headers, body } = response;
    const values = [lock, client, endpoint, key, status, JSON.stringify(headers), body, ttl];
    return this.#operate(this.statements.settleRecord, values, 'not-applicable');
  }

  async #operate(statement: string, values: unknown[], otherwise: OperationResult): Promise<OperationResult> {
    const [row] = await this.#query<OperationRow>(statement, values);
    if (row?.done) return 'done';
    if (row && !row.free) return 'running';
    return row?.existed ? otherwise : 'absent';
  }

  #query<Row>(statement: string, values: readonly unknown[]): Promise<Row[]> {
    return outside(() => this.dataSource.query<Row[]>(statement, [...values]));
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
    attempt,
    createdAt: timeOf(row.created_at),
    completedAt: row.completed_at === null ? undefined : timeOf(row.completed_at),
    expiresAt: timeOf(row.expires_at),
    lockedUntil: row.locked_until === null ? undefined : timeOf(row.locked_until),
    responseStatus: row.response_status ?? undefined,
  };
}
