import type { Database } from './postgres.js';

const TABLE = 'idempotency_records';

/** Records to make of the one that is there: of its request and its answer, under other keys. */
export interface Filling {
  /** Names the keys, as in a load's source `series`. */
  readonly series: string;
  readonly count: number;
  /** When they expire, as SQL; `n` is 1 for the first of them. */
  readonly expires: string;
  /** How many clients they are of, in turn. Default: all are of the client that the first one is of. */
  readonly clients?: number;
  /** Makes the indexes afterwards, which is how to make millions. */
  readonly inBulk?: boolean;
}

/** Memory to sort entries in while an index is made of millions. */
const SORTING = "SET maintenance_work_mem = '1GB'";

/**
 * Fills the table with copies of the record with this key, so that their requests are replayed. What vacuum does for a table
 * that was filled is left to who asks.
 */
export async function fillRecords(database: Database, key: string, filling: Filling): Promise<void> {
  const { series, count, expires, clients, inBulk = false } = filling;
  // The table has a hash of the header that names the client.
  const client = `encode(sha256(convert_to('client-' || n % ${clients}, 'UTF8')), 'hex')`;
  const made = [
    ['key', 'md5($1 || n)::uuid::text'],
    ['expires_at', expires],
    ...(clients === undefined ? [] : [['client', client]]),
  ];
  const columns = await database.query<{ name: string }>(
    `SELECT quote_ident(attname) AS name FROM pg_attribute
      WHERE attrelid = '${TABLE}'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ($1)`,
    [made.map(([name]) => name)],
  );
  const names = columns.map(({ name }) => name).join(', ');
  const restore = inBulk ? await dropIndexes(database) : [];
  await database.query(
    `INSERT INTO ${TABLE} (${made.map(([name]) => name).join(', ')}, ${names})
     SELECT ${made.map(([, value]) => value).join(', ')}, ${names}
       FROM ${TABLE}, generate_series(1, $2::int) AS n WHERE key = $3`,
    [series, count, key],
  );
  // One text goes to one session.
  if (inBulk) await database.query([SORTING, ...restore, 'RESET maintenance_work_mem'].join(';\n'));
}

/** Resolves with the statements that make them again. */
async function dropIndexes(database: Database): Promise<string[]> {
  const [constraint] = await database.query<{ name: string; definition: string }>(
    `SELECT quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
       FROM pg_constraint WHERE conrelid = '${TABLE}'::regclass AND contype = 'p'`,
  );
  const indexes = await database.query<{ name: string; definition: string }>(
    `SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
       FROM pg_index WHERE indrelid = '${TABLE}'::regclass AND NOT indisprimary`,
  );
  await database.query(`ALTER TABLE ${TABLE} DROP CONSTRAINT ${constraint!.name}`);
  for (const { name } of indexes) await database.query(`DROP INDEX ${name}`);
  return [
    `ALTER TABLE ${TABLE} ADD CONSTRAINT ${constraint!.name} ${constraint!.definition}`,
    ...indexes.map(({ definition }) => definition),
  ];
}

/** Sizes in bytes: of the table with what it keeps out of line, and of its indexes. */
export interface Sizes {
  readonly table: number;
  readonly indexes: number;
}

/** How large the table of records is. */
export async function recordSizes(database: Database): Promise<Sizes> {
  const [row] = await database.query<{ table: string; indexes: string }>(
    `SELECT pg_table_size('${TABLE}') AS table, pg_indexes_size('${TABLE}') AS indexes`,
  );
  return { table: Number(row!.table), indexes: Number(row!.indexes) };
}

/** Where the write-ahead log ends, in bytes. */
export function walPosition(database: Database): Promise<number> {
  return database.number(`SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`);
}
