/** Why a call was cut short. */
export type Interruption = 'timed-out' | 'aborted';

/** What {@link Deadline.race} throws. */
export class Interrupted extends Error {
  constructor(readonly why: Interruption) {
    super(why);
  }
}

/** All calls that wait for one signal, which has one listener: of many Node.js warns, as of a leak. */
class Waiting extends Set<() => void> {
  handleEvent(): void {
    for (const tell of this) tell();
  }
}

const waiting = new WeakMap<AbortSignal, Waiting>();

function listenTo(signal: AbortSignal, tell: () => void): () => void {
  const all = waiting.get(signal) ?? new Waiting();
  waiting.set(signal, all.add(tell));
  // The same object once more is none more.
  signal.addEventListener('abort', all);
  return () => {
    if (all.delete(tell) && !all.size) signal.removeEventListener('abort', all);
  };
}

/** The end of a call's time, or its caller's wish to stop, whichever comes first. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #until: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #stopListening: (() => void) | undefined;
  #why: Interruption | undefined;

  /** @param total - Milliseconds. */
  constructor(
    total: number,
    private readonly callerSignal: AbortSignal | undefined,
  ) {
    this.#until = performance.now() + total;
    this.#timer = setTimeout(() => this.#interrupt('timed-out'), total);
    const onAbort = (): void => this.#interrupt('aborted');
    this.#stopListening = callerSignal && listenTo(callerSignal, onAbort);
    if (callerSignal?.aborted) onAbort();
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
    this.#stopListening?.();
  }

  #interrupt(why: Interruption): void {
    this.#why ??= why;
    this.#controller.abort();
  }
}
