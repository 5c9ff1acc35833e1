import { within } from '../connection.js';

/** Part of a lease after which it is extended: two extensions may fail, and the third still has time for its answer. */
export const BEAT = 0.3;

/** The database said that it is not ours any more, or nothing for as long as it lasted. */
export type LossOfLease = 'taken' | 'unextended';

/**
 * Extends a lease until it is stopped. It is lost when an extension says so, or when none has succeeded for as long as the
 * lease lasts: by then another may hold it, whether or not the database can be asked.
 */
export class Heartbeat {
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  /** By the monotonic clock of this process, from before the last successful extension was sent. */
  #heldUntil: number;

  /** @param since - When the claim was sent, by the monotonic clock: its answer may have taken its time. */
  constructor(
    private readonly lease: number,
    since: number,
    private readonly extend: () => Promise<boolean>,
    private readonly onLost: (why: LossOfLease) => void,
  ) {
    this.#heldUntil = since + lease;
    this.#schedule(since);
  }

  /** Whether nobody else can hold the lease yet. */
  get holds(): boolean {
    return performance.now() < this.#heldUntil;
  }

  /** Milliseconds for which nobody else can hold the lease. */
  get remaining(): number {
    return Math.max(0, this.#heldUntil - performance.now());
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** The next extension, or the end where it would come too late. */
  #schedule(sentAt: number): void {
    const due = sentAt + this.lease * BEAT;
    const [then, at] =
      due < this.#heldUntil
        ? [() => void this.#beat(), due]
        : [() => this.onLost('unextended'), this.#heldUntil];
    this.#timer = setTimeout(then, at - performance.now());
    this.#timer.unref();
  }

  async #beat(): Promise<void> {
    const sentAt = performance.now();
    // A process that was held up past its lease asks all the same: perhaps nobody else wanted it.
    const patience = sentAt < this.#heldUntil ? this.#heldUntil - sentAt : this.lease * BEAT;
    const isHeld = await within(patience, this.extend());
    if (this.#stopped) return;
    if (isHeld) this.#heldUntil = sentAt + this.lease;
    if (isHeld === false || performance.now() >= this.#heldUntil)
      this.onLost(isHeld === false ? 'taken' : 'unextended');
    else this.#schedule(sentAt);
  }
}
