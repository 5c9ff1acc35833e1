import pg from 'pg';
import type { Identity } from '../core/identity.js';
import type { IsolationLevel } from '../core/store.js';

/** Every statement this library sends, by name, for one table. Parameters are named in the comments' order. */
export type Statements = ReturnType<typeof statementsFor>;

export const SAVEPOINT = 'SAVEPOINT idempotency_handler';
export const ROLLBACK_TO_SAVEPOINT = 'ROLLBACK TO SAVEPOINT idempotency_handler';
export const FENCE_SAVEPOINT = 'SAVEPOINT idempotency_fence';
export const LEAVE_FENCE_SAVEPOINT =
  'ROLLBACK TO SAVEPOINT idempotency_fence; RELEASE SAVEPOINT idempotency_fence';
export const COMMIT = 'COMMIT';
export const ROLLBACK = 'ROLLBACK';

/** What a replay is made of. */
const RECORDED =
  'fingerprint, status, mode, format_version, response_status, response_headers, response_body, created_at';

/** Milliseconds until a lease ends; null where there is none. */
const REMAINING = `(extract(epoch FROM locked_until - clock_timestamp()) * 1000)::float8`;

/** The statements for a table of that name; without a schema, the connection's search_path finds it. */
export function statementsFor(name: string, schema: string | undefined, serverVersion: number) {
  const quoted = pg.escapeIdentifier(name);
  const table = schema === undefined ? quoted : `${pg.escapeIdentifier(schema)}.${quoted}`;
  return {
    /** As `regclass` input. */
    table,
    begin: (isolation: IsolationLevel | undefined): string =>
      isolation ? `BEGIN ISOLATION LEVEL ${isolation} READ WRITE` : 'BEGIN READ WRITE',
    look: look(table),
    lock: lock(serverVersion, '$1::bigint', '$2'),
    /** The same with its values in its text, so that it can travel with BEGIN where a connection sends nothing at once. */
    lockNow: (number: string, maxDuration: number): string =>
      lock(serverVersion, `${BigInt(number)}::bigint`, `'${maxDuration}'`),
    existing: existing(table, '$1', '$2', '$3'),
    /** The same for what is looked for, like `lockNow`. */
    existingNow: ({ client, endpoint, key }: Identity): string =>
      existing(table, literal(client), literal(endpoint), literal(key)),
    record: record(table),
    claim: claim(table, serverVersion),
    takeOver: takeOver(table),
    complete: complete(table),
    extend: extend(table),
    completeLease: completeLease(table),
    lapse: lapse(table),
    free: free(table),
    /** $1 lock number, $2 maximum duration. */
    fenceLock: fenceLock(serverVersion),
    fence: fence(table),
    fenceSnapshot: fenceSnapshot(table),
    find: find(table),
    list: list(table),
    releaseRecord: releaseRecord(table),
    settleRecord: settleRecord(table),
    purge: purge(table),
  };
}

/** Bounds the current transaction by a number of milliseconds, in every way the server knows. */
function limits(serverVersion: number, milliseconds: string): string {
  const names = ['statement_timeout', 'idle_in_transaction_session_timeout'];
  if (serverVersion >= 170_000) names.push('transaction_timeout');
  return names.map((name) => `set_config('${name}', ${milliseconds}, true)`).join(', ');
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
  const setLimits = limits(serverVersion, '$3');
  return `
WITH guard AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock($1::bigint) AS free, current_setting('lock_timeout') AS lock_timeout,
         set_config('lock_timeout', $2, true), ${setLimits}
), existing AS MATERIALIZED (
  SELECT ${RECORDED}, completed_at, attempt,
         expires_at > clock_timestamp() AS live, owner_token = $11::uuid AS mine,
         ${REMAINING} AS remaining
    FROM ${table} WHERE client = $4 AND endpoint = $5 AND key = $6
), inserted AS (
  INSERT INTO ${table} (client, endpoint, key, fingerprint, status, mode, format_version, created_at, expires_at,
                        owner_token, locked_until)
  SELECT $4, $5, $6, $7, 'processing', $8, $9, clock_timestamp(), clock_timestamp() + $10 * interval '1 millisecond',
         $11::uuid, clock_timestamp() + $12::bigint * interval '1 millisecond'
    FROM guard WHERE guard.free AND NOT EXISTS (SELECT FROM existing)
  ON CONFLICT DO NOTHING
  RETURNING created_at
)
SELECT guard.free, inserted.created_at AS claimed_at, existing.*, set_config('lock_timeout', guard.lock_timeout, true)
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
  return `
WITH guard AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS free)
UPDATE ${table}
   SET fingerprint = $5, status = 'processing', mode = $6, format_version = $7, response_status = NULL,
       response_headers = NULL, response_body = NULL, completed_at = NULL,
       attempt = CASE WHEN expires_at <= clock_timestamp() THEN 1 ELSE attempt + 1 END,
       created_at = CASE WHEN expires_at <= clock_timestamp() THEN clock_timestamp() ELSE created_at END,
       expires_at = clock_timestamp() + $8 * interval '1 millisecond',
       owner_token = $9::uuid, locked_until = clock_timestamp() + $10::bigint * interval '1 millisecond'
  FROM guard
 WHERE guard.free
   AND ctid = (SELECT ctid FROM ${table}
                WHERE client = $2 AND endpoint = $3 AND key = $4
                  AND CASE WHEN $11::integer IS NULL THEN expires_at <= clock_timestamp()
                           ELSE status = 'processing' AND locked_until <= clock_timestamp()
                                AND attempt = $11::integer AND fingerprint = $5 END
                  FOR UPDATE SKIP LOCKED)
