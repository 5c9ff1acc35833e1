import { IdempotencyFailure } from '../core/errors.js';
import { FORMAT_VERSION, type RecordedResponse } from '../core/record.js';
import type { Claim, Execution } from '../core/store.js';
import type { Statement } from './batch.js';
import { ExecutionSignal } from './execution-signal.js';
import type { Claimed } from './claim-statement.js';
import { HandlerExecution, overReason } from './handler-execution.js';
import { OpenTransaction, type TransactionContext } from './open-transaction.js';
import type { PooledConnection } from './pooled-connection.js';
import {
  failure,
  failureBeforeCommit,
  isConflict,
  isRecordGone,
  isRecordThere,
  problemOf,
  serverErrorWithin,
} from './sqlstate.js';
import type { Statements } from './statements.js';

/** The one transaction in which the handler's writes, the record and the response commit. */
export class ClaimedTransaction implements Execution {
  handlerBegan = false;
  readonly createdAt: Date;
  readonly attempt: number;
  readonly #transaction: OpenTransaction;
  readonly #signal = new ExecutionSignal();

  constructor(
    connection: PooledConnection,
    private readonly claim: Claim,
    private readonly statements: Statements,
    context: Omit<TransactionContext, 'execution' | 'enterHandler'>,
    private readonly claimed: Omit<Claimed, 'kind'>,
    private readonly onCompleted: () => void,
  ) {
    this.createdAt = claimed.createdAt;
    this.attempt = claimed.attempt;
    const { dataSource } = context;
    const execution = new HandlerExecution(claim, this, {
      signal: () => this.#signal.signal,
      // Both join by being called from inside.
      manager: () => dataSource.manager,
      transaction: (work) => dataSource.transaction(work),
    });
    const enterHandler = (): void => {
      this.handlerBegan = true;
    };
    this.#transaction = new OpenTransaction(connection, { ...context, execution, enterHandler });
  }

  /**
   * Tells subscribers that a transaction began.
   *
   * @throws IdempotencyFailure when one of them throws; then it is over.
   */
  async announce(): Promise<void> {
    try {
      await this.#explaining(this.#transaction.announce());
    } catch (error) {
      await this.release();
      throw error;
    }
  }

  run<T>(work: () => T): T {
    return this.#transaction.run(work);
  }

  explain(error: unknown): unknown {
    const { connection, spoiled } = this.#transaction;
    const serverError = serverErrorWithin(error);
    const isLost = connection.lost || (serverError && problemOf(serverError).kind === 'lost');
    // The server's own limits began with the claim, so that they may strike before this process' timer.
    if ((isLost || serverError) && this.#isOverdue) {
      return failure('IDEMPOTENCY_MAX_DURATION_EXCEEDED', error);
    }
    if (spoiled) return spoiled;
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    return isLost ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : error;
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    const transaction = this.#transaction;
    try {
      const undo = await (handler === 'threw'
        ? transaction.undoAndClose()
        : this.#explaining(transaction.keepAndClose()));
      const event = handler === 'threw' ? 'AfterTransactionRollback' : 'AfterTransactionCommit';
      await transaction.commit(event, [...undo, this.#completion(response, handler)]);
    } catch (error) {
      await transaction.rollBack();
      if (error instanceof IdempotencyFailure) throw error;
      throw isRecordThere(error)
        ? failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error)
        : failureBeforeCommit(isRecordGone(error) ? recordGone(error) : error);
    }
    this.onCompleted();
  }

  async release(): Promise<void> {
    const isOverdue = this.#isOverdue;
    this.#signal.abort(() => overReason(isOverdue));
    await this.#transaction.rollBack();
  }

  giveUp(): Promise<void> {
    return this.release();
  }

  abandon(): void {
    this.#transaction.abandon();
  }

  get #isOverdue(): boolean {
    return this.#transaction.connection.heldFor >= this.claim.maxDuration;
  }

  /** What subscribers throw is the application's failure, unless the database is behind it. */
  async #explaining<T>(telling: Promise<T>): Promise<T> {
    return telling.catch((error: unknown) => {
      const explained = this.explain(error);
      throw explained === error ? failure('IDEMPOTENCY_RESPONSE_FAILED', error) : explained;
    });
  }

  #completion({ status, headers, body }: RecordedResponse, handler: 'returned' | 'threw'): Statement {
    const { identity, fingerprint, mode, ttl } = this.claim;
    const { client, endpoint, key } = identity;
    const recordStatus = handler === 'threw' ? 'failed' : 'completed';
    const answer = [status, JSON.stringify(headers), body, ttl];
    const { row } = this.claimed;
    if (row.kind === 'processing') {
      return { text: this.statements.complete, values: [client, endpoint, key, recordStatus, ...answer] };
    }
    const claimed = [fingerprint, recordStatus, mode.kind, FORMAT_VERSION, this.createdAt];
    return {
      text: this.statements.record,
      values: [client, endpoint, key, ...claimed, ...answer, row.began],
    };
  }
}

function recordGone(cause?: unknown): Error {
  return new Error('the record of this request is gone: something else deleted or changed it', { cause });
}
