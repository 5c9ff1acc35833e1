import pg from 'pg';
import type { IsolationLevel } from '../core/store.js';

/** Every statement this library sends, by name, for one table. Parameters are named in the comments' order. */
export interface Statements {
  readonly begin: (isolation: IsolationLevel | undefined) => string;
  readonly claim: string;
  readonly takeOver: string;
  readonly complete: string;
  readonly purge: string;
  /** The table as `regclass` input. */
  readonly table: string;
}

export const SAVEPOINT = 'SAVEPOINT idempotency_handler';
export const ROLLBACK_TO_SAVEPOINT = 'ROLLBACK TO SAVEPOINT idempotency_handler';
export const COMMIT = 'COMMIT';
export const ROLLBACK = 'ROLLBACK';

/** $1 table */
export const INSPECT = `
SELECT current_setting('server_version_num')::int AS server_version,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('default_transaction_isolation') AS default_isolation,
       to_regclass($1) IS NOT NULL AS table_exists,
       ARRAY(SELECT attname::text FROM pg_attribute
              WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped) AS columns,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                  AND i.indimmediate AND i.indnkeyatts = 3
                  AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
                        WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]))
                      = ARRAY['client', 'endpoint', 'key']) AS identity_is_unique`;

/** The columns the statements below use. */
export const COLUMNS = [
  'client',
  'endpoint',
  'key',
  'fingerprint',
  'status',
  'mode',
  'format_version',
  'response_status',
  'response_headers',
  'response_body',
  'created_at',
  'completed_at',
  'expires_at',
] as const;

/** The statements for a table of that name; without a schema, the connection's search_path finds it. */
export function statementsFor(
  tableName: string,
  schema: string | undefined,
  serverVersion: number,
): Statements {
  const quoted = pg.escapeIdentifier(tableName);
  const table = schema === undefined ? quoted : `${pg.escapeIdentifier(schema)}.${quoted}`;
  return {
    table,
    begin: (isolation) => (isolation ? `BEGIN ISOLATION LEVEL ${isolation} READ WRITE` : 'BEGIN READ WRITE'),
    claim: claim(table, serverVersion),
    takeOver: takeOver(table),
    complete: complete(table),
    purge: purge(table),
  };
}

/*
 * $1 lock number, $2 lock timeout, $3 maximum duration, $4 client, $5 endpoint, $6 key, $7 fingerprint, $8 mode,
 * $9 format version, $10 time to live in milliseconds.
 *
 * One round trip answers everything: who holds the identity, what is recorded, and whether it is ours now.
 *
 * The lock is tried, never waited for. The row is looked for before the INSERT because an INSERT that meets a row
 * which the purge is deleting would wait for the purge, even with ON CONFLICT DO NOTHING; and DO UPDATE would lock the
 * row of every replay. ON CONFLICT still guards against a rival that committed after this statement's snapshot.
 *
 * The lock timeout holds for this statement; the handler gets its own back. The other limits hold for this transaction,
 * so that they work through transaction-pooling proxies. They free the key of an owner whose host vanished without
 * closing its connection.
 */
function claim(table: string, serverVersion: number): string {
  const limits = ['statement_timeout', 'idle_in_transaction_session_timeout'];
  if (serverVersion >= 170_000) limits.push('transaction_timeout');
  const setLimits = limits.map((name) => `set_config('${name}', $3, true)`).join(', ');
  return `
WITH guard AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock($1::bigint) AS free, current_setting('lock_timeout') AS lock_timeout,
         set_config('lock_timeout', $2, true), ${setLimits}
), existing AS MATERIALIZED (
  SELECT fingerprint, status, mode, format_version, response_status, response_headers, response_body, created_at,
         expires_at > clock_timestamp() AS live
    FROM ${table} WHERE client = $4 AND endpoint = $5 AND key = $6
), inserted AS (
  INSERT INTO ${table} (client, endpoint, key, fingerprint, status, mode, format_version, created_at, expires_at)
  SELECT $4, $5, $6, $7, 'processing', $8, $9, clock_timestamp(), clock_timestamp() + $10 * interval '1 millisecond'
    FROM guard WHERE guard.free AND NOT EXISTS (SELECT FROM existing)
  ON CONFLICT DO NOTHING
  RETURNING created_at
)
SELECT guard.free, inserted.created_at AS claimed_at, existing.*, set_config('lock_timeout', guard.lock_timeout, true)
  FROM guard LEFT JOIN inserted ON true LEFT JOIN existing ON true`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 fingerprint, $5 mode, $6 format version, $7 time to live in milliseconds.
 *
 * Only who holds the identity's lock may send it. A row that the purge is deleting is skipped rather than waited for.
 */
function takeOver(table: string): string {
  return `
UPDATE ${table}
   SET fingerprint = $4, status = 'processing', mode = $5, format_version = $6, response_status = NULL,
       response_headers = NULL, response_body = NULL, completed_at = NULL, created_at = clock_timestamp(),
       expires_at = clock_timestamp() + $7 * interval '1 millisecond'
 WHERE ctid = (SELECT ctid FROM ${table}
                WHERE client = $1 AND endpoint = $2 AND key = $3 AND expires_at <= clock_timestamp()
                  FOR UPDATE SKIP LOCKED)
RETURNING created_at AS claimed_at`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 status, $5 response status, $6 headers, $7 body, $8 time to live in milliseconds.
 *
 * Expiry runs from completion, and by clock_timestamp(): now() is when the transaction began.
 */
function complete(table: string): string {
  return `
UPDATE ${table}
   SET status = $4, response_status = $5, response_headers = $6, response_body = $7,
       completed_at = clock_timestamp(), expires_at = clock_timestamp() + $8 * interval '1 millisecond'
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND status = 'processing'`;
}

/*
 * $1 batch size. now() rather than clock_timestamp(), because only a stable function can use the index on expires_at;
 * in a transaction of one statement they are the same.
 */
function purge(table: string): string {
  return `
WITH expired AS MATERIALIZED (
  SELECT ctid FROM ${table} WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired))`;
}