RETURNING created_at AS claimed_at, attempt`;
}

/*
 * $1 lock number, $2 maximum duration. How a transaction takes an identity: whoever has the lock runs, until COMMIT or ROLLBACK.
 * It is tried, never waited for. The limits hold for this transaction, so that they work through transaction-pooling proxies.
 * They free the key of an owner whose host vanished without closing its connection.
 */
function lock(serverVersion: number, number: string, milliseconds: string): string {
  return `
SELECT pg_try_advisory_xact_lock(${number}) AS free, clock_timestamp() AS locked_at, now()::text AS began, ${limits(serverVersion, milliseconds)}`;
}

/*
 * $1 client, $2 endpoint, $3 key. Sent behind `lock` and as a statement of its own, so that under READ COMMITTED its snapshot is
 * younger than the lock, also where both travel in one text: what a rival committed before it gave up the lock is seen. It locks nothing, so that neither a replay nor
 * a claim waits for a purge.
 */
function existing(table: string, client: string, endpoint: string, key: string): string {
  return `
SELECT ${RECORDED}, attempt, expires_at > clock_timestamp() AS live, ${REMAINING} AS remaining
  FROM ${table} WHERE client = ${client} AND endpoint = ${endpoint} AND key = ${key}`;
}

/** Nothing of a text stands in SQL but its bytes in hexadecimal digits, so that no quoting and no setting of the server matters. */
function literal(text: string): string {
  return `convert_from(decode('${Buffer.from(text).toString('hex')}', 'hex'), 'UTF8')`;
}

/*
 * $1 client, $2 endpoint, $3 key, $4 fingerprint, $5 status, $6 mode, $7 format version, $8 when it was claimed, $9 response
 * status, $10 headers, $11 body, $12 time to live in milliseconds, $13 when the transaction began, as `lock` told it.
 *
 * A transaction writes its record once, when it is complete: nobody else could see it before, and a row that is inserted
 * and then updated costs two versions and two entries in each index. The unique constraint has the last word. Under REPEATABLE
 * READ and SERIALIZABLE the snapshot is older than the lock, and a rival that committed in between is met here.
 *
 * In another transaction than that which took the lock it fails: the handler has ended that by itself. The cast is what fails,
 * with its text as the message.
 */
function record(table: string): string {
  return `
INSERT INTO ${table} (client, endpoint, key, fingerprint, status, mode, format_version, created_at, response_status,
                      response_headers, response_body, completed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6,
        CAST(CASE WHEN now() = $13::timestamptz THEN $7::text ELSE 'the handler has ended its transaction by itself' END AS smallint),
        $8, $9, $10, $11, clock_timestamp(), clock_timestamp() + $12 * interval '1 millisecond')`;
}

/*
 * $1 clients, $2 endpoints, $3 keys: three arrays, of which the elements of one place are an identity. Records to replay, found
 * without a transaction, each with the place of its identity, counted from 1; whatever else there is, the claim judges.
 *
 * What many requests ask for is one statement, because most of what a single one costs is its way to the server and back. The
 * LIMIT changes nothing of what is found: with it the part within is planned by itself, as for a single identity, in the primary
 * key. Without it a plan for all of them, above all one that is kept for any number, may be a hash join that reads the table.
 */
function look(table: string): string {
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
 * $1 client, $2 endpoint, $3 key, $4 status, $5 response status, $6 headers, $7 body, $8 time to live in milliseconds. For a
 * record that was taken over. Expiry runs from completion, and by clock_timestamp(): now() is when the transaction began.
 *
 * It is sent along with COMMIT: where there is no such row it fails, so that nothing is committed without a record. The
 * cast is what fails; its text becomes the error's message.
 */
function complete(table: string): string {
  return `
