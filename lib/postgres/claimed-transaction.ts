import type { ClientBase } from 'pg';
import type { DataSource, QueryRunner } from 'typeorm';
import { runInFrame } from '../core/ambient.js';
import type { RecordedResponse } from '../core/record.js';
import type { Claim, Execution, IsolationLevel } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import { broadcast, joinRunner } from './joined-query-runner.js';
import { finishedError } from './late-work.js';
import type { PooledConnection } from './pooled-connection.js';
import { failure, failureAtCommit, failureBeforeCommit, isConflict, serverErrorWithin } from './sqlstate.js';
import { StatementQueue } from './statement-queue.js';
import { COMMIT, ROLLBACK, ROLLBACK_TO_SAVEPOINT, type Statements } from './statements.js';
import { TransactionFrame, type FrameOwner } from './transaction-frame.js';

/** Milliseconds a rollback waits for a statement of the handler that nobody awaits, before it cuts the connection. */
const ROLLBACK_PATIENCE = 1_000;

/** What a claimed transaction needs from the store that opened it. */
export interface TransactionContext {
  readonly dataSource: DataSource;
  readonly statements: Statements;
  readonly afterCommit: AfterCommit;
  readonly isolation: IsolationLevel;
  readonly patience: number;
}

/**
 * The one transaction in which the handler's writes, the record and the response commit. Between claim and COMMIT its
 * connection belongs to the handler; what comes after the handler's end is refused.
 */
export class ClaimedTransaction implements Execution, FrameOwner {
  handlerBegan = false;
  /** The connection as the handler's ORM may use it. */
  readonly client: ClientBase;
  readonly #root = new TransactionFrame(this);
  readonly #queue = new StatementQueue(finishedError);
  /** Whether the handler may still use the transaction. */
  #open = true;
  /** Whether the connection was given back. */
  #ended = false;
  #savepoints = 0;
  #rootRunner: QueryRunner | undefined;

  constructor(
    private readonly connection: PooledConnection,
    private readonly claim: Claim,
    private readonly context: TransactionContext,
    readonly createdAt: Date,
  ) {
    this.client = this.#queue.guard(connection.client);
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

  enterHandler(): void {
    this.handlerBegan = true;
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
    await broadcast(this.#rootRunner, 'BeforeTransactionStart');
    await broadcast(this.#rootRunner, 'AfterTransactionStart');
  }

  run<T>(work: () => T): T {
    return runInFrame(this.#root, work);
  }

  explain(error: unknown): unknown {
    const serverError = serverErrorWithin(error);
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    return this.connection.lost ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : error;
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    try {
      await (handler === 'threw' ? this.#undoHandler() : this.#settleHandler());
      await this.#store(response, handler);
    } catch (error) {
      await this.release();
      throw failureBeforeCommit(error);
    }
    await this.#commit();
    const released = this.#rootRunner ? [...this.#root.released, this.#rootRunner] : this.#root.released;
    this.context.afterCommit.start(this.connection, released, this.#root.deferred);
  }

  async release(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#open = false;
    const isIdle = await within(ROLLBACK_PATIENCE, this.#queue.close());
    const isRolledBack = isIdle && (await this.#rollBack());
    this.connection.release(!isRolledBack);
    await this.#announceRollback();
  }

  abandon(): void {
    this.#ended = true;
    this.#open = false;
    void this.#queue.close();
    this.connection.release(true);
  }

  async #undoHandler(): Promise<void> {
    this.#open = false;
    await this.#queue.close();
    await this.connection.query(ROLLBACK_TO_SAVEPOINT);
    for (const runner of this.#root.forget()) await broadcast(runner, 'AfterTransactionRollback');
  }

  async #settleHandler(): Promise<void> {
    if (this.#rootRunner) await broadcast(this.#rootRunner, 'BeforeTransactionCommit');
    this.#open = false;
    await this.#queue.close();
    // A nested transaction that nobody awaited is half done.
    if (this.#root.openSavepoint) {
      await this.connection.query(`ROLLBACK TO SAVEPOINT ${this.#root.openSavepoint}`);
    }
  }

  async #store({ status, headers, body }: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    const { client, endpoint, key } = this.claim.identity;
    const recordStatus = handler === 'threw' ? 'failed' : 'completed';
    const values = [
      client,
      endpoint,
      key,
      recordStatus,
      status,
      JSON.stringify(headers),
      body,
      this.claim.ttl,
    ];
    const { rowCount } = await this.connection.query(this.context.statements.complete, values);
    if (rowCount !== 1)
      throw new Error('the record of this request is gone: something else deleted or changed it');
  }

  async #commit(): Promise<void> {
    try {
      // COMMIT of an aborted transaction answers ROLLBACK, and resolves.
      const { command } = await this.connection.query(COMMIT);
      if (command === 'COMMIT') return;
    } catch (error) {
      this.connection.release(true);
      await this.#announceRollback();
      throw failureAtCommit(error);
    }
    this.connection.release();
    await this.#announceRollback();
    throw failure('IDEMPOTENCY_TRANSACTION_ABORTED');
  }

  async #rollBack(): Promise<boolean> {
    try {
      if (!this.connection.lost) await this.connection.query(ROLLBACK);
      return true;
    } catch {
      return false;
    }
  }

  async #announceRollback(): Promise<void> {
    if (!this.#rootRunner) return;
    for (const runner of [...this.#root.forget(), this.#rootRunner]) {
      await broadcast(runner, 'AfterTransactionRollback').catch(() => undefined);
    }
  }
}

async function within(milliseconds: number, work: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, milliseconds, false)));
  try {
    return await Promise.race([work.then(() => true as const), late]);
  } finally {
    clearTimeout(timer);
  }
}
