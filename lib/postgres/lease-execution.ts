import { runInFrame, type AfterCommitWork, type AmbientFrame } from '../core/ambient.js';
import { idempotencyError, IdempotencyFailure, IdempotencyUsageError } from '../core/errors.js';
import type { RecordedResponse } from '../core/record.js';
import type { Claim, Execution, GiveUp } from '../core/store.js';
import { unsettled } from '../core/unsettled.js';
import type { AfterCommit } from './after-commit.js';
import { ExecutionSignal } from './execution-signal.js';
import { HandlerExecution, overReason } from './handler-execution.js';
import { fencedTransaction } from './fenced-transaction.js';
import { Heartbeat, type LossOfLease } from './heartbeat.js';
import { finishedError } from './late-work.js';
import type { LeaseStatements } from './lease-statements.js';
import type { OpenTransaction } from './open-transaction.js';
import { failure, isConflict, serverErrorWithin } from './sqlstate.js';

/** What the claim of a lease found out. */
interface Claimed {
  readonly createdAt: Date;
  readonly attempt: number;
}

/**
 * An attempt that holds its identity by a lease. The claim is committed; the handler runs outside any transaction of ours,
 * and nothing it does is undone. The lease is extended until the attempt ends.
 */
export class LeaseExecution implements Execution, AmbientFrame {
  handlerBegan = false;
  readonly createdAt: Date;
  readonly attempt: number;
  readonly execution: HandlerExecution;
  readonly #deferred: AfterCommitWork[] = [];
  readonly #signal = new ExecutionSignal();
  readonly #heartbeat: Heartbeat;
  /** What was thrown in fenced transactions whose connection was lost. */
  readonly #broken = new WeakSet<object>();
  readonly #isHeld = (): boolean => !this.#lost && this.#heartbeat.holds;
  readonly #transactions = new Set<OpenTransaction>();
  #ended = false;
  #lost = false;

  constructor(
    private readonly claim: Claim,
    { createdAt, attempt }: Claimed,
    private readonly lease: { readonly duration: number; readonly since: number },
    private readonly statements: LeaseStatements,
    private readonly afterCommit: AfterCommit,
  ) {
    this.createdAt = createdAt;
    this.attempt = attempt;
    this.execution = new HandlerExecution(claim, this, {
      signal: () => this.#signal.signal,
      manager: () => {
        throw noManager();
      },
      transaction: (work) =>
        fencedTransaction(
          {
            statements,
            afterCommit,
            execution: this.execution,
            broken: this.#broken,
            open: this.#transactions,
          },
          work,
        ),
    });
    this.#heartbeat = new Heartbeat(
      lease.duration,
      lease.since,
      () => statements.extend(),
      (why) => this.lose(why),
    );
  }

  enterHandler(): void {
    // A pipe may take so long that the request has ended meanwhile, or the lease.
    if (this.#ended || !this.#isHeld()) throw failure('IDEMPOTENCY_LEASE_LOST');
    this.handlerBegan = true;
  }

  defer(work: AfterCommitWork): void {
    if (this.#ended) throw finishedError();
    this.#deferred.push(work);
  }

  enterNestedRun(): void {
    if (this.#ended) throw finishedError();
    if (!this.#isHeld()) throw failure('IDEMPOTENCY_LEASE_LOST');
  }

  /** Somebody else holds the identity, or may hold it. */
  lose(why: LossOfLease): void {
    this.#heartbeat.stop();
    // An extension that crosses the completion finds no lease any more, and that is as it should be.
    if (this.#ended) return;
    this.#lost = true;
    this.#signal.abort(() => (why === 'taken' ? failure('IDEMPOTENCY_LEASE_LOST') : unextended()));
  }

  run<T>(work: () => T): T {
    return runInFrame(this, work);
  }

  explain(error: unknown): unknown {
    const explained = this.#failureWithin(error);
    if (explained === undefined || explained.error.code === 'IDEMPOTENCY_LEASE_LOST')
      return explained ?? error;
    // What it says of its transaction is true, but the handler did more than that.
    return new IdempotencyFailure(unsettled(explained.error), { cause: explained.cause });
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    this.#ended = true;
    this.#cutTransactions();
    const status = handler === 'threw' ? 'failed' : 'completed';
    try {
      // For as long as the lease holds, so that a database that restarts leaves no outcome open.
      const isOurs = await this.statements.complete(status, response, this.#isHeld);
      if (!isOurs) throw failure('IDEMPOTENCY_LEASE_LOST');
    } catch (error) {
      throw error instanceof IdempotencyFailure && error.error.code === 'IDEMPOTENCY_LEASE_LOST'
        ? error
        : unrecorded(error);
    } finally {
      this.#heartbeat.stop();
    }
    if (handler === 'returned') this.afterCommit.run(this.#deferred);
  }

  async release(): Promise<void> {
    // That this attempt was refused before it began says nothing of an earlier one whose outcome is unknown.
    const isFree = this.handlerBegan || this.attempt === 1;
    await this.#end(() => (isFree ? this.statements.free(this.#isHeld) : this.#lapse()));
  }

  async giveUp(why: GiveUp): Promise<void> {
    if (!this.handlerBegan && why !== 'unseen') {
      await this.release();
    } else if (why === 'unkeepable') {
      await this.#end(() => this.statements.complete('failed', undefined, this.#isHeld));
    } else {
      const isOverdue = performance.now() - this.lease.since >= this.claim.maxDuration;
      if (!this.#ended) this.#signal.abort(() => overReason(isOverdue));
      await this.#end(() => this.#lapse(true));
    }
  }

  abandon(): void {
    this.lose('unextended');
  }

  /** What fails here ends by itself: nobody extends the lease any more. */
  async #end(say: () => Promise<unknown>): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#cutTransactions();
    await say().catch(() => undefined);
    this.#heartbeat.stop();
  }

  /** Those that the handler did not wait for, or that a silent database keeps from ending. */
  #cutTransactions(): void {
    for (const transaction of this.#transactions) transaction.abandon();
  }

  /** What is lost has lapsed already, or is somebody else's. */
  async #lapse(mayHaveRun = this.handlerBegan): Promise<void> {
    if (!this.#lost) await this.statements.lapse(mayHaveRun, () => false);
  }

  #failureWithin(error: unknown): IdempotencyFailure | undefined {
    if (error instanceof IdempotencyFailure) return error;
    const serverError = serverErrorWithin(error);
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    return this.#broken.has(error as object) ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error) : undefined;
  }
}

/** The effect happened and its record did not: the lease lapses, and the outcome counts as unknown. */
function unrecorded(cause: unknown): IdempotencyFailure {
  const detail =
    'The request was carried out, but that could not be recorded. Retry with the same key: the outcome is settled as ' +
    '`onOutcomeUnknown` says.';
  return new IdempotencyFailure(idempotencyError('IDEMPOTENCY_OUTCOME_UNKNOWN', { detail }), { cause });
}

/** Whether somebody took over is not known: nobody could be asked. */
function unextended(): IdempotencyFailure {
  const detail =
    'The database could not be reached for as long as the lease lasts, so that another attempt may have taken over. Retry ' +
    'with the same key.';
  return new IdempotencyFailure(idempotencyError('IDEMPOTENCY_LEASE_LOST', { detail }));
}

function noManager(): IdempotencyUsageError {
  return new IdempotencyUsageError(
    'IDEMPOTENCY_NO_TRANSACTION',
    'a handler in lease mode runs in no transaction, so there is no manager of it. Use execution.transaction(work).',
  );
}
