/**
 * Faults in the SQL, one condition, lock or clock at a time. Stryker can only empty a string.
 *
 * `within` is the function of lib/store/sql.ts whose text is changed, `from` what is replaced there (its first
 * occurrence, or the one that `nth` counts from 1), and `equivalent` why no test can notice, where that is so.
 */

const TOKEN = ' AND owner_token = $4::uuid';
const PROCESSING = " AND status = 'processing'";

/** One mutant for each column of the identity that the statement no longer asks for. */
function withoutIdentity(within, [client, endpoint, key]) {
  return [
    { within, name: 'any client', from: `client = ${client} AND `, to: '' },
    { within, name: 'any endpoint', from: `endpoint = ${endpoint} AND `, to: '' },
    { within, name: 'any key', from: ` AND key = ${key}`, to: '' },
  ];
}

const claim = [
  { name: 'no lock', from: 'pg_try_advisory_xact_lock($1::bigint)', to: '($1::bigint IS NOT NULL)' },
  {
    name: 'waits for the lock',
    from: 'pg_try_advisory_xact_lock($1::bigint)',
    to: "(pg_advisory_xact_lock($1::bigint)::text = '')",
  },
  { name: 'shares the lock', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_xact_lock_shared' },
  { name: 'lock of the session', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_lock' },
  { name: 'no lock timeout', from: "set_config('lock_timeout', $2, true)", to: '$2::text' },
  {
    name: 'lock timeout stays',
    from: "set_config('lock_timeout', guard.lock_timeout, true)",
    to: 'guard.lock_timeout',
  },
  { name: 'no limits of time', from: ', ${setLimits}', to: ', $3::text' },
  { name: 'an expired record is live', from: 'expires_at > clock_timestamp()', to: 'true' },
  { name: 'a live record is expired', from: 'expires_at > clock_timestamp()', to: 'false' },
  {
    name: 'every lease is mine',
    from: 'owner_token = $11::uuid AS mine',
    to: '$11::uuid IS NOT NULL AS mine',
  },
  { name: 'no lease is mine', from: 'owner_token = $11::uuid AS mine', to: '$11::uuid IS NULL AS mine' },
  {
    name: 'looks by the clock of the transaction',
    from: 'expires_at > clock_timestamp()',
    to: 'expires_at > now()',
  },
  ...withoutIdentity('claim', ['$4', '$5', '$6']),
  { name: 'inserts without the lock', from: 'guard.free AND NOT', to: 'NOT' },
  { name: 'inserts without looking', from: ' AND NOT EXISTS (SELECT FROM existing)', to: '' },
  { name: 'a rival is an error', from: '  ON CONFLICT DO NOTHING\n', to: '' },
  { name: 'created when the transaction began', from: '$9, clock_timestamp()', to: '$9, now()' },
  {
    name: 'expires in seconds',
    from: "$10 * interval '1 millisecond'",
    to: "$10 * interval '1 second'",
  },
  {
    name: 'lease in seconds',
    from: "$12::bigint * interval '1 millisecond'",
    to: "$12::bigint * interval '1 second'",
  },
  {
    name: 'no token',
    from: '$11::uuid, clock_timestamp()',
    to: 'nullif($11::uuid, $11::uuid), clock_timestamp()',
  },
].map((mutant) => ({ within: 'claim', ...mutant }));

const limits = [
  { name: 'no statement_timeout', from: "'statement_timeout', ", to: '' },
  { name: 'no idle timeout', from: ", 'idle_in_transaction_session_timeout'", to: '' },
  { name: 'no transaction_timeout', from: 'serverVersion >= 170_000', to: 'serverVersion >= 990_000' },
  { name: 'limits of the session', from: '${milliseconds}, true', to: '${milliseconds}, false' },
].map((mutant) => ({ within: 'limits', ...mutant }));

const takeOver = [
  { name: 'no lock', from: 'pg_try_advisory_xact_lock($1::bigint)', to: '($1::bigint IS NOT NULL)' },
  {
    name: 'waits for the lock',
    from: 'pg_try_advisory_xact_lock($1::bigint)',
    to: "(pg_advisory_xact_lock($1::bigint)::text = '')",
  },
  { name: 'shares the lock', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_xact_lock_shared' },
  { name: 'ignores the lock', from: 'guard.free\n   AND ctid', to: 'ctid' },
  { name: 'waits for the row', from: ' SKIP LOCKED', to: '' },
  { name: 'does not lock the row', from: '\n                  FOR UPDATE SKIP LOCKED', to: '' },
  ...withoutIdentity('takeOver', ['$2', '$3', '$4']),
  {
    name: 'takes a live record',
    from: 'IS NULL THEN expires_at <= clock_timestamp()',
    to: 'IS NULL THEN true',
  },
  { name: 'takes a finished attempt', from: "status = 'processing' AND locked_until", to: 'locked_until' },
  { name: 'takes a lease that holds', from: ' AND locked_until <= clock_timestamp()', to: '' },
  { name: 'takes any attempt', from: 'AND attempt = $11::integer ', to: '' },
  { name: 'takes any request', from: ' AND fingerprint = $5 END', to: ' END' },
  { name: 'keeps the fingerprint', from: 'fingerprint = $5, status', to: 'status' },
  { name: 'keeps the status', from: "status = 'processing', mode", to: 'mode' },
  { name: 'keeps the mode', from: 'mode = $6, ', to: 'mode = coalesce(mode, $6), ' },
  {
    name: 'keeps the format',
    from: 'format_version = $7',
    to: 'format_version = coalesce(format_version, $7)',
  },
  { name: 'keeps the response status', from: 'response_status = NULL,\n', to: '\n' },
  { name: 'keeps the response headers', from: 'response_headers = NULL, ', to: '' },
  { name: 'keeps the response body', from: 'response_body = NULL, ', to: '' },
  { name: 'keeps the completion', from: 'completed_at = NULL,', to: '' },
  {
    name: 'goes on counting attempts',
    from: 'THEN 1 ELSE attempt + 1',
    to: 'THEN attempt + 1 ELSE attempt + 1',
  },
  { name: 'does not count attempts', from: 'ELSE attempt + 1 END', to: 'ELSE attempt END' },
  {
    name: 'keeps the creation of what expired',
    from: 'THEN clock_timestamp() ELSE created_at',
    to: 'THEN created_at ELSE created_at',
  },
  { name: 'a new creation for each attempt', from: 'ELSE created_at END', to: 'ELSE clock_timestamp() END' },
  {
    name: 'keeps the expiry',
    from: "expires_at = clock_timestamp() + $8 * interval '1 millisecond'",
    to: "expires_at = coalesce(expires_at, clock_timestamp() + $8 * interval '1 millisecond')",
  },
  {
    name: 'keeps the token',
    from: 'owner_token = $9::uuid, ',
    to: 'owner_token = coalesce(owner_token, $9::uuid), ',
  },
  {
    name: 'keeps the end of the lease',
    from: 'locked_until = clock_timestamp() + $10',
    to: 'locked_until = coalesce(locked_until, clock_timestamp()) + $10',
  },
].map((mutant) => ({ within: 'takeOver', ...mutant }));

const transactions = [
  {
    within: 'lock',
    name: 'no lock',
    from: 'pg_try_advisory_xact_lock(${number})',
    to: '(${number} IS NOT NULL)',
  },
  {
    within: 'lock',
    name: 'waits for the lock',
    from: 'pg_try_advisory_xact_lock(${number})',
    to: "(pg_advisory_xact_lock(${number})::text = '')",
  },
  {
    within: 'lock',
    name: 'shares the lock',
    from: 'pg_try_advisory_xact_lock',
    to: 'pg_try_advisory_xact_lock_shared',
  },
  {
    within: 'lock',
    name: 'lock of the session',
    from: 'pg_try_advisory_xact_lock',
    to: 'pg_try_advisory_lock',
  },
  { within: 'lock', name: 'locked when the transaction began', from: 'clock_timestamp()', to: 'now()' },
  {
    within: 'lock',
    name: 'no limits of time',
    from: '${limits(serverVersion, milliseconds)}',
    to: '${milliseconds}',
  },
  {
    within: 'existing',
    name: 'an expired record is live',
    from: 'expires_at > clock_timestamp()',
    to: 'true',
  },
  {
    within: 'existing',
    name: 'a live record is expired',
    from: 'expires_at > clock_timestamp()',
    to: 'false',
  },
  {
    within: 'existing',
    name: 'looks by the clock of the transaction',
    from: 'expires_at > clock_timestamp()',
    to: 'expires_at > now()',
  },
  ...withoutIdentity('existing', ['$1', '$2', '$3']),
  { within: 'existing', name: 'locks the row', from: ' AND key = $3', to: ' AND key = $3 FOR UPDATE' },
  {
    within: 'record',
    name: 'a rival is no error',
    from: "'1 millisecond')",
    to: "'1 millisecond') ON CONFLICT DO NOTHING",
  },
  {
    within: 'record',
    name: 'completed when the transaction began',
    from: '$11, clock_timestamp()',
    to: '$11, now()',
  },
  {
    within: 'record',
    name: 'expires from when the transaction began',
    from: 'clock_timestamp() + $12',
    to: 'now() + $12',
  },
  { within: 'record', name: 'expires in seconds', from: '1 millisecond', to: '1 second' },
  {
    within: 'record',
    name: 'created at the end',
    from: '$7, $8,',
    to: '$7, coalesce(clock_timestamp(), $8),',
  },
  ...withoutIdentity('look', ['asked.client', 'asked.endpoint', 'asked.key']),
  {
    within: 'record',
    name: 'in whatever transaction',
    from: 'now() = $13::timestamptz',
    to: '$13::text IS NOT NULL',
  },
  { within: 'look', name: 'finds what runs', from: " AND status <> 'processing'", to: '' },
  {
    within: 'look',
    name: 'finds what has expired',
    from: '\n     AND expires_at > clock_timestamp()',
    to: '',
  },
  { within: 'look', name: 'tells no places apart', from: 'SELECT asked.place', to: 'SELECT 1 AS place' },
  { within: 'look', name: 'looks by the clock of the transaction', from: 'clock_timestamp()', to: 'now()' },
];

const complete = [
  ...withoutIdentity('complete', ['$1', '$2', '$3']),
  { name: 'whatever its status', from: PROCESSING, to: '' },
  {
    name: 'expires from when the transaction began',
    from: 'expires_at = clock_timestamp()',
    to: 'expires_at = now()',
  },
  {
    name: 'completed when the transaction began',
    from: 'completed_at = clock_timestamp()',
    to: 'completed_at = now()',
  },
  { name: 'expires in seconds', from: '1 millisecond', to: '1 second' },
  { name: 'no body', from: 'response_body = $7', to: 'response_body = nullif($7::bytea, $7::bytea)' },
  {
    name: 'no headers',
    from: 'response_headers = $6',
    to: 'response_headers = nullif($6::json::text, $6::json::text)::json',
  },
  { name: 'commits without a record', from: "ELSE 'the record of this request is gone'", to: "ELSE '0'" },
  { name: 'never commits', from: "WHEN 1 THEN '1'", to: "WHEN 2 THEN '1'" },
].map((mutant) => ({ within: 'complete', ...mutant }));

const leases = [
  { within: 'extend', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'extend', name: 'whatever its status', from: PROCESSING, to: '' },
  { within: 'extend', name: 'does not extend', from: 'clock_timestamp() + $5', to: 'locked_until + 0 * $5' },
  ...withoutIdentity('extend', ['$1', '$2', '$3']),
  { within: 'completeLease', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'completeLease', name: 'whatever its status', from: PROCESSING, to: '' },
  { within: 'completeLease', name: 'does not recognise itself', from: "status <> 'processing'", to: 'false' },
  {
    within: 'completeLease',
    name: 'recognises anybody',
    from: TOKEN,
    nth: 2,
    to: ' AND $4::uuid IS NOT NULL',
  },
  { within: 'completeLease', name: 'recognises what runs', from: " AND status <> 'processing'", to: '' },
  { within: 'completeLease', name: 'keeps the lease', from: ', locked_until = NULL', to: '' },
  ...withoutIdentity('completeLease', ['$1', '$2', '$3']),
  { within: 'lapse', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'lapse', name: 'whatever its status', from: PROCESSING, to: '' },
  { within: 'lapse', name: 'keeps the lease', from: 'locked_until = clock_timestamp(), ', to: '' },
  { within: 'lapse', name: 'keeps the token', from: 'owner_token = NULL, ', to: '' },
  {
    within: 'lapse',
    name: 'counts what never began',
    from: 'attempt - $5::int',
    to: 'attempt - 0 * $5::int',
  },
  {
    within: 'lapse',
    name: 'counts from zero',
    from: 'greatest(1, attempt - $5::int)',
    to: 'attempt - $5::int',
  },
  ...withoutIdentity('lapse', ['$1', '$2', '$3']),
  { within: 'free', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'free', name: 'whatever its status', from: PROCESSING, to: '' },
  ...withoutIdentity('free', ['$1', '$2', '$3']),
];

const fences = [
  {
    within: 'fenceLock',
    name: 'no lock',
    from: 'pg_advisory_xact_lock_shared($1::bigint)',
    to: '$1::bigint',
  },
  {
    within: 'fenceLock',
    name: 'exclusive',
    from: 'pg_advisory_xact_lock_shared',
    to: 'pg_advisory_xact_lock',
  },
  {
    within: 'fenceLock',
    name: 'lock of the session',
    from: 'pg_advisory_xact_lock_shared',
    to: 'pg_advisory_lock_shared',
  },
  { within: 'fenceLock', name: 'no limits of time', from: "${limits(serverVersion, '$2')}", to: '$2::text' },
  { within: 'fence', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'fence', name: 'whatever its status', from: PROCESSING, to: '' },
  ...withoutIdentity('fence', ['$1', '$2', '$3']),
  { within: 'fenceSnapshot', name: 'does not look at the present', from: ' FOR SHARE', to: '' },
  {
    within: 'LEAVE_FENCE_SAVEPOINT',
    name: 'keeps the row locked',
    from: 'ROLLBACK TO SAVEPOINT idempotency_fence; ',
    to: '',
  },
];

const others = [
  { within: 'purge', name: 'waits for locked rows', from: ' SKIP LOCKED', to: '' },
  { within: 'purge', name: 'deletes what is live', from: ' AND expires_at <= now()', to: '' },
  {
    within: 'purge',
    name: 'begins anew with each batch',
    from: 'expires_at >= $2::timestamptz',
    to: '$2::timestamptz IS NOT NULL',
  },
  { within: 'purge', name: 'no batches', from: ' LIMIT $1', to: ' LIMIT $1 + 1000000' },
  { within: 'releaseRecord', name: 'ignores the lock', from: 'guard.free AND ', to: '' },
  { within: 'releaseRecord', name: 'releases what runs', from: "status <> 'processing' OR", to: 'true OR' },
  ...withoutIdentity('releaseRecord', ['$2', '$3', '$4']),
  { within: 'settleRecord', name: 'ignores the lock', from: 'guard.free AND ', to: '' },
  {
    within: 'settleRecord',
    name: 'settles what runs',
    from: ' AND locked_until <= clock_timestamp()',
    to: '',
  },
  { within: 'settleRecord', name: 'settles what has ended', from: "status = 'processing' AND", to: '' },
  { within: 'settleRecord', name: 'keeps the token', from: 'owner_token = NULL, ', to: '' },
  ...withoutIdentity('settleRecord', ['$2', '$3', '$4']),
];

export const mutants = [
  ...claim,
  ...limits,
  ...takeOver,
  ...transactions,
  ...complete,
  ...leases,
  ...fences,
  ...others,
];
