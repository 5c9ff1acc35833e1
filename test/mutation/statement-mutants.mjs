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
  { name: 'another process', from: 'pg_backend_pid() AS pid', to: '0 AS pid' },
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
  { name: 'no statement_timeout', from: "['statement_timeout', ", to: '[' },
  { name: 'no idle timeout', from: ", 'idle_in_transaction_session_timeout'", to: '' },
  { name: 'no transaction_timeout', from: 'serverVersion >= 170_000', to: 'serverVersion >= 990_000' },
  { name: 'limits of the session', from: '${smaller(name)}, true)', to: '${smaller(name)}, false)' },
  { name: 'raises what is lower', from: 'least(', to: 'greatest(' },
  { name: 'keeps what is higher', from: ', ${milliseconds}::numeric)', to: ')' },
  { name: 'takes none for the lowest', from: "WHEN '0' THEN ${milliseconds}", to: "WHEN '0' THEN '0'" },
  { name: 'takes seconds for milliseconds', from: ' * 1000, ', to: ', ' },
].map((mutant) => ({ within: 'limits', ...mutant }));

const takeOver = [
  { name: 'no lock', from: 'pg_try_advisory_xact_lock($1::bigint)', to: '($1::bigint IS NOT NULL)' },
  {
    name: 'waits for the lock',
    from: 'pg_try_advisory_xact_lock($1::bigint)',
    to: "(pg_advisory_xact_lock($1::bigint)::text = '')",
  },
  { name: 'shares the lock', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_xact_lock_shared' },
  { name: 'ignores the lock', from: 'guard.free AND ', to: '' },
  { name: 'waits for the row', from: ' SKIP LOCKED', to: '' },
  { name: 'does not lock the row', from: '\n     FOR UPDATE SKIP LOCKED', to: '' },
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

const lock = [
  { name: 'no lock', from: 'pg_try_advisory_xact_lock($1::bigint)', to: '($1::bigint IS NOT NULL)' },
  {
    name: 'waits for the lock',
    from: 'pg_try_advisory_xact_lock($1::bigint)',
    to: "(pg_advisory_xact_lock($1::bigint)::text = '')",
  },
  { name: 'shares the lock', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_xact_lock_shared' },
  { name: 'lock of the session', from: 'pg_try_advisory_xact_lock', to: 'pg_try_advisory_lock' },
  { name: 'began when it locked', from: "micros('now()')", to: "micros('clock_timestamp()')" },
  { name: 'another process', from: 'pg_backend_pid()', to: '0' },
  { name: 'the role of the session', from: "current_setting('role')", to: 'session_user' },
  { name: 'another user', from: 'session_user AS login', to: "'nobody' AS login" },
  { name: 'no limits of time', from: "${limits(serverVersion, '$2::text')}", to: '$2::text' },
].map((mutant) => ({ within: 'lock', ...mutant }));

const looks = [
  { within: 'look', name: 'an expired record is live', from: 'expires_at > clock_timestamp()', to: 'true' },
  { within: 'look', name: 'a live record is expired', from: 'expires_at > clock_timestamp()', to: 'false' },
  {
    within: 'look',
    name: 'looks by the clock of the transaction',
    from: 'expires_at > clock_timestamp()',
    to: 'expires_at > now()',
  },
  ...withoutIdentity('look', ['$1', '$2', '$3']),
  { within: 'look', name: 'locks the row', from: ' AND key = $3', to: ' AND key = $3 FOR UPDATE' },
  ...withoutIdentity('lookForAll', ['asked.client', 'asked.endpoint', 'asked.key']),
  { within: 'lookForAll', name: 'finds what runs', from: " AND status <> 'processing'", to: '' },
  {
    within: 'lookForAll',
    name: 'finds what has expired',
    from: '\n     AND expires_at > clock_timestamp()',
    to: '',
  },
  {
    within: 'lookForAll',
    name: 'tells no places apart',
    from: 'SELECT asked.place',
    to: 'SELECT 1 AS place',
  },
  {
    within: 'lookForAll',
    name: 'looks by the clock of the transaction',
    from: 'clock_timestamp()',
    to: 'now()',
  },
  { within: 'lookForAll', name: 'plans for all of them', from: ' LIMIT 1', to: '' },
  {
    within: 'RECORDED',
    name: 'bytes as the session writes them',
    from: "encode(fingerprint, 'hex') AS fingerprint",
    to: 'fingerprint::text AS fingerprint',
  },
  {
    within: 'RECORDED',
    name: 'a body as the session writes it',
    from: "encode(response_body, 'hex') AS response_body",
    to: 'response_body::text AS response_body',
  },
  {
    within: 'RECORDED',
    name: 'times as the session writes them',
    from: "${micros('created_at')} AS created_at",
    to: 'created_at::text AS created_at',
  },
  { within: 'REMAINING', name: 'by the clock of the transaction', from: 'clock_timestamp()', to: 'now()' },
  { within: 'REMAINING', name: 'in seconds', from: ' * 1000', to: '' },
  {
    within: 'REMAINING',
    name: 'since it lapsed',
    from: 'locked_until - clock_timestamp()',
    to: 'clock_timestamp() - locked_until',
  },
  { within: 'inCatalog', name: 'calls whatever the session finds first', from: "'pg_catalog.'", to: "''" },
  { within: 'micros', name: 'milliseconds', from: '1000000', to: '1000' },
  { within: 'fromMicros', name: 'milliseconds', from: '1 microsecond', to: '1 millisecond' },
];

const records = [
  {
    within: 'isOurs',
    name: 'in whatever transaction',
    from: "${micros('now()')} = ${began}::bigint",
    to: '${began}::bigint IS NOT NULL',
  },
  {
    within: 'isOurs',
    name: 'in no transaction',
    from: "${micros('now()')} = ${began}::bigint",
    to: '${began}::bigint IS NULL',
  },
  { within: 'isOurs', name: 'by the clock', from: "micros('now()')", to: "micros('clock_timestamp()')" },
  {
    within: 'record',
    name: 'a rival is no error',
    from: "'1 millisecond')",
    to: "'1 millisecond') ON CONFLICT DO NOTHING",
  },
  {
    within: 'record',
    name: 'completed when the transaction began',
    from: 'now(), clock_timestamp(), ',
    to: 'now(), now(), ',
  },
  { within: 'record', name: 'created at the end', from: '$10, now(), ', to: '$10, clock_timestamp(), ' },
  {
    within: 'record',
    name: 'expires from when the transaction began',
    from: 'clock_timestamp() + $11',
    to: 'now() + $11',
  },
  { within: 'record', name: 'expires in seconds', from: '1 millisecond', to: '1 second' },
  {
    within: 'wroteOne',
    name: 'commits without a record',
    from: '(1 / count(*)::integer)::text',
    to: 'count(*)::text',
  },
  {
    within: 'wroteOne',
    name: 'never commits',
    from: '1 / count(*)::integer',
    to: '1 / (count(*)::integer - 1)',
  },
  {
    within: 'wroteOne',
    name: 'in whatever transaction',
    from: '${isOurs(began)}',
    to: '${began}::bigint IS NOT NULL',
  },
];

const overExpired = [
  ...['fingerprint', 'status', 'mode', 'format_version', 'created_at', 'expires_at'].map((column) => ({
    name: `keeps ${column}`,
    from: `${column} = excluded.${column}`,
    to: `${column} = record.${column}`,
  })),
  ...['response_status', 'response_headers', 'response_body', 'completed_at'].map((column) => ({
    name: `keeps ${column}`,
    from: `${column} = excluded.${column}`,
    to: `${column} = record.${column}`,
  })),
  { name: 'goes on counting attempts', from: 'attempt = 1', to: 'attempt = record.attempt' },
  { name: 'keeps the token', from: 'owner_token = NULL', to: 'owner_token = record.owner_token' },
  { name: 'keeps the lease', from: 'locked_until = NULL', to: 'locked_until = record.locked_until' },
  { name: 'writes over what is alive', from: '\n   WHERE record.expires_at <= clock_timestamp()', to: '' },
  {
    name: 'by the clock of the transaction',
    from: 'record.expires_at <= clock_timestamp()',
    to: 'record.expires_at <= now()',
  },
  { name: 'does not write over', from: 'record.expires_at <= clock_timestamp()', to: 'false' },
  { name: 'created at the end', from: '$10, now(), ', to: '$10, clock_timestamp(), ' },
  { name: 'completed when the transaction began', from: 'now(), clock_timestamp(), ', to: 'now(), now(), ' },
  { name: 'expires from when the transaction began', from: 'clock_timestamp() + $11', to: 'now() + $11' },
  { name: 'expires in seconds', from: '1 millisecond', to: '1 second' },
  {
    name: 'a success whatever it did',
    from: "${wroteOne('$12')}",
    to: ' SELECT 1 FROM written WHERE $12::bigint > 0',
  },
].map((mutant) => ({ within: 'recordOverExpired', ...mutant }));

const overLapsed = [
  ...withoutIdentity('recordOverLapsed', ['$1', '$2', '$3']),
  { name: 'keeps the fingerprint', from: 'fingerprint = $4', to: 'fingerprint = coalesce(fingerprint, $4)' },
  { name: 'keeps the status', from: 'status = $5', to: 'status = coalesce(status, $5)' },
  { name: 'keeps the mode', from: 'mode = $6', to: 'mode = coalesce(mode, $6)' },
  {
    name: 'keeps the format',
    from: 'format_version = $7',
    to: 'format_version = coalesce(format_version, $7)',
  },
  {
    name: 'no response status',
    from: 'response_status = $8',
    to: 'response_status = nullif($8::int, $8::int)',
  },
  {
    name: 'no headers',
    from: 'response_headers = $9',
    to: 'response_headers = nullif($9::json::text, $9::json::text)::json',
  },
  { name: 'no body', from: 'response_body = $10', to: 'response_body = nullif($10::bytea, $10::bytea)' },
  {
    name: 'completed when the transaction began',
    from: 'completed_at = clock_timestamp()',
    to: 'completed_at = now()',
  },
  {
    name: 'expires from when the transaction began',
    from: 'expires_at = clock_timestamp()',
    to: 'expires_at = now()',
  },
  { name: 'expires in seconds', from: '1 millisecond', to: '1 second' },
  { name: 'does not count attempts', from: 'attempt = attempt + 1', to: 'attempt = attempt + 0' },
  { name: 'keeps the token', from: 'owner_token = NULL, ', to: '' },
  { name: 'keeps the lease', from: 'owner_token = NULL, locked_until = NULL', to: 'owner_token = NULL' },
  { name: 'over any attempt', from: 'attempt = $13::integer AND', to: '$13::integer IS NOT NULL AND' },
  { name: 'over what has ended', from: " AND status = 'processing'", to: '' },
  { name: 'over a lease that holds', from: ' AND locked_until <= clock_timestamp()', to: '' },
  {
    name: 'by the clock of the transaction',
    from: 'locked_until <= clock_timestamp()',
    to: 'locked_until <= now()',
  },
  {
    name: 'a success whatever it did',
    from: "${wroteOne('$12')}",
    to: ' SELECT 1 FROM written WHERE $12::bigint > 0',
  },
].map((mutant) => ({ within: 'recordOverLapsed', ...mutant }));

const ROLE = "pg_catalog.set_config('role', $1::text, true)";
const USER = "pg_catalog.set_config('session_authorization', $2::text, true)";
const ENCODING = "pg_catalog.set_config('client_encoding', 'UTF8', true)";
const HANDLERS_ROLE =
  "pg_catalog.set_config('role', pg_catalog.current_setting('idempotency.handler_role'), true)";
const HANDLERS_USER =
  "pg_catalog.set_config('session_authorization', pg_catalog.current_setting('idempotency.handler_user'), true)";
const forSession = (set) => set.replace(', true)', ', false)');

const roles = [
  ...[
    { name: 'takes no role', from: ROLE, to: '$1::text' },
    { name: 'takes the role for the session', from: ROLE, to: forSession(ROLE) },
    {
      name: 'remembers no role',
      from: "'idempotency.handler_role', pg_catalog.current_setting('role'), true",
      to: "'idempotency.handler_role', 'none', true",
    },
    { name: 'takes no user', from: USER, to: '$2::text' },
    { name: 'takes the user for the session', from: USER, to: forSession(USER) },
    { name: 'remembers no user', from: 'session_user, true)', to: '$2::text, true)' },
    {
      name: 'takes the role of the same user alone',
      from: 'session_user <> $2::text OR ',
      to: '',
      equivalent: 'to take the user resets the role, which is read behind that',
    },
    { name: 'reads as the session does', from: ENCODING, to: "'UTF8'" },
    { name: 'reads UTF-8 from now on', from: ENCODING, to: forSession(ENCODING) },
  ].map((mutant) => ({ within: 'TAKE_ROLE', ...mutant })),
  ...[
    { name: 'resumes no role', from: HANDLERS_ROLE, to: "'none'" },
    { name: 'resumes the role for the session', from: HANDLERS_ROLE, to: forSession(HANDLERS_ROLE) },
    { name: 'resumes no user', from: HANDLERS_USER, to: "'nobody'" },
    { name: 'resumes the user for the session', from: HANDLERS_USER, to: forSession(HANDLERS_USER) },
  ].map((mutant) => ({ within: 'RESUME_ROLE', ...mutant })),
];

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
  { within: 'lapse', name: 'keeps the token', from: ', owner_token = NULL', to: '' },
  ...withoutIdentity('lapse', ['$1', '$2', '$3']),
  { within: 'takeBack', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'takeBack', name: 'whatever its status', from: PROCESSING, to: '' },
  { within: 'takeBack', name: 'deletes a later attempt', from: ' AND attempt = 1', to: '' },
  { within: 'takeBack', name: 'never deletes', from: ' AND attempt = 1', to: ' AND attempt = 0' },
  { within: 'takeBack', name: 'keeps the lease', from: 'locked_until = clock_timestamp(), ', to: '' },
  { within: 'takeBack', name: 'keeps the token', from: 'owner_token = NULL, ', to: '' },
  {
    within: 'takeBack',
    name: 'counts what never began',
    from: 'attempt = attempt - 1',
    to: 'attempt = attempt',
  },
  {
    within: 'takeBack',
    name: 'lapses a first attempt',
    from: ' AND attempt > 1',
    to: '',
    equivalent: 'a statement changes a row once, and the deletion comes first',
  },
  { within: 'takeBack', name: 'never lapses', from: ' AND attempt > 1', to: ' AND attempt > 9' },
  { within: 'takeBack', name: 'does not tell what it freed', from: 'SELECT 1 FROM freed UNION ALL ', to: '' },
  {
    within: 'takeBack',
    name: 'does not tell what it lapsed',
    from: ' UNION ALL SELECT 1 FROM lapsed',
    to: '',
  },
  ...withoutIdentity('takeBack', ['$1', '$2', '$3']),
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
  {
    within: 'fenceLock',
    name: 'no limits of time',
    from: "${limits(serverVersion, '$2::text')}",
    to: '$2::text',
  },
  { within: 'fence', name: 'whoever owns it', from: TOKEN, to: ' AND $4::uuid IS NOT NULL' },
  { within: 'fence', name: 'whatever its status', from: PROCESSING, to: '' },
  ...withoutIdentity('fence', ['$1', '$2', '$3']),
  { within: 'fenceSnapshot', name: 'does not look at the present', from: ' FOR SHARE', to: '' },
  {
    within: 'LEAVE_FENCE_SAVEPOINT',
    name: 'keeps the row locked',
    from: "'ROLLBACK TO SAVEPOINT idempotency_fence',",
    to: '',
  },
];

const others = [
  ...['purge', 'purgePartitioned'].flatMap((within) => [
    { within, name: 'waits for locked rows', from: ' SKIP LOCKED', to: '' },
    { within, name: 'no batches', from: ' LIMIT $1', to: ' LIMIT $1 + 1000000' },
    { within, name: 'in no order', from: 'ORDER BY expires_at LIMIT', to: 'ORDER BY expires_at DESC LIMIT' },
  ]),
  {
    within: 'purge',
    name: 'deletes whatever there is',
    from: 'ctid = ANY (ARRAY(SELECT ctid FROM expired))',
    to: '(SELECT count(*) FROM expired) > 0',
  },
  { within: 'purgePartitioned', name: 'any client', from: ' AND record.client = expired.client', to: '' },
  {
    within: 'purgePartitioned',
    name: 'any endpoint',
    from: ' AND record.endpoint = expired.endpoint',
    to: '',
  },
  { within: 'purgePartitioned', name: 'any key', from: 'record.key = expired.key AND ', to: '' },
  { within: 'HAS_EXPIRED', name: 'deletes what is live', from: ' AND expires_at <= now()', to: '' },
  {
    within: 'HAS_EXPIRED',
    name: 'begins anew with each batch',
    from: "expires_at >= ${fromMicros('$2')}",
    to: '$2::bigint IS NOT NULL',
  },
  {
    within: 'HAS_EXPIRED',
    name: 'passes over what expired at once',
    from: 'expires_at >= ',
    to: 'expires_at > ',
  },
  { within: 'PURGED', name: 'goes on from the first', from: 'max(expires_at)', to: 'min(expires_at)' },
  {
    within: 'PURGED',
    name: 'waits for the disk',
    from: "set_config('synchronous_commit', 'off', true)",
    to: "'off'",
  },
  { within: 'PURGED', name: 'nobody waits for the disk any more', from: "'off', true)", to: "'off', false)" },
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
  ...lock,
  ...looks,
  ...records,
  ...overExpired,
  ...overLapsed,
  ...roles,
  ...leases,
  ...fences,
  ...others,
];
