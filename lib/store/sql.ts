import { createHash } from 'node:crypto';
import pg from 'pg';
import type { IsolationLevel } from '../core/store.js';

/** Every statement this library sends, by name, for one table. Parameters are named in the comments' order. */
export type Statements = ReturnType<typeof statementsFor>;

/** The table, as the catalogue names it, and what its statements depend on. */
export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly isPartitioned: boolean;
  readonly serverVersion: number;
}

export const SAVEPOINT = 'SAVEPOINT idempotency_handler';
export const ROLLBACK_TO_SAVEPOINT = 'ROLLBACK TO SAVEPOINT idempotency_handler';
export const FENCE_SAVEPOINT = 'SAVEPOINT idempotency_fence';
export const LEAVE_FENCE_SAVEPOINT = [
  'ROLLBACK TO SAVEPOINT idempotency_fence',
  'RELEASE SAVEPOINT idempotency_fence',
] as const;
export const COMMIT = 'COMMIT';
export const ROLLBACK = 'ROLLBACK';
/** Around a look that comes before a handler's transaction. */
export const BEGIN_LOOK = 'BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY';
/** Around the library's own statements, whatever isolation the session or the database has for its default. */
export const BEGIN_OWN = 'BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE';
/** A primary that was demoted refuses what is written, as a read-only transaction does. */
export const IN_RECOVERY = 'SELECT pg_catalog.pg_is_in_recovery() AS standby';

/*
 * $1 the role of the claim, $2 its session's user. The record is the library's, whatever role the handler has taken on; that is
 * remembered for `RESUME_ROLE`, since deferred triggers of the handler's run at COMMIT. What comes behind is read as UTF-8, as
 * node-postgres writes it.
 */
export const TAKE_ROLE = `
SELECT pg_catalog.set_config('idempotency.handler_role', pg_catalog.current_setting('role'), true),
       pg_catalog.set_config('idempotency.handler_user', session_user, true),
       CASE WHEN session_user <> $2::text THEN pg_catalog.set_config('session_authorization', $2::text, true) END,
       CASE WHEN session_user <> $2::text OR pg_catalog.current_setting('role') <> $1::text THEN pg_catalog.set_config('role', $1::text, true) END,
       CASE WHEN pg_catalog.current_setting('client_encoding') <> 'UTF8' THEN pg_catalog.set_config('client_encoding', 'UTF8', true) END`;
export const RESUME_ROLE = `
SELECT CASE WHEN session_user <> pg_catalog.current_setting('idempotency.handler_user')
            THEN pg_catalog.set_config('session_authorization', pg_catalog.current_setting('idempotency.handler_user'), true) END,
       CASE WHEN pg_catalog.current_setting('role') <> pg_catalog.current_setting('idempotency.handler_role')
            THEN pg_catalog.set_config('role', pg_catalog.current_setting('idempotency.handler_role'), true) END`;

const FUNCTIONS = [
  ...['now', 'clock_timestamp', 'set_config', 'current_setting', 'pg_backend_pid', 'pg_is_in_recovery'],
  ...['pg_try_advisory_xact_lock', 'pg_advisory_xact_lock_shared', 'encode', 'ceil', 'count', 'max'],
];
const CALL = new RegExp(`(?<![\\w.])(?=(?:${FUNCTIONS.join('|')})\\()`, 'g');

/** Calls functions by their full names: others of the same may come first in the search_path of a session. */
const inCatalog = (text: string): string => text.replaceAll(CALL, 'pg_catalog.');

/** A time as microseconds since 1970: nothing that a session may set changes how it is written. */
const micros = (time: string): string => `(extract(epoch FROM ${time}) * 1000000)::bigint`;

/** The same, read back. */
const fromMicros = (value: string): string =>
  `(timestamptz '1970-01-01 00:00:00+00' + ${value}::bigint * interval '1 microsecond')`;

/** What a replay is made of. */
const RECORDED = `encode(fingerprint, 'hex') AS fingerprint, status, mode, format_version, response_status,
       response_headers::text AS response_headers, encode(response_body, 'hex') AS response_body,
       ${micros('created_at')} AS created_at`;

/** Milliseconds until a lease ends; null where there is none. */
const REMAINING = `ceil(extract(epoch FROM locked_until - clock_timestamp()) * 1000)::bigint`;

