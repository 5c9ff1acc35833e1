import type { CallHooks } from './reports.js';

/** What one call may say besides its input. */
export interface CallOptions extends CallHooks {
  /**
   * The key of this call, in place of one that the declaration would choose: to go on with a call whose outcome is unknown, or
   * to name the operation. Default: what the declaration's strategy chooses.
   *
   * @example
   * ```ts
   * await charge({ body }, { idempotencyKey: saved.key });
   * ```
   */
  readonly idempotencyKey?: string;
  /**
   * Stops the call: it throws `CALL_ABORTED`, which tells whether the write may have happened. Default: none.
   *
   * @example
   * ```ts
   * await charge({ body }, { signal: AbortSignal.timeout(5_000) });
   * ```
   */
  readonly signal?: AbortSignal;
}

const NAMES: readonly string[] = [
  'idempotencyKey',
  'signal',
  'saveKey',
  'onAttempt',
] satisfies (keyof CallOptions)[];

/** A name that would be ignored: `idempotency_key` would send a random one, and write a second time. */
export function unknownOption(options: object): string | undefined {
  return Object.keys(options).find((name) => !NAMES.includes(name));
}
