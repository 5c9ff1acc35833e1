import { AsyncLocalStorage } from 'node:async_hooks';

/** The part of a running handler's transaction that does not depend on a database. */
export interface AmbientFrame {
  /** What the handler may know of its execution. */
  readonly execution: object;
  /** Notes that the decorated handler was entered. */
  enterHandler(): void;
  /** Keeps work for the time after COMMIT. */
  defer(work: AfterCommitWork): void;
  /**
   * Called before another execution begins inside this one.
   *
   * @throws when what that commits could not be told from what this one may still undo, or when this one is over.
   */
  enterNestedRun(): void;
}

/**
 * Stands for a frame that is there only later: code that began before the claim, such as an interceptor around it, belongs
 * to the transaction from the claim on, and to none before.
 */
export interface LateFrame {
  later: AmbientFrame | undefined;
}

/** Work for the time after COMMIT. */
export type AfterCommitWork = () => unknown;

interface AmbientGlobal {
  [AMBIENT]?: AsyncLocalStorage<AmbientFrame | LateFrame | undefined>;
}

/** A process that loads both the CommonJS and the ESM build must still have one ambient transaction. */
const AMBIENT = Symbol.for('nestjs-pg-idempotency:ambient');
const storage = ((globalThis as AmbientGlobal)[AMBIENT] ??= new AsyncLocalStorage<
  AmbientFrame | LateFrame | undefined
>());

/** The transaction of the handler this code was called from, if any. */
export function currentFrame(): AmbientFrame | undefined {
  const frame = storage.getStore();
  return frame && 'later' in frame ? frame.later : frame;
}

/** Calls `work` inside a frame, or outside of all with undefined. */
export function runInFrame<T>(frame: AmbientFrame | LateFrame | undefined, work: () => T): T {
  return storage.run(frame, work);
}

/**
 * Runs `work` outside the handler's transaction, for example to write an audit row that survives a rollback.
 * What it does through the DataSource commits by itself, on a second connection of the pool. That it may happen more
 * than once, or although the handler fails, is the point. Without an ambient transaction it just calls `work`.
 *
 * @example
 * ```ts
 * await outside(() => this.audit.insert({ attempt: request.id }));
 * ```
 */
export function outside<T>(work: () => T): T {
  return runInFrame(undefined, work);
}

/**
 * Runs `work` after the handler's transaction has committed, for example to send an e-mail or enqueue a job.
 * It runs at most once, outside the transaction, in the order of registration, and does not delay the response. It
 * does not run when the handler fails, nor on a replay, nor when the process dies or the answer to COMMIT is lost. Its
 * errors are logged. Without an ambient transaction `work` is called at once, and its errors are logged as well.
 *
 * @throws IdempotencyUsageError `IDEMPOTENCY_TRANSACTION_FINISHED` when the handler has ended already.
 */
export function afterCommit(work: AfterCommitWork): void {
  const frame = currentFrame();
  if (frame) frame.defer(work);
  else void attempt(work);
}

/** Has failures of work that ran without an ambient transaction logged. */
export function reportFailuresTo(report: (error: unknown) => void): void {
  reportFailure = report;
}

/** The core has no logger. */
let reportFailure = (error: unknown): void => process.emitWarning(String(error));

async function attempt(work: AfterCommitWork): Promise<void> {
  try {
    await work();
  } catch (error) {
    reportFailure(error);
  }
}
