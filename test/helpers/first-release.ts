import { Client } from 'pg';
import { lockNumber, type Identity } from '../../lib/core/identity.js';
import type { TestDatabase } from './database.js';

/*
 * The statements of the first release, word for word: they know nothing of leases, and must go on working on the table as it
 * is now, since instances of both releases run together while a deployment is under way.
 */
const CLAIM = `
WITH guard AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock($1::bigint) AS free, current_setting('lock_timeout') AS lock_timeout,
         set_config('lock_timeout', $2, true), set_config('statement_timeout', $3, true),
         set_config('idle_in_transaction_session_timeout', $3, true)
), existing AS MATERIALIZED (
  SELECT fingerprint, status, mode, format_version, response_status, response_headers, response_body, created_at,
         expires_at > clock_timestamp() AS live
    FROM idempotency_records WHERE client = $4 AND endpoint = $5 AND key = $6
), inserted AS (
  INSERT INTO idempotency_records
         (client, endpoint, key, fingerprint, status, mode, format_version, created_at, expires_at)
  SELECT $4, $5, $6, $7, 'processing', $8, $9, clock_timestamp(), clock_timestamp() + $10 * interval '1 millisecond'
    FROM guard WHERE guard.free AND NOT EXISTS (SELECT FROM existing)
  ON CONFLICT DO NOTHING
  RETURNING created_at
)
SELECT guard.free, inserted.created_at AS claimed_at, existing.*, set_config('lock_timeout', guard.lock_timeout, true)
  FROM guard LEFT JOIN inserted ON true LEFT JOIN existing ON true`;

const TAKE_OVER = `
UPDATE idempotency_records
   SET fingerprint = $4, status = 'processing', mode = $5, format_version = $6, response_status = NULL,
       response_headers = NULL, response_body = NULL, completed_at = NULL, created_at = clock_timestamp(),
       expires_at = clock_timestamp() + $7 * interval '1 millisecond'
 WHERE ctid = (SELECT ctid FROM idempotency_records
                WHERE client = $1 AND endpoint = $2 AND key = $3 AND expires_at <= clock_timestamp()
                  FOR UPDATE SKIP LOCKED)
RETURNING created_at AS claimed_at`;

const COMPLETE = `
UPDATE idempotency_records
   SET status = $4, response_status = $5, response_headers = $6, response_body = $7,
       completed_at = clock_timestamp(), expires_at = clock_timestamp() + $8 * interval '1 millisecond'
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND status = 'processing'`;

const DAY = 86_400_000;

/** What the first release finds when it claims. */
export interface FirstReleaseRow {
  readonly free: boolean;
  readonly claimed_at: Date | null;
  readonly status: string | null;
  readonly mode: string | null;
  readonly live: boolean | null;
  readonly response_status: number | null;
  readonly response_body: Buffer | null;
}

/** A request to an instance of the first release, one statement after the other. */
export class FirstRelease {
  private constructor(
    private readonly client: Client,
    private readonly identity: Identity,
    private readonly fingerprint: Buffer,
  ) {}

  static async request(
    database: TestDatabase,
    identity: Identity,
    fingerprint: Buffer,
  ): Promise<FirstRelease> {
    const client = new Client({ connectionString: database.url });
    await client.connect();
    await client.query('BEGIN READ WRITE');
    return new FirstRelease(client, identity, fingerprint);
  }

  async claim(): Promise<FirstReleaseRow> {
    const lock = lockNumber('"public"."idempotency_records"', this.identity);
    const values = [lock, '2000', '60000', ...this.#names, this.fingerprint, 'transaction', 1, DAY];
    const { rows } = await this.client.query<FirstReleaseRow>(CLAIM, values);
    return rows[0]!;
  }

  async takeOver(): Promise<number | null> {
    return (await this.client.query(TAKE_OVER, [...this.#names, this.fingerprint, 'transaction', 1, DAY]))
      .rowCount;
  }

  async complete(body: unknown): Promise<number | null> {
    const headers = JSON.stringify([['content-type', 'application/json; charset=utf-8']]);
    const values = [...this.#names, 'completed', 201, headers, Buffer.from(JSON.stringify(body)), DAY];
    return (await this.client.query(COMPLETE, values)).rowCount;
  }

  async end(how: 'COMMIT' | 'ROLLBACK'): Promise<void> {
    await this.client.query(how);
    await this.client.end();
  }

  get #names(): readonly [string, string, string] {
    const { client, endpoint, key } = this.identity;
    return [client, endpoint, key];
  }
}
