import type { DataSource } from 'typeorm';
import type { IsolationLevel } from '../core/store.js';
import type { Statements } from './statements.js';
import type { Tuning } from './tuning.js';

/** What the store is told at boot. Times are milliseconds. */
export interface PostgresStoreOptions {
  readonly dataSource: DataSource;
  readonly statements: Statements;
  readonly defaultIsolation: IsolationLevel;
  /** How long a connection of the pool, and the answer to a claim, may take. */
  readonly acquireTimeout: number;
  readonly tuning: Tuning;
}

/** The isolation that TypeORM begins transactions with where nothing else is asked for; undefined: the database's. */
export function ormIsolation(dataSource: DataSource): IsolationLevel | undefined {
  const { isolationLevel } = dataSource.options as { isolationLevel?: IsolationLevel | 'READ UNCOMMITTED' };
  // PostgreSQL has no READ UNCOMMITTED: it treats it as this.
  return isolationLevel === 'READ UNCOMMITTED' ? 'READ COMMITTED' : isolationLevel;
}
