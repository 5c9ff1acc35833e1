// What a boot looks at of the database, apart from the statements that requests send.

/** $1 table */
export const INSPECT = `
SELECT current_setting('server_version_num')::int AS server_version,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('default_transaction_isolation') AS default_isolation,
       to_regclass($1) IS NOT NULL AS table_exists,
       EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'r' AND NOT relhassubclass) AS is_one_table,
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
  'owner_token',
  'attempt',
  'locked_until',
] as const;
