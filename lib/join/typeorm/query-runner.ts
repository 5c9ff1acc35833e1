import type { QueryRunner } from 'typeorm';
import { currentFrame } from '../../core/ambient.js';
import { IdempotencyUsageError } from '../../core/errors.js';
import type { IsolationLevel } from '../../core/store.js';
import { TransactionFrame, type Announced, type NestedPlace } from './frame.js';

/** The members of TypeORM's PostgreSQL runner that joining sets; they are protected or read-only in its types. */
interface RunnerInternals {
  databaseConnection: unknown;
  isTransactionActive: boolean;
  isReleased: boolean;
  transactionDepth: number;
  data: Record<string, unknown>;
  broadcaster: { broadcast(event: string): Promise<void> };
  query(...args: unknown[]): Promise<unknown>;
  stream(...args: unknown[]): Promise<unknown>;
  startTransaction(isolation?: string): Promise<void>;
  commitTransaction(): Promise<void>;
  rollbackTransaction(): Promise<void>;
  release(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const STRICTNESS: readonly string[] = [
  'READ UNCOMMITTED',
  'READ COMMITTED',
  'REPEATABLE READ',
  'SERIALIZABLE',
];

/** Tells TypeORM's subscribers of a transaction's event, as its own runner does. */
export function broadcast(runner: QueryRunner, event: string): Promise<void> {
  return (runner as unknown as RunnerInternals).broadcaster.broadcast(event);
}

/** Tells subscribers how a transaction has ended, with the data that they had put there. */
export function broadcastEnd({ runner, data }: Announced, event: string): Promise<void> {
  Object.assign(runner, { data });
  return broadcast(runner, event);
}

/**
 * Makes a new runner of TypeORM's work inside the handler's transaction: on its connection, with nested transactions
 * as savepoints. Only this instance is changed; what it does not override stays TypeORM's.
 */
export function joinRunner(runner: QueryRunner, frame: TransactionFrame, client: unknown): QueryRunner {
  const sendQuery = runner.query.bind(runner) as Send;
  const sendStream = runner.stream.bind(runner) as Send;
  const joined = new JoinedRunner(runner, frame, sendQuery);
  const internals = runner as unknown as RunnerInternals;
  internals.databaseConnection = client;
  // Otherwise TypeORM would wrap each save() in a transaction of its own.
  internals.isTransactionActive = true;
  internals.transactionDepth = 1;
  internals.data = frame.data;
  internals.query = async (...args) => {
    await joined.turn();
    return sendQuery(...args);
  };
  internals.stream = async (...args) => {
    await joined.turn();
    return sendStream(...args);
  };
  internals.startTransaction = async (isolation) => {
    await joined.start(isolation, false);
  };
  internals.commitTransaction = () => joined.commit();
  internals.rollbackTransaction = () => joined.rollback();
  internals.release = () => joined.release();
  internals[Symbol.asyncDispose] = () => joined.dispose();
  runners.set(runner, joined);
  return runner;
}

type Send = (...args: unknown[]) => Promise<unknown>;

const runners = new WeakMap<QueryRunner, JoinedRunner>();

/** The joined side of a runner, or undefined for TypeORM's own. */
export function joinedSide(runner: QueryRunner | undefined): JoinedRunner | undefined {
  return runner && runners.get(runner);
}

/** Gives a runner back to its own methods once its transaction has ended, as subscribers find it afterwards. */
export function detachRunner(runner: QueryRunner, client: unknown): void {
  runners.delete(runner);
  const internals = runner as unknown as Partial<RunnerInternals>;
  delete internals.query;
  delete internals.stream;
  delete internals.startTransaction;
  delete internals.commitTransaction;
  delete internals.rollbackTransaction;
  Object.assign(runner, {
    databaseConnection: client,
    isTransactionActive: false,
    isReleased: false,
    transactionDepth: 0,
  });
}

/** Ends a runner's use of a connection that goes back to the pool. */
export function retireRunner(runner: QueryRunner): void {
  Object.assign(runner, { isReleased: true, databaseConnection: undefined });
}

class JoinedRunner {
  /** Nested transactions begun on this runner, innermost last. */
  readonly #places: NestedPlace[] = [];
  readonly #internals: RunnerInternals;

  constructor(
    private readonly runner: QueryRunner,
    private readonly home: TransactionFrame,
    /** Sends at once, for what marks a nested transaction's bounds. */
    private readonly send: Send,
  ) {
    this.#internals = runner as unknown as RunnerInternals;
  }

  /**
   * Where a statement on the runner belongs. Code inside one of the runner's transactions is told from its siblings by
   * the frame it runs in; all other code that has the runner means its innermost transaction.
   */
  get #frame(): TransactionFrame {
    const outermost = this.#places[0];
    const current = currentFrame();
    const own = outermost?.frame ?? this.home;
    if (current instanceof TransactionFrame && current.isWithin(own)) return current;
    return outermost?.structured ? (this.#places.at(-1)?.frame ?? own) : own;
  }

  turn(): Promise<void> {
    return this.#frame.active.turn();
  }

  async start(isolation: string | undefined, structured: boolean): Promise<TransactionFrame> {
    this.#refuseStricter(isolation);
    const place = await this.#frame.enterNested(structured);
    // What was set on the runner before stays visible; what subscribers add belongs to this transaction alone.
    place.outerData = this.#internals.data;
    this.#internals.data = Object.assign(place.frame.data, place.outerData);
    this.#places.push(place);
    try {
      await broadcast(this.runner, 'BeforeTransactionStart');
      await this.send(`SAVEPOINT ${place.savepoint}`);
      place.opened();
      this.#internals.transactionDepth += 1;
      await broadcast(this.runner, 'AfterTransactionStart');
    } catch (error) {
      this.#leave();
      throw error;
    }
    return place.frame;
  }

  async commit(): Promise<void> {
    const place = this.#innermost('commitTransaction');
    await broadcast(this.runner, 'BeforeTransactionCommit');
    place.frame.close();
    await this.send(`RELEASE SAVEPOINT ${place.savepoint}`);
    place.ended();
    place.keep(this.#announced);
    this.#leave();
  }

  async rollback(): Promise<void> {
    const place = this.#innermost('rollbackTransaction');
    await broadcast(this.runner, 'BeforeTransactionRollback');
    place.frame.close();
    try {
      await this.send(`ROLLBACK TO SAVEPOINT ${place.savepoint}`);
      place.ended();
    } finally {
      // Where it could not be sent, the handler's transaction has been rolled back, or this part of it.
      const undone = [...place.frame.forget(), this.#announced];
      this.#leave();
      for (const each of undone) await this.#tellRolledBack(each);
    }
  }

  /** A runner of its own would give its connection back here; this one only becomes unusable. */
  async release(): Promise<void> {
    try {
      while (this.#places.length > 0) await this.rollback();
    } finally {
      this.#internals.isReleased = true;
    }
  }

  async dispose(): Promise<void> {
    try {
      while (this.#places.length > 0) await this.commit();
    } finally {
      await this.release();
    }
  }

  get #announced(): Announced {
    return { runner: this.runner, data: this.#internals.data };
  }

  /** The runner may have gone on to another transaction. */
  async #tellRolledBack(undone: Announced): Promise<void> {
    const { data } = this.#internals;
    try {
      await broadcastEnd(undone, 'AfterTransactionRollback');
    } finally {
      this.#internals.data = data;
    }
  }

  #leave(): void {
    const place = this.#places.pop();
    if (!place) return;
    place.leave();
    this.#internals.data = place.outerData;
    this.#internals.transactionDepth = this.#places.length + 1;
  }

  #innermost(method: string): NestedPlace {
    const place = this.#places.at(-1);
    if (place) return place;
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_TRANSACTION_NOT_YOURS',
      `${method}() was called without startTransaction() on this runner, inside an @Idempotent() handler. Its ` +
        'transaction is committed when the handler returns; throw an error to roll it back.',
    );
  }

  #refuseStricter(isolation: string | undefined): void {
    const ambient: IsolationLevel = this.home.owner.isolation;
    if (isolation === undefined || STRICTNESS.indexOf(isolation) <= STRICTNESS.indexOf(ambient)) return;
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_ISOLATION_TOO_WEAK',
      `a nested transaction asked for ${isolation}, but the handler's transaction is ${ambient} and a savepoint cannot ` +
        `change that. Set @Idempotent({ isolation: '${isolation}' }) on the handler.`,
    );
  }
}
