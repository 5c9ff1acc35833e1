import type { Identity } from './identity.js';
import type { IdempotencyRecord, RecordedResponse } from './record.js';

/** PostgreSQL's isolation levels that a handler can run under. */
export type IsolationLevel = 'READ COMMITTED' | 'REPEATABLE READ' | 'SERIALIZABLE';

/** How a handler is protected. Times are milliseconds. */
export type ClaimMode =
  | {
      readonly kind: 'transaction';
      readonly isolation: IsolationLevel | undefined;
      /** Whether an error thrown by the handler can become the recorded answer, which needs a savepoint. */
      readonly storesErrors: boolean;
    }
  | { readonly kind: 'lease'; readonly lease: number };

/** A request that wants to run. Times are milliseconds. */
export interface Claim {
  readonly identity: Identity;
  readonly fingerprint: Buffer;
  readonly ttl: number;
  readonly maxDuration: number;
  readonly mode: ClaimMode;
}

/** What the store found when a request wanted to run. */
export type ClaimOutcome =
  | { readonly kind: 'claimed'; readonly execution: Execution }
  | { readonly kind: 'recorded'; readonly record: IdempotencyRecord }
  /** `remaining`: milliseconds until its lease ends, where there is one. */
  | { readonly kind: 'in-progress'; readonly remaining?: number }
  | { readonly kind: 'unresolved'; readonly attempt: UnresolvedAttempt };

/** An attempt whose owner died, or does not know how it ended. */
export interface UnresolvedAttempt {
  readonly fingerprint: Buffer;
  /** 1 for the first. */
  readonly attempt: number;
  /** When the identity was first claimed, by the database's clock. */
  readonly createdAt: Date;
  /** Claims the identity for a further attempt; somebody else may be faster. */
  takeOver(): Promise<ClaimOutcome>;
}

/** What is said of an attempt that cannot be recorded. */
export type GiveUp =
  /** The handler began, and nobody knows how it ended. */
  | 'unsettled'
  /** The handler was not seen to begin, and a success was answered all the same: it may have run out of sight. */
  | 'unseen'
  /** The handler returned, but its response could not be kept. */
  | 'unkeepable';

/** A claimed identity: the handler runs in it, and exactly one of `complete`, `release` and `giveUp` ends it. */
export interface Execution {
  /** When it was claimed, by the database's clock. */
  readonly createdAt: Date;
  /** 1 for the first. */
  readonly attempt: number;
  /** Whether the decorated handler was entered. */
  readonly handlerBegan: boolean;
  /** Calls `work` so that it and everything it starts belongs to the execution. */
  run<T>(work: () => T): T;
  /** Turns an error of the handler into the failure behind it where that is the database's, else returns it. */
  explain(error: unknown): unknown;
  /**
   * Records the response for good. In transaction mode it commits, and `threw` first undoes what the handler wrote.
   *
   * @throws IdempotencyFailure when it was not recorded, or when that is not known.
   */
  complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void>;
  /** Frees the identity, since nothing happened; in transaction mode by undoing everything. Never throws. */
  release(): Promise<void>;
  /** Ends without a response. In transaction mode everything is undone, so nothing is left in doubt. Never throws. */
  giveUp(why: GiveUp): Promise<void>;
  /** Stops waiting for the database: whatever waits for it fails now. */
  abandon(): void;
}

/** Where records are kept. */
export interface IdempotencyStore {
  /** @throws IdempotencyFailure when the store cannot say. */
  claim(claim: Claim): Promise<ClaimOutcome>;
}