/** What every request sends. What is rare is not worth the memory that a prepared statement takes in each session. */
const HOT = [
  'look',
  'lookForAll',
  'lock',
  'record',
  'claim',
  'completeLease',
  'extend',
  'fenceLock',
  'fence',
] as const;
const HOT_EVERYWHERE = [
  ['take_role', TAKE_ROLE],
  ['resume_role', RESUME_ROLE],
] as const;

/** The statements for that table. Each names it with its schema: a handler, or a session, may have any search_path. */
export function statementsFor(target: TargetTable) {
  const table = `${pg.escapeIdentifier(target.schema)}.${pg.escapeIdentifier(target.name)}`;
  const statements = textsFor(table, target);
  const hot = [...HOT.map((name) => [name, statements[name]] as const), ...HOT_EVERYWHERE];
  /** The names under which sessions keep the hot ones prepared, by their texts. */
  const names: ReadonlyMap<string, string> = new Map(hot.map(([name, text]) => [text, nameOf(name, text)]));
  return {
    ...statements,
    /** The table's name, from which locks are hashed. */
    table,
    begin: (isolation: IsolationLevel): string => `BEGIN ISOLATION LEVEL ${isolation} READ WRITE`,
    names,
  };
}

/** Stands for the table while functions are qualified: its name may look like a call. */
const PLACEHOLDER = '\0';

/** By name. */
function textsFor(name: string, { isPartitioned, serverVersion }: TargetTable) {
  const table = PLACEHOLDER;
  const texts = {
    lookForAll: lookForAll(table),
    lock: lock(serverVersion),
    look: look(table),
    record: record(table),
    recordOverExpired: recordOverExpired(table),
    recordOverLapsed: recordOverLapsed(table),
    claim: claim(table, serverVersion),
    takeOver: takeOver(table),
    extend: extend(table),
    completeLease: completeLease(table),
    lapse: lapse(table),
    takeBack: takeBack(table),
    free: free(table),
    fenceLock: fenceLock(serverVersion),
    fence: fence(table),
    fenceSnapshot: fenceSnapshot(table),
    find: find(table),
    list: list(table),
    releaseRecord: releaseRecord(table),
    settleRecord: settleRecord(table),
    purge: isPartitioned ? purgePartitioned(table) : purge(table),
  } satisfies Record<string, string>;
  const qualified = Object.entries(texts).map(
    ([what, text]) => [what, inCatalog(text).replaceAll(PLACEHOLDER, () => name)] as const,
  );
  return Object.fromEntries(qualified) as { readonly [Name in keyof typeof texts]: string };
}

/**
 * The name under which a text is prepared. Another name for another text: one session may serve several tables, and behind a
 * pooler several releases.
 */
function nameOf(what: string, text: string): string {
  return `idempotency_${what}_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
}

/**
 * Bounds the current transaction by a number of milliseconds. `transaction_timeout` alone does, where there is one. What the
 * application has set lower stays.
 */
function limits(serverVersion: number, milliseconds: string): string {
  const names =
    serverVersion >= 170_000
      ? ['transaction_timeout']
      : ['statement_timeout', 'idle_in_transaction_session_timeout'];
  const smaller = (name: string): string =>
    `CASE current_setting('${name}') WHEN '0' THEN ${milliseconds}
            ELSE least(extract(epoch FROM current_setting('${name}')::interval) * 1000, ${milliseconds}::numeric)::bigint::text END`;
  return names.map((name) => `set_config('${name}', ${smaller(name)}, true)`).join(', ');
}

/*
 * $1 lock number, $2 lock timeout, $3 maximum duration, $4 client, $5 endpoint, $6 key, $7 fingerprint, $8 mode,
 * $9 format version, $10 time until expiry in milliseconds, $11 owner token, $12 lease in milliseconds. The last two are
 * null in transaction mode, where the transaction itself is what holds the identity.
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
  const setLimits = limits(serverVersion, '$3::text');
  return `
WITH guard AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock($1::bigint) AS free, current_setting('lock_timeout') AS lock_timeout,
         pg_backend_pid() AS pid, set_config('lock_timeout', $2, true), ${setLimits}
), existing AS MATERIALIZED (
  SELECT ${RECORDED}, attempt, expires_at > clock_timestamp() AS live,
         owner_token = $11::uuid AS mine, ${REMAINING} AS remaining
    FROM ${table} WHERE client = $4 AND endpoint = $5 AND key = $6
), inserted AS (
  INSERT INTO ${table} (client, endpoint, key, fingerprint, status, mode, format_version, created_at, expires_at,
                        owner_token, locked_until)
  SELECT $4, $5, $6, $7, 'processing', $8, $9, clock_timestamp(), clock_timestamp() + $10 * interval '1 millisecond',
         $11::uuid, clock_timestamp() + $12::bigint * interval '1 millisecond'
    FROM guard WHERE guard.free AND NOT EXISTS (SELECT FROM existing)
  ON CONFLICT DO NOTHING
  RETURNING ${micros('created_at')} AS claimed_at
)
SELECT guard.free, guard.pid, inserted.claimed_at, existing.*, set_config('lock_timeout', guard.lock_timeout, true)
  FROM guard LEFT JOIN inserted ON true LEFT JOIN existing ON true`;
}

/*
 * $1 lock number, $2 client, $3 endpoint, $4 key, $5 fingerprint, $6 mode, $7 format version, $8 time until expiry in
 * milliseconds, $9 owner token, $10 lease in milliseconds, $11 the attempt that was found lapsed, null for a record that was
 * found expired.
 *
 * Takes over just what was found: meanwhile another attempt may have come and gone, on which nobody has decided. The exclusive lock keeps out owners that are
 * inside a fenced transaction, which holds it shared. A row that the purge is deleting, or that its owner is extending at
 * this moment, is skipped rather than waited for.
 */
function takeOver(table: string): string {
  const found = `client = $2 AND endpoint = $3 AND key = $4
   AND CASE WHEN $11::integer IS NULL THEN expires_at <= clock_timestamp()
            ELSE status = 'processing' AND locked_until <= clock_timestamp()
                 AND attempt = $11::integer AND fingerprint = $5 END`;
  return `
