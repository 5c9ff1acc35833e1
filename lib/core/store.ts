import type { Identity } from './identity.js';
import type { IdempotencyRecord, RecordedResponse } from './record.js';

/** PostgreSQL's isolation levels that a handler can run under. */
export type IsolationLevel = 'READ COMMITTED' | 'REPEATABLE READ' | 'SERIALIZABLE';

/** A request that wants to run. Times are milliseconds. */
export interface Claim {
  readonly identity: Identity;
  readonly fingerprint: Buffer;
  readonly ttl: number;
  readonly maxDuration: number;
  readonly isolation: IsolationLevel | undefined;
  /** Whether an error thrown by the handler can become the recorded answer, which needs a savepoint. */
  readonly storesErrors: boolean;
}

/** What the store found when a request wanted to run. */
export type ClaimOutcome =
  | { readonly kind: 'claimed'; readonly execution: Execution }
  | { readonly kind: 'recorded'; readonly record: IdempotencyRecord }
  | { readonly kind: 'in-progress' };

/** A claimed identity: the handler runs in it, and exactly one of `complete` and `release` ends it. */
export interface Execution {
  /** When it was claimed, by the database's clock. */
  readonly createdAt: Date;
  /** Whether the decorated handler was entered. */
  readonly handlerBegan: boolean;
  /** Calls `work` so that it and everything it starts joins the transaction. */
  run<T>(work: () => T): T;
  /** Turns an error of the handler into the failure behind it where that is the database's, else returns it. */
  explain(error: unknown): unknown;
  /**
   * Records the response and commits. `threw` first undoes what the handler wrote.
   *
   * @throws IdempotencyFailure when it did not commit, or when that is not known.
   */
  complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void>;
  /** Undoes everything and frees the identity; never throws. */
  release(): Promise<void>;
  /** Cuts the database connection, so that whatever waits for it fails now. */
  abandon(): void;
}

/** Where records are kept. */
export interface IdempotencyStore {
  /** @throws IdempotencyFailure when the store cannot say. */
  claim(claim: Claim): Promise<ClaimOutcome>;
}
