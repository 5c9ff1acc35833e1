import { currentFrame } from '../core/ambient.js';
import { idempotencyError, IdempotencyFailure, type IdempotencyError } from '../core/errors.js';
import { isThrownByStep } from '../core/nested-runs.js';
import type { RecordedResponse } from '../core/record.js';
import type { Execution } from '../core/store.js';
import { unsettled } from '../core/unsettled.js';
import { currentExecution } from '../current-execution.js';
import { ReleaseIdempotencyKey } from '../http/release-idempotency-key.js';
import type { IdempotencyExecution } from '../idempotency-execution.js';
import type { PreparedTask } from './idempotent-task.js';
import { recordedValue } from './recorded-value.js';

/** What is to be done once. */
export type Work<T> = (execution: IdempotencyExecution) => T | Promise<T>;

/** Work inside its claim, which ends in exactly one way: recorded, given up or released. */
export class TaskRun {
  /** `running` until it is known how it ends. */
  #state: 'running' | 'concluding' | 'expired' = 'running';

  constructor(
    private readonly execution: Execution,
    private readonly task: PreparedTask,
  ) {}

  /**
   * Does the work, and records what it returns.
   *
   * @throws whatever the work throws, or IdempotencyFailure where the library or the database has ended it.
   */
  async carryOut(work: Work<unknown>): Promise<RecordedResponse> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => void this.#expire().then(reject), this.task.claim.maxDuration);
    });
    // Both reject where the timer was faster, and only one is heard.
    expired.catch(() => undefined);
    try {
      return await Promise.race([this.#conclude(work, expired), expired]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #conclude(work: Work<unknown>, expired: Promise<never>): Promise<RecordedResponse> {
    let value: unknown;
    try {
      value = await this.execution.run(() => entered(work));
    } catch (error) {
      if (this.#state === 'expired') return expired;
      this.#state = 'concluding';
      throw await this.#failed(error);
    }
    if (this.#state === 'expired') return expired;
    this.#state = 'concluding';
    const response = await this.#recording(value);
    await this.execution.complete(response, 'returned');
    return response;
  }

  async #failed(error: unknown): Promise<unknown> {
    const { execution } = this;
    const isOfStep = isThrownByStep(error);
    const explained = isOfStep ? error : execution.explain(error);
    const isReleased = error instanceof ReleaseIdempotencyKey && !isOfStep;
    await (isReleased ? execution.release() : execution.giveUp('unsettled'));
    return explained;
  }

  /** In lease mode what was done stays done, whether its value can be kept or not: then a tombstone says so. */
  async #recording(value: unknown): Promise<RecordedResponse> {
    try {
      return recordedValue(value, this.task.maxSize);
    } catch (cause) {
      await this.execution.giveUp('unkeepable');
      if (!this.#isLease) throw cause;
      throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RESPONSE_NOT_KEPT'), { cause });
    }
  }

  /** Gives up, unless its end is under way: then whatever waits for the database fails now, and says what became of it. */
  async #expire(): Promise<unknown> {
    if (this.#state === 'concluding') {
      this.execution.abandon();
      return new Promise<never>(() => undefined);
    }
    this.#state = 'expired';
    await this.execution.giveUp('unsettled');
    return new IdempotencyFailure(this.#error('IDEMPOTENCY_MAX_DURATION_EXCEEDED'));
  }

  #error(code: Parameters<typeof idempotencyError>[0]): IdempotencyError {
    return this.#isLease ? unsettled(idempotencyError(code)) : idempotencyError(code);
  }

  get #isLease(): boolean {
    return this.task.claim.mode.kind === 'lease';
  }
}

/** Notes that the work began, as a handler's entry does, and begins it. */
function entered(work: Work<unknown>): Promise<unknown> {
  return new Promise((resolve) => {
    currentFrame()?.enterHandler();
    resolve(work(currentExecution() as IdempotencyExecution));
  });
}