WITH guard AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock($1::bigint) AS free, pg_backend_pid() AS pid
), found AS MATERIALIZED (
  SELECT FROM ${table} WHERE ${found}
     FOR UPDATE SKIP LOCKED
)
UPDATE ${table}
   SET fingerprint = $5, status = 'processing', mode = $6, format_version = $7, response_status = NULL,
       response_headers = NULL, response_body = NULL, completed_at = NULL,
       attempt = CASE WHEN expires_at <= clock_timestamp() THEN 1 ELSE attempt + 1 END,
       created_at = CASE WHEN expires_at <= clock_timestamp() THEN clock_timestamp() ELSE created_at END,
       expires_at = clock_timestamp() + $8 * interval '1 millisecond',
       owner_token = $9::uuid, locked_until = clock_timestamp() + $10::bigint * interval '1 millisecond'
  FROM guard, found
 WHERE guard.free AND ${found}
RETURNING ${micros('created_at')} AS claimed_at, attempt`;
}

/*
 * $1 lock number, $2 maximum duration. How a transaction takes an identity: whoever has the lock runs, until COMMIT or ROLLBACK.
 * It is tried, never waited for. The limits hold for this transaction, so that they work through transaction-pooling proxies.
 * They free the key of an owner whose host vanished without closing its connection.
 */
function lock(serverVersion: number): string {
  return `
SELECT pg_try_advisory_xact_lock($1::bigint) AS free, ${micros('now()')} AS began, pg_backend_pid() AS pid,
       current_setting('role') AS role, session_user AS login, ${limits(serverVersion, '$2::text')}`;
}

/*
 * $1 client, $2 endpoint, $3 key. Sent behind `lock` and as a statement of its own, so that under READ COMMITTED its snapshot is
 * younger than the lock: what a rival committed before it gave up the lock is seen. It locks nothing, so that neither a replay nor
 * a claim waits for a purge.
 *
 * Under SERIALIZABLE it is sent before the transaction begins: within, it would lock the page of the index into which rivals with
 * other keys insert.
 */
function look(table: string): string {
  return `
SELECT ${RECORDED}, attempt, expires_at > clock_timestamp() AS live, ${REMAINING} AS remaining
  FROM ${table} WHERE client = $1 AND endpoint = $2 AND key = $3`;
}

/** Whether the transaction is still the one that took the lock, by when that began. */
const isOurs = (began: string): string => `${micros('now()')} = ${began}::bigint`;

/** An error that tells what the matter is: the cast is what fails, with its text as the message (22P02). */
const ENDED = `'the handler has ended its transaction by itself'`;

/*
 * $1 client, $2 endpoint, $3 key, $4 fingerprint, $5 status, $6 mode, $7 format version, $8 response status, $9 headers,
 * $10 body, $11 time to live in milliseconds, $12 when the transaction began, as `lock` told it.
 *
 * A transaction writes its record once, when it is complete: nobody else could see it before, and a row that is inserted
 * and then updated costs two versions and two entries in each index. The unique constraint has the last word. Under REPEATABLE
 * READ and SERIALIZABLE the snapshot is older than the lock, and a rival that committed in between is met here.
 *
 * COMMIT travels behind it. In another transaction than that which took the lock it fails: the handler has ended that by itself.
 */
function record(table: string): string {
  return `
