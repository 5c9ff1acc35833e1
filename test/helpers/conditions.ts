import { setTimeout as delay } from 'node:timers/promises';

/** How long and how often {@link eventually} looks. */
export interface EventuallyOptions {
  /** Milliseconds after which the last failure is thrown. Default 60 000: only what hangs takes that long, on however busy a machine. */
  readonly timeoutMs?: number;
  /** Milliseconds between two looks. Default 20. */
  readonly intervalMs?: number;
}

/**
 * Repeats `condition` until it neither throws nor returns `false`, and resolves with what it returned.
 * After the deadline it rejects with the condition's last failure as `cause`.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 60_000, intervalMs = 20 }: EventuallyOptions = {},
): Promise<Exclude<T, false>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const outcome = await attempt(condition);
    if (outcome.held) return outcome.value;
    if (performance.now() >= deadline) {
      const reason = outcome.failure instanceof Error ? outcome.failure.message : String(outcome.failure);
      throw new Error(`Condition not met within ${timeoutMs} ms: ${reason}`, { cause: outcome.failure });
    }
    await delay(intervalMs);
  }
}

type Attempt<T> = { held: true; value: Exclude<T, false> } | { held: false; failure: unknown };

async function attempt<T>(condition: () => T | Promise<T>): Promise<Attempt<T>> {
  try {
    const value = await condition();
    if (value === false) return { held: false, failure: 'the condition returned false' };
    return { held: true, value: value as Exclude<T, false> };
  } catch (failure) {
    return { held: false, failure };
  }
}

/** A promise that is settled from outside. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T | PromiseLike<T>) => void;
  readonly reject: (reason: unknown) => void;
}

/** Creates a {@link Deferred}: a gate that a test opens at the moment it chooses. */
export function deferred<T = void>(): Deferred<T> {
  let resolve!: Deferred<T>['resolve'];
  let reject!: Deferred<T>['reject'];
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