WITH done AS (
  UPDATE ${table}
     SET status = $4, response_status = $5, response_headers = $6, response_body = $7,
         completed_at = clock_timestamp(), expires_at = clock_timestamp() + $8 * interval '1 millisecond'
   WHERE client = $1 AND endpoint = $2 AND key = $3 AND status = 'processing'
  RETURNING 1
)
SELECT CAST(CASE count(*) WHEN 1 THEN '1' ELSE 'the record of this request is gone' END AS integer) FROM done`;
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
 * $1 client, $2 endpoint, $3 key, $4 owner token, $5 attempts to take back.
 *
 * The owner says that it does not know how its attempt ended: from now on nobody holds the lease, this owner included. An
 * attempt whose handler never began does not count.
 */
function lapse(table: string): string {
  return `
UPDATE ${table} SET locked_until = clock_timestamp(), owner_token = NULL, attempt = greatest(1, attempt - $5::int)
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/* $1 client, $2 endpoint, $3 key, $4 owner token. The owner says that nothing happened. */
function free(table: string): string {
  return `
DELETE FROM ${table}
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND owner_token = $4::uuid AND status = 'processing'`;
}

/* Shared: fenced transactions of one owner do not exclude each other. */
function fenceLock(serverVersion: number): string {
  return `SELECT pg_advisory_xact_lock_shared($1::bigint), ${limits(serverVersion, '$2')}`;
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

const VIEW = `client, endpoint, key, mode, attempt, created_at, completed_at, expires_at, locked_until,
       CASE WHEN status = 'processing' AND locked_until <= clock_timestamp() THEN 'unresolved' ELSE status END AS state,
       response_status`;

/* $1 client, $2 endpoint, $3 key. */
function find(table: string): string {
  return `
SELECT ${VIEW}, response_headers, response_body FROM ${table}
 WHERE client = $1 AND endpoint = $2 AND key = $3 AND expires_at > clock_timestamp()`;
}

/*
 * $1 client, $2 endpoint, $3 state, $4 created before, $5 created after: null for any. $6 to $8 the identity after which to
 * go on, $9 how many. In the order of the primary key, so that a page is read from the index and none is skipped.
 */
function list(table: string): string {
  return `
SELECT * FROM (
  SELECT ${VIEW} FROM ${table}
   WHERE expires_at > clock_timestamp()
     AND ($1::text IS NULL OR client = $1) AND ($2::text IS NULL OR endpoint = $2)
     AND ($4::timestamptz IS NULL OR created_at < $4) AND ($5::timestamptz IS NULL OR created_at > $5)
     AND ($6::text IS NULL OR (client, endpoint, key) > ($6, $7, $8))
) AS records
 WHERE $3::text IS NULL OR state = $3
 ORDER BY client, endpoint, key LIMIT $9`;
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
 * $1 batch size, $2 the expiry from which on to look: what the batch before answered with, `-infinity` for the first. Otherwise
 * each batch would read again past all that those before have deleted, for as long as an older snapshot, such as a backup's,
 * keeps the index from forgetting it.
 *
 * now() rather than clock_timestamp(), because only a stable function can use the index on expires_at; in a transaction of one
 * statement they are the same. The expiry is text, because a Date has no microseconds.
 *
 * Nobody waits for the commit to be on disk: what a crash brings back has expired and is deleted again, and whoever takes the
 * place of a deleted record commits behind it in the log.
 */
function purge(table: string): string {
  return `
WITH expired AS MATERIALIZED (
  SELECT ctid FROM ${table} WHERE expires_at >= $2::timestamptz AND expires_at <= now()
   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), deleted AS (
  DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired)) RETURNING expires_at
)
SELECT count(*)::integer AS records, max(expires_at)::text AS until, set_config('synchronous_commit', 'off', true)
  FROM deleted`;
}