INSERT INTO ${table} (client, endpoint, key, fingerprint, status, mode, format_version, response_status, response_headers,
                      response_body, created_at, completed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, CAST(CASE WHEN ${isOurs('$12')} THEN $7::text ELSE ${ENDED} END AS smallint),
        $8, $9, $10, now(), clock_timestamp(), clock_timestamp() + $11 * interval '1 millisecond')`;
}

/** Behind a write that must have changed one row: fails where it did not (22012), or where the transaction is another. */
const wroteOne = (began: string): string => `
SELECT CAST(CASE WHEN ${isOurs(began)} THEN (1 / count(*)::integer)::text ELSE ${ENDED} END AS integer) FROM written`;

/*
 * As `record`, where an expired record was found. Until now it was left alone, so that a claim that comes to nothing changes
 * nothing. The purge may have deleted it since; somebody who writes without the lock may have written another, which stays.
 */
function recordOverExpired(table: string): string {
  return `
WITH written AS (
  INSERT INTO ${table} AS record (client, endpoint, key, fingerprint, status, mode, format_version, response_status,
                                  response_headers, response_body, created_at, completed_at, expires_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), clock_timestamp(), clock_timestamp() + $11 * interval '1 millisecond')
  ON CONFLICT (key, client, endpoint) DO UPDATE
     SET fingerprint = excluded.fingerprint, status = excluded.status, mode = excluded.mode,
         format_version = excluded.format_version, response_status = excluded.response_status,
         response_headers = excluded.response_headers, response_body = excluded.response_body,
         created_at = excluded.created_at, completed_at = excluded.completed_at, expires_at = excluded.expires_at,
         attempt = 1, owner_token = NULL, locked_until = NULL
   WHERE record.expires_at <= clock_timestamp()
  RETURNING 1
)${wroteOne('$12')}`;
}

/*
 * As `record`, with $13 the attempt of a lease that was found lapsed. Only over that attempt: its owner may have completed it
 * since, or extended it. An INSERT would be wrong where it was completed, has expired and was purged.
 */
function recordOverLapsed(table: string): string {
  return `
WITH written AS (
  UPDATE ${table}
     SET fingerprint = $4, status = $5, mode = $6, format_version = $7, response_status = $8, response_headers = $9,
         response_body = $10, completed_at = clock_timestamp(),
         expires_at = clock_timestamp() + $11 * interval '1 millisecond',
         attempt = attempt + 1, owner_token = NULL, locked_until = NULL
   WHERE client = $1 AND endpoint = $2 AND key = $3
     AND attempt = $13::integer AND status = 'processing' AND locked_until <= clock_timestamp()
  RETURNING 1
)${wroteOne('$12')}`;
}

/*
 * $1 clients, $2 endpoints, $3 keys: three arrays, of which the elements of one place are an identity. Records to replay, found
 * without a transaction, each with the place of its identity, counted from 1; whatever else there is, the claim judges.
 *
 * What many requests ask for is one statement, because most of what a single one costs is its way to the server and back. The
 * LIMIT changes nothing of what is found: with it the part within is planned by itself, as for a single identity, in the primary
 * key. Without it a plan for all of them, above all one that is kept for any number, may be a hash join that reads the table.
 */
function lookForAll(table: string): string {
  return `
SELECT asked.place, found.*
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (client, endpoint, key, place)
 CROSS JOIN LATERAL (
  SELECT ${RECORDED} FROM ${table}
   WHERE client = asked.client AND endpoint = asked.endpoint AND key = asked.key AND status <> 'processing'
     AND expires_at > clock_timestamp() LIMIT 1
 ) AS found`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token, $5 lease in milliseconds.
 *
 * Never waits for a fenced transaction: that holds an advisory lock, not the row.
 */
function extend(table: string): string {
  return `
UPDATE ${table} SET locked_until = clock_timestamp() + $5::bigint * interval '1 millisecond'
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token, $5 status, $6 response status, $7 headers, $8 body, $9 time to live in
 * milliseconds. Without a response status it leaves a tombstone.
 *
 * The token stays, so that a completion whose acknowledgement was lost recognises itself when it is tried again; the
 * second condition makes that repetition harmless.
 */
