import pg from 'pg';

/** Where the records live. */
export interface MigrationTarget {
  /** Schema of the table; it must exist. Default: the connection's `search_path` decides. */
  readonly schema?: string;
  /** Name of the table. Default: `idempotency_records`. */
  readonly table?: string;
}

/** SQL that creates the table, and SQL that drops it. */
export interface IdempotencyDdl {
  readonly up: string;
  readonly down: string;
}

const DEFAULT_TABLE = 'idempotency_records';
/** PostgreSQL silently cuts longer identifiers. */
const MAX_NAME_BYTES = 63;
/** The longest name that is made from the table's adds this. */
const MAX_TABLE_BYTES = MAX_NAME_BYTES - '_expires_idx'.length;

/**
 * The SQL of the newest schema, for those who migrate with something other than TypeORM.
 * Needs PostgreSQL 14 or later.
 *
 * @throws RangeError for a name that is empty or longer than PostgreSQL allows, or contains a NUL character.
 */
export function idempotencyDdl(target: MigrationTarget = {}): IdempotencyDdl {
  const steps = ddlSteps(target);
  return {
    up: steps.map(({ up }) => up).join(''),
    down: steps
      .map(({ down }) => down)
      .reverse()
      .join(''),
  };
}

/** One migration. Later releases only add further ones. */
export interface DdlStep extends IdempotencyDdl {
  /** TypeORM orders migrations by the 13 digits at the end. */
  readonly name: string;
}

/** The migrations, oldest first. */
export function ddlSteps({ schema, table = DEFAULT_TABLE }: MigrationTarget = {}): DdlStep[] {
  assertName('table', table, MAX_TABLE_BYTES);
  if (schema === '') throw new RangeError('The schema’s name is empty: leave it out to use the search_path.');
  if (schema !== undefined) assertName('schema', schema, MAX_NAME_BYTES);
  const quote = (name: string): string => pg.escapeIdentifier(name);
  const qualified = schema === undefined ? quote(table) : `${quote(schema)}.${quote(table)}`;
  return [
    {
      name: 'CreateIdempotencyRecords1767225600000',
      up: createTable(qualified, table, quote),
      down: `DROP TABLE ${qualified};\n`,
    },
  ];
}

function assertName(what: string, name: string, longest: number): void {
  if (name.includes('\0')) throw new RangeError(`The ${what}’s name must not contain a NUL character.`);
  if (name === '' || Buffer.byteLength(name) > longest) {
    throw new RangeError(`The ${what}’s name must have 1 to ${longest} bytes; choose another: ${name}`);
  }
}

/*
 * The collation "C" compares bytes: it is the fastest, and an upgrade of the operating system's collations cannot
 * corrupt the index that guarantees uniqueness. Bodies are bytes and headers `json`, because `jsonb` reorders keys and
 * rewrites numbers.
 *
 * The primary key begins with the key: where keys are in the order of time, as UUIDs of version 7 are, a new record touches the
 * page of the index that the one before it touched, whatever its client. Any other order costs a page of the write-ahead log for
 * each record, right behind a checkpoint.
 */
function createTable(qualified: string, table: string, quote: (name: string) => string): string {
  return `CREATE TABLE ${qualified} (
  client           text COLLATE "C" NOT NULL,
  endpoint         text COLLATE "C" NOT NULL,
  key              text COLLATE "C" NOT NULL,
  fingerprint      bytea            NOT NULL,
  status           text             NOT NULL CHECK (status IN ('processing', 'completed', 'failed')),
  mode             text             NOT NULL,
  format_version   smallint         NOT NULL,
  response_status  smallint,
  response_headers json,
  response_body    bytea,
  created_at       timestamptz      NOT NULL DEFAULT clock_timestamp(),
  completed_at     timestamptz,
  expires_at       timestamptz      NOT NULL,
  owner_token      uuid,
  attempt          integer          NOT NULL DEFAULT 1,
  locked_until     timestamptz,
  CONSTRAINT ${quote(`${table}_identity`)} PRIMARY KEY (key, client, endpoint)
);
CREATE INDEX ${quote(`${table}_expires_idx`)} ON ${qualified} (expires_at);
COMMENT ON TABLE ${qualified} IS 'Idempotency records, written by nestjs-pg-idempotency.';
`;
}
