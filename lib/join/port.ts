import type { AfterCommitWork, AmbientFrame } from '../core/ambient.js';
import type { IsolationLevel } from '../core/store.js';

// What stands between the store and whatever the application queries with. Structural: it needs no library's types.

/** What a query answers with. */
interface QueryAnswer {
  readonly command: string;
  readonly rowCount: number | null;
  readonly rows: unknown[];
}

/** A connection of node-postgres, as far as it is used here. */
export interface Client {
  query(query: { readonly text: string; values?: unknown[] }): Promise<QueryAnswer>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  removeListener(event: 'error', listener: (error: Error) => void): unknown;
}

/** Gives a connection back to its pool; with an error, or `true`, it is closed instead. */
export type GiveBack = (destroy?: Error | boolean) => void;

/** A pool of node-postgres, as far as it is used here. */
export interface Pool {
  connect(callback: (error: Error | undefined, client: Client | undefined, giveBack: GiveBack) => void): void;
}

/** What happens to a transaction that others may listen to. */
export type TransactionEvent = 'begin' | 'before-commit' | 'before-rollback';
/** How it ended. */
export type TransactionEnd = 'committed' | 'rolled-back';

/** A transaction that the store began, for the application's queries to join. Times are milliseconds. */
export interface BegunTransaction {
  readonly client: Client;
  readonly isolation: IsolationLevel;
  /** How long a nested transaction waits for one that was begun by hand. */
  readonly patience: number;
  /** What code inside may know of its execution. */
  readonly execution: object;
  readonly enterHandler: () => void;
  /** Called when the session has forgotten its prepared statements. */
  readonly onForgotten: () => void;
}

/** A transaction as the application's queries join it. What still comes after it was closed is refused. */
export interface JoinedTransaction {
  /** What runs in it, and all that it starts, joins. */
  readonly root: AmbientFrame;
  /** What is to be done after COMMIT, in order. */
  readonly deferred: readonly AfterCommitWork[];
  /** What a function is given to query with, called in it. */
  readonly handle: unknown;
  /** The error that aborted the transaction, where the application went on after it. */
  readonly abortedBy: unknown;
  /** Whether somebody is told how it ended. */
  readonly isWatched: boolean;
  /** Tells who listens; what they do joins. @throws whatever they throw. */
  announce(event: TransactionEvent): Promise<void>;
  /** Refuses what comes from now on, at once. */
  shut(): void;
  /** Shuts, lets what is under way end, and gives the statements that undo what is half done. */
  close(): Promise<string[]>;
  /** Tells who listens how it ended, outside of it; on its connection where that is still usable. Never throws. */
  tell(end: TransactionEnd, isUsable: boolean): Promise<void>;
}

/** Whatever the application queries with, on one pool. */
export interface JoinHost {
  /** Connections that join nothing. */
  readonly pool: Pool;
  /** The isolation that it begins transactions with where nothing else is asked for; undefined: the database's. */
  readonly isolation: IsolationLevel | undefined;
  /** The schema of its tables; undefined: the search_path's. */
  readonly schema: string | undefined;
  /** What a handler queries with: called in a transaction, it joins. */
  readonly handle: unknown;
  /** From now on queries join. @returns a function that undoes it, once everybody who joined has called theirs. */
  join(): () => void;
  /** Lets queries join a transaction. */
  open(begun: BegunTransaction): JoinedTransaction;
  /** Runs work in a transaction nested in the one that it is called in. */
  nest<T>(work: (handle: never) => Promise<T>): Promise<T>;
}
