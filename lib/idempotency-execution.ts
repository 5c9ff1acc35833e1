import type { EntityManager } from 'typeorm';

/** What a handler may know of its execution, and how it acts in it. */
export interface IdempotencyExecution {
  readonly mode: 'transaction' | 'lease';
  /** 1 for the first; more after an attempt in lease mode whose outcome was unknown. */
  readonly attempt: number;
  /** When the identity was first claimed, by the database's clock. */
  readonly createdAt: Date;
  /**
   * Aborted when the execution is over for reasons the handler does not see: its lease was lost, or it ran longer than
   * `maxDuration`. Hand it to `fetch` and the like.
   */
  readonly signal: AbortSignal;
  /**
   * The manager of the handler's transaction.
   *
   * @throws IdempotencyUsageError `IDEMPOTENCY_NO_TRANSACTION` in lease mode.
   */
  readonly manager: EntityManager;
  /**
   * Runs `work` in a transaction that only the present owner can commit. What goes through the DataSource inside joins it.
   * In lease mode it is fenced: it fails when another attempt has taken over, and until it ends none can. In transaction mode
   * it is a savepoint of the handler's transaction.
   *
   * @throws IdempotencyFailure `IDEMPOTENCY_LEASE_LOST`, answered 503, when another attempt has taken over.
   */
  transaction<T>(work: (manager: EntityManager) => Promise<T>): Promise<T>;
  /**
   * A key to hand on to an outside service: the same on each attempt, another for each name, and telling nothing of the
   * client's key. 43 characters of base64url.
   */
  deriveKey(name: string): string;
}
