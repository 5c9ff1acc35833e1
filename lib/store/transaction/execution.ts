import { IdempotencyFailure } from '../../core/errors.js';
import { FORMAT_VERSION, type RecordedResponse } from '../../core/record.js';
import type { Claim, Execution } from '../../core/store.js';
import type { Statement } from '../batch.js';
import type { PooledConnection } from '../connection.js';
import { HandlerExecution } from '../handler-execution.js';
import {
  endsSession,
  failure,
  failureBeforeCommit,
  failureOfAborted,
  failureOfRecord,
  failureOfRefusedEnding,
  isAborted,
  isConflict,
  isEndingRefused,
  serverErrorWithin,
} from '../problems.js';
import type { Claimed, ClaimedRow } from '../rows.js';
import { RESUME_ROLE, TAKE_ROLE, type Statements } from '../sql.js';
import { OpenTransaction, type TransactionContext } from './open-transaction.js';

/** The row that a transaction writes when it is complete. */
type UnwrittenRow = Extract<ClaimedRow, { kind: 'unwritten' }>;

/** The one transaction in which the handler's writes, the record and the response commit. */
export class ClaimedTransaction implements Execution {
  handlerBegan = false;
  readonly createdAt: Date;
  readonly attempt: number;
  readonly #transaction: OpenTransaction;
  readonly #execution: HandlerExecution;

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
    const { host } = context;
    // Both join by being called from inside.
    this.#execution = new HandlerExecution(claim, this, {
      manager: () => host.handle,
      transaction: (work) => host.nest(work),
    });
    const enterHandler = (): void => {
      this.handlerBegan = true;
    };
    const execution = this.#execution;
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
    const { connection, abortedBy } = this.#transaction;
    const serverError = serverErrorWithin(error);
    const isLost = connection.lost || endsSession(error);
    // The server's own limits began with the claim, so that they may strike before this process' timer.
    if ((isLost || serverError) && this.#isOverdue) {
      return failure('IDEMPOTENCY_MAX_DURATION_EXCEEDED', error);
    }
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    if (isLost) return failure('IDEMPOTENCY_STORE_UNAVAILABLE', connection.reasonOf(error));
    if (isAborted(serverError)) return failureOfAborted(abortedBy ?? error);
    return isEndingRefused(error) ? failureOfRefusedEnding(error) : error;
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    const transaction = this.#transaction;
    try {
      const undo = await (handler === 'threw'
        ? transaction.undoAndClose()
        : this.#explaining(transaction.keepAndClose()));
      const { abortedBy } = transaction;
      await transaction.commit([...undo, ...this.#recording(response, handler)], (error) =>
        failureOfRecord(error, abortedBy),
      );
    } catch (error) {
      await transaction.rollBack();
      throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
    }
    this.onCompleted();
  }

  async release(): Promise<void> {
    this.#execution.end(this.#isOverdue);
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

  /** Writes the record, with the role that was in force at the claim. */
  #recording(response: RecordedResponse, handler: 'returned' | 'threw'): Statement[] {
    const row = this.claimed.row as UnwrittenRow;
    return [
      { text: TAKE_ROLE, values: [row.role.role, row.role.login] },
      this.#record(response, handler, row),
      { text: RESUME_ROLE },
    ];
  }

  #record(
    { status, headers, body }: RecordedResponse,
    handler: 'returned' | 'threw',
    { began, over }: UnwrittenRow,
  ): Statement {
    const { identity, fingerprint, mode, ttl } = this.claim;
    const { client, endpoint, key } = identity;
    const recordStatus = handler === 'threw' ? 'failed' : 'completed';
    const what = [client, endpoint, key, fingerprint, recordStatus, mode.kind, FORMAT_VERSION];
    const values = [...what, status, JSON.stringify(headers), body, ttl, began];
    const { record, recordOverExpired, recordOverLapsed } = this.statements;
    if (over === 'nothing') return { text: record, values };
    if (over === 'expired') return { text: recordOverExpired, values };
    return { text: recordOverLapsed, values: [...values, over.lapsed] };
  }
}
