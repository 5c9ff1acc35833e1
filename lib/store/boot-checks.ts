import pg from 'pg';
import { IdempotencyUsageError } from '../core/errors.js';
import type { IsolationLevel } from '../core/store.js';
import type { Pool } from '../join/port.js';
import type { Raw } from './batch.js';
import { acquireOnce } from './once.js';
import { isForbidden } from './problems.js';
import { isTrue } from './rows.js';
import { COLUMNS, INSPECT, statementsFor, type Statements } from './sql.js';

/** What has to be known about the database before the first request. */
export interface InspectedDatabase {
  readonly statements: Statements;
  readonly defaultIsolation: IsolationLevel;
}

/** What to look for, and what to tolerate. Times are milliseconds. */
export interface Inspection {
  readonly table: string;
  /** Undefined: that in which the search_path finds the table. */
  readonly schema: string | undefined;
  readonly allowAsynchronousCommit: boolean;
  readonly acquireTimeout: number;
}

interface InspectRow {
  readonly server_version: string;
  readonly synchronous_commit: string;
  readonly default_isolation: string;
  readonly role: string;
  readonly schema: Raw;
  readonly name: Raw;
  readonly is_plain: Raw;
  readonly is_partitioned: Raw;
  readonly is_filtered: Raw;
  /** As JSON. */
  readonly columns: string;
  /** As JSON. */
  readonly forbidden: string;
  readonly identity_is_unique: string;
}

/** The table, as the catalogue has it. */
interface FoundRow extends InspectRow {
  readonly schema: string;
  readonly name: string;
}

const OLDEST_SERVER = 140_000;

/**
 * Looks at the database once. From then on the table is named as the catalogue has it, so that all who work on it name it alike.
 *
 * @throws IdempotencyUsageError when the database is not what the promises need, with the remedy.
 */
export async function inspectDatabase(pool: Pool, inspection: Inspection): Promise<InspectedDatabase> {
  const row = await inspect(pool, inspection);
  assertServer(row, inspection.allowAsynchronousCommit);
  assertTable(row, asked(inspection));
  const { schema, name } = row;
  const serverVersion = Number(row.server_version);
  const isPartitioned = isTrue(row.is_partitioned);
  return {
    statements: statementsFor({ schema, name, isPartitioned, serverVersion }),
    defaultIsolation: isolationLevel(row.default_isolation),
  };
}

async function inspect(pool: Pool, inspection: Inspection): Promise<InspectRow> {
  const { acquireTimeout } = inspection;
  const statement = { text: INSPECT, values: [asked(inspection)] };
  try {
    const { rows } = await acquireOnce({ pool, acquireTimeout, names: undefined }, (connection) =>
      connection.sendAlone(statement),
    );
    return rows[0] as unknown as InspectRow;
  } catch (error) {
    if (!isForbidden(error)) throw error;
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_TABLE_FORBIDDEN',
      `the role may not use the schema of ${asked(inspection)}: GRANT USAGE ON SCHEMA … TO it.`,
      { cause: error },
    );
  }
}

/** As `regclass` input. */
function asked({ schema, table }: Inspection): string {
  return schema === undefined
    ? pg.escapeIdentifier(table)
    : `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
}

function assertServer(row: InspectRow, allowAsynchronousCommit: boolean): void {
  if (Number(row.server_version) < OLDEST_SERVER) {
    throw refused('IDEMPOTENCY_DATABASE_UNSUITABLE', 'PostgreSQL 14 or later is needed.');
  }
  if (row.synchronous_commit === 'off' && !allowAsynchronousCommit) {
    throw refused(
      'IDEMPOTENCY_DATABASE_UNSUITABLE',
      'synchronous_commit is off, so a crash of the server can lose a response that was already sent, and the retry ' +
        'runs again. Set it to on for this role or database, or accept the loss with allowAsynchronousCommit: true.',
    );
  }
}

function assertTable(row: InspectRow, name: string): asserts row is FoundRow {
  if (row.name === null || row.schema === null) {
    throw refused(
      'IDEMPOTENCY_TABLE_MISSING',
      `there is no table ${name}. Add idempotencyMigrations() of 'nestjs-pg-idempotency/migrations' to the ` +
        `DataSource's migrations and run them, or run the SQL that 'npx nestjs-pg-idempotency ddl' prints.`,
    );
  }
  if (!isTrue(row.is_plain) && !isTrue(row.is_partitioned)) {
    throw refused(
      'IDEMPOTENCY_TABLE_UNSUITABLE',
      `${name} is inherited from, or no table at all, so that no constraint of it keeps identities unique. Use a plain table, as ` +
        'the migrations make it, or one that is partitioned.',
    );
  }
  assertRights(row, name);
  assertColumns(row, name);
}

function assertRights(row: InspectRow, name: string): void {
  const forbidden = JSON.parse(row.forbidden) as string[];
  if (forbidden.length > 0) {
    throw refused(
      'IDEMPOTENCY_TABLE_FORBIDDEN',
      `role "${row.role}" may not ${forbidden.join(', ')} on ${name}: ` +
        `GRANT SELECT, INSERT, UPDATE, DELETE ON ${name} TO ${pg.escapeIdentifier(row.role)}.`,
    );
  }
  if (isTrue(row.is_filtered)) {
    throw refused(
      'IDEMPOTENCY_TABLE_UNSUITABLE',
      `row level security hides records of ${name} from role "${row.role}", so that what is recorded would run again. Disable it ` +
        'on this table.',
    );
  }
}

function assertColumns(row: InspectRow, name: string): void {
  const columns = JSON.parse(row.columns) as string[];
  const missing = COLUMNS.filter((column) => !columns.includes(column));
  if (missing.length > 0 || !isTrue(row.identity_is_unique)) {
    const lack =
      missing.length > 0 ? `column ${missing.join(', ')}` : 'a unique constraint on (client, endpoint, key)';
    throw refused(
      'IDEMPOTENCY_TABLE_OUTDATED',
      `table ${name} lacks ${lack}. Run the pending migrations of 'nestjs-pg-idempotency/migrations'.`,
    );
  }
}

function isolationLevel(setting: string): IsolationLevel {
  const level = setting.toUpperCase();
  return level === 'SERIALIZABLE' || level === 'REPEATABLE READ' ? level : 'READ COMMITTED';
}

function refused(code: `IDEMPOTENCY_${string}`, message: string): IdempotencyUsageError {
  return new IdempotencyUsageError(code, message);
}
