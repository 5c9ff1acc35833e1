import type { IsolationLevel } from '../core/store.js';
import type { JoinHost, Pool } from '../join/port.js';
import type { Statements } from './sql.js';

/** What the store needs to send a statement. Times are milliseconds. */
export interface StoreOptions {
  /** Connections that join nothing. */
  readonly pool: Pool;
  /** How long a connection of the pool, and the answer to a claim, may take. */
  readonly acquireTimeout: number;
  /** The names under which sessions keep hot statements prepared, by their texts; undefined: none is prepared. */
  readonly names: ReadonlyMap<string, string> | undefined;
}

/** What the store is told at boot. */
export interface PostgresStoreOptions extends StoreOptions {
  /** What handlers query with. */
  readonly host: JoinHost;
  readonly statements: Statements;
  /** The isolation of transactions for which nobody asks for another. */
  readonly isolation: IsolationLevel;
}
