import { IdempotencyFailure, type IdempotencyErrorCode } from './errors.js';
import type { Notify } from './events.js';
import type { Flight } from './flights.js';
import { FORMAT_VERSION, type RecordedResponse } from './record.js';
import type { Claim, Execution, GiveUp } from './store.js';

/** An execution whose end is told: to the duplicates that wait for it in this process, and to the observer. */
export class TrackedExecution implements Execution {
  readonly #startedAt = performance.now();
  /** Whether another attempt was seen to have taken over. */
  #lost = false;
  #told = false;

  constructor(
    private readonly inner: Execution,
    private readonly claim: Claim,
    private readonly flight: Flight,
    private readonly notify: Notify,
  ) {}

  get createdAt(): Date {
    return this.inner.createdAt;
  }

  get attempt(): number {
    return this.inner.attempt;
  }

  get handlerBegan(): boolean {
    return this.inner.handlerBegan;
  }

  run<T>(work: () => T): T {
    return this.inner.run(work);
  }

  explain(error: unknown): unknown {
    const explained = this.inner.explain(error);
    this.#lost ||= is('IDEMPOTENCY_LEASE_LOST', explained);
    return explained;
  }

  abandon(): void {
    this.inner.abandon();
  }

  async complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    try {
      await this.inner.complete(response, handler);
    } catch (error) {
      this.flight.land({ kind: 'open' });
      this.#lost ||= is('IDEMPOTENCY_LEASE_LOST', error);
      this.#tellUnrecorded(is('IDEMPOTENCY_OUTCOME_UNKNOWN', error));
      throw error;
    }
    const { fingerprint } = this.claim;
    const status = handler === 'threw' ? 'failed' : 'completed';
    const record = {
      status,
      fingerprint,
      formatVersion: FORMAT_VERSION,
      response,
      createdAt: this.createdAt,
    } as const;
    this.flight.land({ kind: 'recorded', record });
    this.#told = true;
    const { mode, attempt } = { mode: this.claim.mode.kind, attempt: this.attempt };
    const duration = performance.now() - this.#startedAt;
    this.notify({ type: 'executed', ...this.#where(), mode, attempt, status: response.status, duration });
  }

  async release(): Promise<void> {
    await this.inner.release();
    this.flight.land({ kind: 'open' });
    // What was refused before it began says nothing of the earlier attempt that it followed.
    this.#tellUnrecorded(this.attempt > 1 && !this.handlerBegan);
  }

  async giveUp(why: GiveUp): Promise<void> {
    await this.inner.giveUp(why);
    this.flight.land({ kind: 'open' });
    const isLease = this.claim.mode.kind === 'lease';
    // In lease mode what cannot be kept is known all the same: a tombstone says so.
    if (!isLease || why !== 'unkeepable') this.#tellUnrecorded(isLease);
  }

  /** Tells how an execution ended that left no answer. Only the first end counts. */
  #tellUnrecorded(isUnknown: boolean): void {
    if (this.#told) return;
    this.#told = true;
    const { attempt } = this;
    const mode = this.claim.mode.kind;
    if (this.#lost) this.notify({ type: 'fence-lost', ...this.#where(), attempt });
    else this.notify({ type: isUnknown ? 'outcome-unknown' : 'released', ...this.#where(), mode, attempt });
  }

  #where(): { client: string; endpoint: string } {
    const { client, endpoint } = this.claim.identity;
    return { client, endpoint };
  }
}

function is(code: IdempotencyErrorCode, error: unknown): boolean {
  return error instanceof IdempotencyFailure && error.error.code === code;
}
