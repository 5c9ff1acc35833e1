import { setImmediate } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import type { DataSource, QueryRunner } from 'typeorm';
import { runInFrame } from '../core/ambient.js';
import type { IdempotencyFailure } from '../core/errors.js';
import type { IsolationLevel } from '../core/store.js';
import type { AfterCommit, EndOfTransaction } from './after-commit.js';
import type { Statement } from './batch.js';
import { broadcast, joinRunner } from './joined-query-runner.js';
import { finishedError } from './late-work.js';
import { ROLLBACK_PATIENCE, within, type PooledConnection } from './pooled-connection.js';
import { failure, failureAtCommit, problemOf } from './sqlstate.js';
import { StatementQueue } from './statement-queue.js';
import { COMMIT, ROLLBACK_TO_SAVEPOINT } from './statements.js';
import { TransactionFrame, type Announced, type FrameOwner } from './transaction-frame.js';

/** What a transaction needs to know of its surroundings. Times are milliseconds. */
export interface TransactionContext {
  readonly dataSource: DataSource;
  readonly afterCommit: AfterCommit;
  readonly isolation: IsolationLevel;
  /** How long a nested transaction waits for one begun by hand. */
  readonly patience: number;
  /** What code inside may know of its execution. */
  readonly execution: object;
  readonly enterHandler: () => void;
}

/**
 * A transaction that was begun on a connection, and that the application's code joins through the DataSource. What still
 * comes after it was closed is refused.
 */
export class OpenTransaction implements FrameOwner {
  /** The connection as the application's ORM may use it. */
  readonly client: ClientBase;
  readonly #root = new TransactionFrame(this);
  readonly #queue: StatementQueue;
  /** Whether the application's code may still use it. */
  #open = true;
  /** Whether the connection was given back. */
  #ended = false;
  #rollingBack: Promise<void> | undefined;
  #savepoints = 0;
  #rootRunner: QueryRunner | undefined;

  constructor(
    readonly connection: PooledConnection,
    private readonly context: TransactionContext,
  ) {
    this.#queue = new StatementQueue(finishedError, connection.tuning.handlers);
    this.client = this.#queue.guard(connection.client);
  }

  /** Why it cannot commit, whatever the application makes of the error that it got. */
  get spoiled(): IdempotencyFailure | undefined {
    return this.#queue.spoiled;
  }

  get dataSource(): DataSource {
    return this.context.dataSource;
  }

  get isolation(): IsolationLevel {
    return this.context.isolation;
  }

  get patience(): number {
    return this.context.patience;
  }

  get execution(): object {
    return this.context.execution;
  }

  enterHandler(): void {
    // A pipe may take so long that the request has ended meanwhile.
    this.assertOpen();
    this.context.enterHandler();
  }

  assertOpen(): void {
    if (!this.#open) throw finishedError();
  }

  nextSavepoint(): string {
    return `idempotency_nested_${++this.#savepoints}`;
  }

  /** Tells subscribers that a transaction began, where there are any. */
  async announce(): Promise<void> {
    if (this.dataSource.subscribers.length === 0) return;
    this.#rootRunner = runInFrame(undefined, () => this.dataSource.createQueryRunner('master'));
    joinRunner(this.#rootRunner, this.#root, this.client);
    await this.#announce('BeforeTransactionStart');
    await this.#announce('AfterTransactionStart');
  }

  /** Calls `work` so that it and everything it starts joins. */
  run<T>(work: () => T): T {
    return runInFrame(this.#root, work);
  }

  /** Closes, undoing what the application did since the savepoint: by what is returned, to be sent before COMMIT. */
  async undoAndClose(): Promise<Statement[]> {
    await this.#announceRollback();
    await this.#close();
    this.#root.deferred.length = 0;
    return [{ text: ROLLBACK_TO_SAVEPOINT }];
  }

  /**
   * Closes, keeping what the application did but for what is returned, to be sent before COMMIT.
   *
   * @throws whatever a subscriber throws.
   */
  async keepAndClose(): Promise<Statement[]> {
    await this.#announce('BeforeTransactionCommit');
    await this.#close();
    // One that has just ended has not heard of it yet.
    if (this.#root.openSavepoint) await setImmediate();
    // A nested transaction that nobody awaited is half done.
    const { openSavepoint } = this.#root;
    return openSavepoint ? [{ text: `ROLLBACK TO SAVEPOINT ${openSavepoint}` }] : [];
  }

  /**
   * Sends these last statements and COMMIT, gives the connection back, and sees to what waits for that: `event` is what
   * subscribers are told.
   *
   * @throws IdempotencyFailure when it did not commit, or when that is not known; for one of the last statements that failed,
   *   its own error. Then everything is undone.
   */
  async commit(event: EndOfTransaction, last: readonly Statement[] = []): Promise<void> {
    if (this.spoiled) throw this.spoiled;
    this.#ended = true;
    const { results, sent, error } = await this.connection.send([...last, { text: COMMIT }]);
    const committed = results[last.length];
    if (committed?.command === 'COMMIT') {
      this.context.afterCommit.start(this.connection, event, this.#announced, this.#root.deferred);
      return;
    }
    if (committed) {
      // COMMIT of an aborted transaction answers ROLLBACK, and resolves.
      await this.#tellRolledBack(true);
      throw failure('IDEMPOTENCY_TRANSACTION_ABORTED');
    }
    // A server that refused one of them skipped COMMIT. Where the connection is lost, only one that was not sent is sure.
    const isRefusedBefore = results.length < last.length && problemOf(error).kind === 'refused';
    if (sent <= last.length || isRefusedBefore) {
      await (this.#rollingBack = this.#rollBack());
      throw error;
    }
    await this.#tellRolledBack(false);
    throw failureAtCommit(error);
  }

  /** Undoes everything, and gives the connection back; never throws. Only the first end counts, and all wait for it. */
  async rollBack(): Promise<void> {
    if (!this.#ended) this.#rollingBack = this.#rollBack();
    await this.#rollingBack;
  }

  async #rollBack(): Promise<void> {
    this.#ended = true;
    this.#open = false;
    await this.#announceRollback();
    const isIdle = await within(ROLLBACK_PATIENCE, this.#queue.close());
    const isRolledBack = isIdle && (await this.connection.rollBack());
    await this.#tellRolledBack(isRolledBack);
  }

  /** Cuts the connection, so that whatever waits for it fails now. */
  abandon(): void {
    this.#ended = true;
    void this.#close();
    this.connection.release(true);
  }

  async #close(): Promise<void> {
    this.#open = false;
    await this.#queue.close();
  }

  /** What subscribers wait for the end of. */
  get #announced(): Announced[] {
    const { released, data } = this.#root;
    return this.#rootRunner ? [...released, { runner: this.#rootRunner, data }] : [];
  }

  /** Tells subscribers while the transaction goes on; what they do through the DataSource joins it. */
  async #announce(event: string): Promise<void> {
    const runner = this.#rootRunner;
    if (runner) await this.run(() => broadcast(runner, event));
  }

  #announceRollback(): Promise<void> {
    return this.context.afterCommit.attempt(() => this.#announce('BeforeTransactionRollback'));
  }

  #tellRolledBack(usable: boolean): Promise<void> {
    return this.context.afterCommit.tell(
      this.connection,
      'AfterTransactionRollback',
      this.#announced,
      usable,
    );
  }
}
