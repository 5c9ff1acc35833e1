import { setImmediate } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import type { DataSource, QueryRunner } from 'typeorm';
import { runInFrame } from '../core/ambient.js';
import { IdempotencyFailure } from '../core/errors.js';
import type { RecordedResponse } from '../core/record.js';
import type { Claim, Execution, IsolationLevel } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import { broadcast, joinRunner } from './joined-query-runner.js';
import { finishedError } from './late-work.js';
import { ROLLBACK_PATIENCE, within, type PooledConnection } from './pooled-connection.js';
import {
  failure,
  failureAtCommit,
  failureBeforeCommit,
  isConflict,
  problemOf,
  serverErrorWithin,
} from './sqlstate.js';
import { StatementQueue } from './statement-queue.js';
import { COMMIT, ROLLBACK_TO_SAVEPOINT, type Statements } from './statements.js';
import { TransactionFrame, type Announced, type FrameOwner } from './transaction-frame.js';

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
    await this.#announce('BeforeTransactionStart');
    await this.#announce('AfterTransactionStart');
  }

  run<T>(work: () => T): T {
    return runInFrame(this.#root, work);
  }

  explain(error: unknown): unknown {
    const serverError = serverErrorWithin(error);
    const isLost = this.connection.lost || (serverError && problemOf(serverError).kind === 'lost');
    // The server's own limits began with the claim, so that they may strike before this process' timer.
    if ((isLost || serverError) && this.connection.heldFor >= this.claim.maxDuration)
      return failure('IDEMPOTENCY_MAX_DURATION_EXCEEDED', error);
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    return isLost ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : error;
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    try {
      await (handler === 'threw' ? this.#undoHandler() : this.#settleHandler());
      await this.#store(response, handler);
    } catch (error) {
      await this.release();
      throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
    }
    await this.#commit();
    const event = handler === 'threw' ? 'AfterTransactionRollback' : 'AfterTransactionCommit';
    this.context.afterCommit.start(this.connection, event, this.#announced, this.#root.deferred);
  }

  async release(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#open = false;
    await this.#announceRollback();
    const isIdle = await within(ROLLBACK_PATIENCE, this.#queue.close());
    const isRolledBack = isIdle && (await this.connection.rollBack());
    await this.#tellRolledBack(isRolledBack);
  }

  abandon(): void {
    this.#ended = true;
    this.#open = false;
    void this.#queue.close();
    this.connection.release(true);
  }

  async #undoHandler(): Promise<void> {
    await this.#announceRollback();
    this.#open = false;
    await this.#queue.close();
    await this.connection.query(ROLLBACK_TO_SAVEPOINT);
    this.#root.deferred.length = 0;
  }

  async #settleHandler(): Promise<void> {
    await this.#announce('BeforeTransactionCommit').catch((error: unknown) => {
      const explained = this.explain(error);
      throw explained === error ? failure('IDEMPOTENCY_RESPONSE_FAILED', error) : explained;
    });
    this.#open = false;
    await this.#queue.close();
    // One that has just ended has not heard of it yet.
    if (this.#root.openSavepoint) await setImmediate();
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
      await this.#tellRolledBack(false);
      throw failureAtCommit(error);
    }
    await this.#tellRolledBack(true);
    throw failure('IDEMPOTENCY_TRANSACTION_ABORTED');
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