function completeLease(table: string): string {
  return `
WITH done AS (
  UPDATE ${table}
     SET status = $5, response_status = $6, response_headers = $7, response_body = $8, completed_at = clock_timestamp(),
         expires_at = clock_timestamp() + $9 * interval '1 millisecond', locked_until = NULL
   WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'
  RETURNING 1
)
SELECT EXISTS (SELECT FROM done)
    OR EXISTS (SELECT FROM ${table}
                WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status <> 'processing')
       AS completed`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token.
 *
 * The owner says that it does not know how its attempt ended: from now on nobody holds the lease, this owner included.
 */
function lapse(table: string): string {
  return `
UPDATE ${table} SET locked_until = clock_timestamp(), owner_token = NULL
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token.
 *
 * The attempt never began, or nobody heard of its claim: it does not count. What was there before it is there again: nothing,
 * or an attempt whose outcome is as unknown as it was.
 */
function takeBack(table: string): string {
  const own = `client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
  return `
WITH freed AS (
  DELETE FROM ${table} WHERE ${own} AND attempt = 1 RETURNING 1
), lapsed AS (
  UPDATE ${table} SET locked_until = clock_timestamp(), owner_token = NULL, attempt = attempt - 1
   WHERE ${own} AND attempt > 1 RETURNING 1
)
SELECT 1 FROM freed UNION ALL SELECT 1 FROM lapsed`;
}

/* $1 client, $2 endpoint, $3 key, $4 owner token. The owner says that nothing happened. */
function free(table: string): string {
  return `
DELETE FROM ${table}
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/* Shared: fenced transactions of one owner do not exclude each other. */
function fenceLock(serverVersion: number): string {
  return `SELECT pg_advisory_xact_lock_shared($1::bigint), ${limits(serverVersion, '$2::text')}`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token. Sent in a fenced transaction, after `fenceLock` and in a statement of its
 * own, so that its snapshot is younger than the lock: a takeover that committed before is seen.
 */
function fence(table: string): string {
  return `
SELECT FROM ${table}
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 owner token. The same under REPEATABLE READ and SERIALIZABLE, where the snapshot is
 * older than the lock: locking the row fails with 40001 when it was changed since. The row lock would keep the owner from
 * extending its lease, so that it is taken behind FENCE_SAVEPOINT and given up again by LEAVE_FENCE_SAVEPOINT.
 */
function fenceSnapshot(table: string): string {
  return `${fence(table)} FOR SHARE`;
}

const VIEW = `client, endpoint, key, mode, attempt, ${micros('created_at')} AS created_at,
       ${micros('completed_at')} AS completed_at, ${micros('expires_at')} AS expires_at, ${micros('locked_until')} AS locked_until,
       CASE WHEN status = 'processing' AND locked_until <= clock_timestamp() THEN 'unresolved' ELSE status END AS state,
       response_status`;

/* $1 client, $2 endpoint, $3 key. */
function find(table: string): string {
  return `
SELECT ${VIEW}, response_headers::text AS response_headers, encode(response_body, 'hex') AS response_body
  FROM ${table}
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND expires_at > clock_timestamp()`;
}

/*
 * $1 client, $2 endpoint, $3 state, $4 created before, $5 created after: null for any. $6 to $8 the identity after which to
 * go on, $9 how many. In the order of the primary key, which does not change, so that none is skipped.
 */
function list(table: string): string {
  return `
SELECT * FROM (
  SELECT ${VIEW} FROM ${table}
   WHERE expires_at > clock_timestamp()
     AND ($1::text IS NULL OR client = $1) AND ($2::text IS NULL OR endpoint = $2)
     AND ($4::timestamptz IS NULL OR created_at < $4) AND ($5::timestamptz IS NULL OR created_at > $5)
     AND ($6::text IS NULL OR (key, client, endpoint) > ($8, $6, $7))
) AS records
 WHERE $3::text IS NULL OR state = $3
 ORDER BY key, client, endpoint LIMIT $9`;
}

/*
 * $1 lock number, $2 client, $3 endpoint, $4 key. The exclusive lock is not to be had while a handler runs in transaction
 * mode, or is inside a fenced transaction; a lease that has not lapsed says that one runs in lease mode.
 */
function releaseRecord(table: string): string {
  return `
WITH guard AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS free), released AS (
  DELETE FROM ${table} USING guard
   WHERE guard.free AND client = $2 AND endpoint = $3 AND key = $4
     AND (status <> 'processing' OR locked_until <= clock_timestamp() OR expires_at <= clock_timestamp())
  RETURNING 1
)
SELECT guard.free, EXISTS (SELECT FROM released) AS done,
       EXISTS (SELECT FROM ${table} WHERE client = $2 AND endpoint = $3 AND key = $4) AS existed
  FROM guard`;
}

/*
 * $1 lock number, $2 client, $3 endpoint, $4 key, $5 response status, $6 headers, $7 body, $8 time to live in
 * milliseconds. Only for an attempt whose outcome is unknown.
 */
function settleRecord(table: string): string {
  return `
WITH guard AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS free), settled AS (
  UPDATE ${table}
     SET status = 'completed', response_status = $5, response_headers = $6, response_body = $7,
         completed_at = clock_timestamp(), expires_at = clock_timestamp() + $8 * interval '1 millisecond',
         owner_token = NULL, locked_until = NULL
    FROM guard
   WHERE guard.free AND client = $2 AND endpoint = $3 AND key = $4
     AND status = 'processing' AND locked_until <= clock_timestamp()
  RETURNING 1
)
SELECT guard.free, EXISTS (SELECT FROM settled) AS done,
       EXISTS (SELECT FROM ${table} WHERE client = $2 AND endpoint = $3 AND key = $4) AS existed
  FROM guard`;
}

/*
 * $1 batch size, $2 the expiry from which on to look, in microseconds: what the batch before answered with, 0 for the first.
 * Otherwise each batch would read again past all that those before have deleted, for as long as an older snapshot, such as a
 * backup's, keeps the index from forgetting it.
 *
 * now() rather than clock_timestamp(), because only a stable function can use the index on expires_at; in a transaction of one
 * statement they are the same.
 *
 * By its place, which is unique in one plain table only, a row is deleted at a third to a fifth of the cost.
 *
 * Nobody waits for the commit to be on disk: what a crash brings back has expired and is deleted again, and whoever takes the
 * place of a deleted record commits behind it in the log.
 */
function purge(table: string): string {
  return `
WITH expired AS MATERIALIZED (
  SELECT ctid FROM ${table} WHERE ${HAS_EXPIRED}
   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), deleted AS (
  DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired)) RETURNING expires_at
)
${PURGED}`;
}

/* The same for a partitioned table. */
function purgePartitioned(table: string): string {
  return `
WITH expired AS MATERIALIZED (
  SELECT key, client, endpoint FROM ${table} WHERE ${HAS_EXPIRED}
   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), deleted AS (
  DELETE FROM ${table} AS record USING expired
   WHERE record.key = expired.key AND record.client = expired.client AND record.endpoint = expired.endpoint
  RETURNING record.expires_at
)
${PURGED}`;
}

const HAS_EXPIRED = `expires_at >= ${fromMicros('$2')} AND expires_at <= now()`;
const PURGED = `SELECT count(*) AS records, ${micros('max(expires_at)')} AS until, set_config('synchronous_commit', 'off', true)
  FROM deleted`;

/*
 * $1 the table, as it was asked for: by the search_path where no schema is named. What a boot looks at, once; from then on the
 * table is named as the catalogue has it.
 */
export const INSPECT = `
SELECT current_setting('server_version_num') AS server_version,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('default_transaction_isolation') AS default_isolation,
       current_user AS role, found.nspname AS schema, found.relname AS name,
       found.relkind = 'r' AND NOT found.relhassubclass AS is_plain, found.relkind = 'p' AS is_partitioned,
       row_security_active(found.oid) AS is_filtered,
       array_to_json(ARRAY(
         SELECT attname FROM pg_attribute
          WHERE attrelid = found.oid AND attnum > 0 AND NOT attisdropped
       ))::text AS columns,
       array_to_json(ARRAY(
         SELECT needed FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed
          WHERE NOT has_table_privilege(found.oid, needed)
       ))::text AS forbidden,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = found.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                  AND i.indimmediate AND i.indnkeyatts = 3
                  AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
                        WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]))
                      = ARRAY['client', 'endpoint', 'key']) AS identity_is_unique
  FROM (SELECT to_regclass($1) AS oid) AS asked
  LEFT JOIN (
    SELECT c.oid, relname, relkind, relhassubclass, nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  ) AS found ON found.oid = asked.oid`;

/** The columns that the statements use. */
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
  'owner_token',
  'attempt',
  'locked_until',
] as const;
