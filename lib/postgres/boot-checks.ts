import type { DataSource } from 'typeorm';
import { IdempotencyUsageError } from '../core/errors.js';
import type { IsolationLevel } from '../core/store.js';
import { COLUMNS, INSPECT } from './inspection.js';
import { statementsFor, type Statements } from './statements.js';

/** What has to be known about the database before the first request. */
export interface InspectedDatabase {
  readonly statements: Statements;
  readonly defaultIsolation: IsolationLevel;
}

/** What to look for, and what to tolerate. */
export interface Inspection {
  readonly table: string;
  readonly schema: string | undefined;
  readonly allowAsynchronousCommit: boolean;
}

interface InspectRow {
  server_version: number;
  synchronous_commit: string;
  default_isolation: string;
  table_exists: boolean;
  is_one_table: boolean;
  columns: string[];
  identity_is_unique: boolean;
}

const OLDEST_SERVER = 140_000;

/** @throws IdempotencyUsageError when the database is not what the promises need, with the remedy. */
export async function inspectDatabase(
  dataSource: DataSource,
  inspection: Inspection,
): Promise<InspectedDatabase> {
  const { table, schema } = inspection;
  const name = statementsFor(table, schema, 0).table;
  const [row] = await dataSource.query<InspectRow[]>(INSPECT, [name]);
  if (!row) throw refused('IDEMPOTENCY_DATABASE_UNSUITABLE', 'the database did not answer the inspection.');
  assertServer(row, inspection.allowAsynchronousCommit);
  assertTable(row, name);
  return {
    statements: statementsFor(table, schema, row.server_version),
    defaultIsolation: isolationLevel(row.default_isolation),
  };
}

function assertServer(row: InspectRow, allowAsynchronousCommit: boolean): void {
  if (row.server_version < OLDEST_SERVER) {
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

function assertTable(row: InspectRow, name: string): void {
  if (!row.table_exists) {
    throw refused(
      'IDEMPOTENCY_TABLE_MISSING',
      `there is no table ${name}. Add idempotencyMigrations() of 'nestjs-pg-idempotency/migrations' to the ` +
        `DataSource's migrations and run them, or run the SQL that 'npx nestjs-pg-idempotency ddl' prints.`,
    );
  }
  if (!row.is_one_table) {
    throw refused(
      'IDEMPOTENCY_TABLE_UNSUITABLE',
      `${name} is partitioned, inherited from, or no table at all. A row is addressed by its place, which is unique in one plain ` +
        'table only: use one, as the migrations make it.',
    );
  }
  const missing = COLUMNS.filter((column) => !row.columns.includes(column));
  if (missing.length > 0 || !row.identity_is_unique) {
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
