/** Why a call was cut short. */
export type Interruption = 'timed-out' | 'aborted';

/** What {@link Deadline.race} throws. */
export class Interrupted extends Error {
  constructor(readonly why: Interruption) {
    super(why);
  }
}

/** The end of a call's time, or its caller's wish to stop, whichever comes first. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #until: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #onAbort = (): void => this.#interrupt('aborted');
  #why: Interruption | undefined;

  /** @param total - Milliseconds. */
  constructor(
    total: number,
    private readonly callerSignal: AbortSignal | undefined,
  ) {
    this.#until = performance.now() + total;
    this.#timer = setTimeout(() => this.#interrupt('timed-out'), total);
    callerSignal?.addEventListener('abort', this.#onAbort);
    if (callerSignal?.aborted) this.#onAbort();
  }

  /** Aborted at the end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get why(): Interruption | undefined {
    return this.#why;
  }

  /** What the caller gave as the reason, where it was the caller. */
  get reason(): unknown {
    return this.#why === 'aborted' ? (this.callerSignal?.reason as unknown) : undefined;
  }

  /** Milliseconds. */
  get remaining(): number {
    return this.#until - performance.now();
  }

  /** @throws Interrupted at the end, whatever becomes of the work. */
  async race<T>(work: Promise<T>): Promise<T> {
    const { signal } = this;
    let onEnd!: () => void;
    const ended = new Promise<never>((_, reject) => {
      onEnd = () => reject(new Interrupted(this.#why ?? 'aborted'));
      signal.addEventListener('abort', onEnd);
    });
    if (signal.aborted) onEnd();
    try {
      return await Promise.race([work, ended]);
    } finally {
      signal.removeEventListener('abort', onEnd);
    }
  }

  /** @throws Interrupted */
  async pause(milliseconds: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.race(new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds))));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Lets go of timer and signal. */
  end(): void {
    clearTimeout(this.#timer);
    this.callerSignal?.removeEventListener('abort', this.#onAbort);
  }

  #interrupt(why: Interruption): void {
    this.#why ??= why;
    this.#controller.abort();
  }
}
