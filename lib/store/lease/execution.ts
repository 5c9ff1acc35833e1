import { runInFrame, type AfterCommitWork, type AmbientFrame } from '../../core/ambient.js';
import { idempotencyError, IdempotencyFailure, IdempotencyUsageError } from '../../core/errors.js';
import type { RecordedResponse } from '../../core/record.js';
import type { Claim, Execution, GiveUp } from '../../core/store.js';
import { unsettled } from '../../core/unsettled.js';
import type { AfterCommit } from '../after-commit.js';
import { HandlerExecution } from '../handler-execution.js';
import { fencedTransaction } from './fence.js';
import { within } from '../connection.js';
import { Heartbeat, type LossOfLease } from './heartbeat.js';
import { finishedError } from '../../join/late-work.js';
import type { LeaseStatements } from './statements.js';
import type { OpenTransaction } from '../transaction/open-transaction.js';
import {
  failure,
  failureOfRefusedEnding,
  isConflict,
  isEndingRefused,
  serverErrorWithin,
} from '../problems.js';
import type { PostgresStoreOptions } from '../store-options.js';

/** What the claim of a lease found out. */
interface Claimed {
  readonly createdAt: Date;
  readonly attempt: number;
}

/** Milliseconds for which a claim that nobody heard of is taken back, and for which a release is owed. */
export const FORGETTING = 60_000;

/** What becomes of a release that the database did not hear of in time. */
interface OwedRelease {
  /** Whether it still makes sense. */
  readonly isOwed: () => boolean;
  /** Called when the identity was given back. */
  readonly onReleased: () => void;
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
    private readonly owedRelease: OwedRelease,
    options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
  ) {
    this.createdAt = createdAt;
    this.attempt = attempt;
    const [broken, open] = [this.#broken, this.#transactions];
    this.execution = new HandlerExecution(claim, this, {
      manager: () => {
        throw noManager();
      },
      transaction: (work) =>
        fencedTransaction({ options, statements, afterCommit, frame: this, broken, open }, work),
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
    this.execution.abort(() => (why === 'taken' ? failure('IDEMPOTENCY_LEASE_LOST') : unextended()));
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
    await this.#end(() => this.#giveBack());
  }

  async giveUp(why: GiveUp): Promise<void> {
    if (!this.handlerBegan && why !== 'unseen') {
      await this.release();
    } else if (why === 'unkeepable') {
      await this.#end(() => this.statements.complete('failed', undefined, this.#isHeld));
    } else {
      const isOverdue = performance.now() - this.lease.since >= this.claim.maxDuration;
      if (!this.#ended) this.execution.end(isOverdue);
      await this.#end(() => this.#lapse());
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

  /**
   * Frees the identity, behind the answer where the database is away for the rest of the lease. That this attempt was refused
   * before it began says nothing of an earlier one whose outcome is unknown.
   */
  async #giveBack(): Promise<void> {
    const until = performance.now() + FORGETTING;
    const isWorthwhile = (): boolean => this.owedRelease.isOwed() && performance.now() < until;
    const given = this.handlerBegan
      ? this.statements.free(isWorthwhile)
      : this.statements.takeBack(isWorthwhile);
    const owed = given.then(this.owedRelease.onReleased, () => undefined);
    await within(this.#heartbeat.remaining, owed);
  }

  /** What is lost has lapsed already, or is somebody else's. */
  async #lapse(): Promise<void> {
    if (!this.#lost) await this.statements.lapse();
  }

  #failureWithin(error: unknown): IdempotencyFailure | undefined {
    if (error instanceof IdempotencyFailure) return error;
    const serverError = serverErrorWithin(error);
    if (serverError && isConflict(serverError.code))
      return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    if (isEndingRefused(error)) return failureOfRefusedEnding(error);
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
