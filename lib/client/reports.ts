import type { HttpMethod } from './method.js';

/** What became of one attempt. */
export type AttemptOutcome =
  | { readonly kind: 'answer'; readonly status: number; readonly replayed: boolean }
  | { readonly kind: 'network-failed'; readonly cause: unknown }
  /** Its own time was up, or that of the call. */
  | { readonly kind: 'timed-out' }
  /** By the caller's signal. */
  | { readonly kind: 'aborted' };

/** What follows an attempt. `pause` is in milliseconds. */
export type NextStep =
  | { readonly kind: 'return' }
  | { readonly kind: 'fail' }
  | { readonly kind: 'retry'; readonly pause: number }
  /** The first request with this key still runs. */
  | { readonly kind: 'wait'; readonly pause: number };

/** One attempt of a call, after it ended. It holds neither headers nor bodies. */
export interface AttemptReport {
  /** The first is 1. */
  readonly attempt: number;
  /** That of the endpoint. */
  readonly method: HttpMethod;
  /** The whole address, query included. */
  readonly url: string;
  /** The idempotency key; undefined for an endpoint without. */
  readonly key: string | undefined;
  /** Milliseconds. */
  readonly duration: number;
  /** What became of it. */
  readonly outcome: AttemptOutcome;
  /** What follows. */
  readonly next: NextStep;
}

/** A call that is about to be sent for the first time. */
export interface PendingCall {
  /** What a later process hands in as `idempotencyKey`. */
  readonly key: string;
  /** That of the endpoint. */
  readonly method: HttpMethod;
  /** The whole address, query included. */
  readonly url: string;
  /**
   * As the caller gave it, and as JSON keeps it; a form, blob, stream or bytes as the bytes that are sent, with their media type
   * among the headers. Calling again with it and with `{ idempotencyKey: key }` goes on with the same write.
   */
  readonly input: unknown;
}

/** Functions that are told of a call; those of the declaration and those of the call are both called. */
export interface CallHooks {
  /**
   * Called once, with the key, before the first attempt goes out, and awaited: where the key is kept somewhere durable, a
   * process that dies between sending and answer goes on with it later. What it throws fails the call with
   * `CALL_KEY_NOT_SAVED`, and nothing is sent. Not called without a key. Default: nothing.
   *
   * @example
   * ```ts
   * saveKey: ({ key, input }) => outbox.save({ key, input }),
   * ```
   */
  readonly saveKey?: (call: PendingCall) => unknown;
  /**
   * Called after each attempt, for logs and metrics. Neither awaited, nor can what it throws change the call. Default:
   * nothing.
   *
   * @example
   * ```ts
   * onAttempt: ({ attempt, outcome, next }) => metrics.count('charge', { attempt, outcome: outcome.kind, next: next.kind }),
   * ```
   */
  readonly onAttempt?: (report: AttemptReport) => unknown;
}
