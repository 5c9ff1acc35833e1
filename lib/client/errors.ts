import type { SchemaIssue } from './schema.js';

/**
 * What is known of the write of a call that has failed, all its attempts counted, but not earlier calls with the same key:
 *
 * - `'none'`: it did not happen. Nothing was sent, or the server refused it.
 * - `'unknown'`: it may have happened. Call again with the same input and the error's key: that finds out, and never writes twice.
 * - `'done'`: it happened; only its answer is missing or not what was declared.
 */
export type Effect = 'none' | 'unknown' | 'done';

/**
 * Stable: programs may depend on it.
 *
 * | code | what happened | effect |
 * | --- | --- | --- |
 * | `CALL_INPUT_INVALID` | the input does not match its schema or the path, cannot be serialised, or an option has an unknown name | none |
 * | `CALL_KEY_INVALID` | the key is empty or breaks the rules | none |
 * | `CALL_KEY_NOT_SAVED` | the `saveKey` hook failed | none |
 * | `CALL_AUTH_UNAVAILABLE` | `auth` could not be resolved | none |
 * | `CALL_REFUSED` | an error status, {@link AnswerError} | none from 400 to 499 but for a 408 that is not recorded, otherwise unknown |
 * | `CALL_KEY_REUSED` | the key belongs to a different request, {@link AnswerError} | none |
 * | `CALL_IN_PROGRESS` | the first request with this key still ran when the time was up, {@link AnswerError} | unknown |
 * | `CALL_NETWORK_FAILED` | no answer: refused, reset or cut connections | unknown |
 * | `CALL_TIMED_OUT` | no answer in time | unknown |
 * | `CALL_ABORTED` | the caller's signal | unknown once something was sent, and while `saveKey` is at it |
 * | `CALL_OUTPUT_INVALID` | a success that does not match the `output` schema, {@link SchemaError} | done |
 */
export type CallErrorCode =
  | 'CALL_INPUT_INVALID'
  | 'CALL_KEY_INVALID'
  | 'CALL_KEY_NOT_SAVED'
  | 'CALL_AUTH_UNAVAILABLE'
  | 'CALL_REFUSED'
  | 'CALL_KEY_REUSED'
  | 'CALL_IN_PROGRESS'
  | 'CALL_NETWORK_FAILED'
  | 'CALL_TIMED_OUT'
  | 'CALL_ABORTED'
  | 'CALL_OUTPUT_INVALID';

/** What every {@link CallError} knows of its call. */
export interface CallFacts {
  readonly effect: Effect;
  /** The idempotency key; undefined for calls without one, and where none was found yet. */
  readonly key: string | undefined;
  /** Requests sent so far. */
  readonly attempts: number;
  readonly cause?: unknown;
}

/** An answer with an error status. */
export interface ErrorAnswer {
  /** Anything but 200 to 299. */
  readonly status: number;
  /** Those of the answer; across origins a browser shows what the server exposes. */
  readonly headers: Headers;
  /** JSON parsed, other text as a string, anything else as bytes; undefined when it is empty. */
  readonly body: unknown;
  /** Whether it is the recorded answer of an earlier request with this key. */
  readonly replayed: boolean;
  /** When the request that was answered ran, where the server tells. */
  readonly createdAt: Date | undefined;
}

/**
 * A call that failed. All of its kind, {@link AnswerError} and {@link SchemaError} among them, are told apart by `code`, and
 * say whether the write may have happened. Where it may, the message names the key with which to go on.
 */
export class CallError extends Error {
  override readonly name: string = 'CallError';
  readonly effect: Effect;
  /** The idempotency key; undefined for calls without one, and where none was found yet. */
  readonly key: string | undefined;
  /** Requests sent. */
  readonly attempts: number;

  constructor(
    readonly code: CallErrorCode,
    message: string,
    { effect, key, attempts, cause }: CallFacts,
  ) {
    super(`${code}: ${message}${whatNext(effect, key)}`, cause === undefined ? undefined : { cause });
    this.effect = effect;
    this.key = key;
    this.attempts = attempts;
  }
}

/** The server answered with an error status, and that is final or was the last. */
export class AnswerError extends CallError {
  override readonly name = 'AnswerError';

  constructor(
    code: Extract<CallErrorCode, 'CALL_REFUSED' | 'CALL_KEY_REUSED' | 'CALL_IN_PROGRESS'>,
    message: string,
    facts: CallFacts,
    readonly answer: ErrorAnswer,
  ) {
    super(code, message, facts);
  }
}

/** Input or output does not match its schema. */
export class SchemaError extends CallError {
  override readonly name = 'SchemaError';

  constructor(
    code: Extract<CallErrorCode, 'CALL_INPUT_INVALID' | 'CALL_OUTPUT_INVALID'>,
    message: string,
    facts: CallFacts,
    /** What the schema found. */
    readonly issues: readonly SchemaIssue[],
  ) {
    super(code, message, facts);
  }
}

/** A declaration that cannot work, or would write twice; thrown by `endpoint`, `createClient` and `resource`. */
export class DeclarationError extends TypeError {
  override readonly name = 'DeclarationError';
  readonly code = 'CALL_DECLARATION_INVALID';

  constructor(message: string) {
    super(`CALL_DECLARATION_INVALID: ${message}`);
  }
}

function whatNext(effect: Effect, key: string | undefined): string {
  if (effect === 'none') return '';
  if (effect === 'done') return ' The write happened: do not send it again under another key.';
  return key === undefined
    ? ' The outcome is unknown, and without an idempotency key a retry may do it twice: look before you retry.'
    : ` The outcome is unknown: retry with key ${key}.`;
}
