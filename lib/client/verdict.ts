import type { Attempted } from './attempt.js';
import { parseRetryAfter } from './backoff.js';
import type { Effect } from './errors.js';
import { isWrite } from './method.js';
import type { Reading } from './reading.js';
import type { Settings } from './settings.js';

/** An attempt with its answer read. */
export type ReadAttempt =
  { readonly kind: 'answer'; readonly reading: Reading } | Exclude<Attempted, { readonly kind: 'answer' }>;

/** What an attempt means for the call. `retryAfter` is in milliseconds. */
export type Verdict =
  | { readonly kind: 'success' }
  /** The first request with this key still runs. */
  | { readonly kind: 'wait'; readonly retryAfter: number | undefined }
  | { readonly kind: 'retry'; readonly retryAfter: number | undefined }
  | { readonly kind: 'final' };

/** Codes of `nestjs-pg-idempotency` that say more of the write than their status. */
const OUTCOME_UNRESOLVED = 'IDEMPOTENCY_OUTCOME_UNRESOLVED';
const RESPONSE_NOT_KEPT = 'IDEMPOTENCY_RESPONSE_NOT_KEPT';

/** Failures to connect on Node.js, by which nothing was sent. Browsers do not tell. */
const NOT_SENT = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN'];

/** What follows an attempt, not counting how many there were. */
export function judge(attempt: ReadAttempt, { retry, idempotency }: Settings): Verdict {
  if (attempt.kind === 'aborted') return { kind: 'final' };
  if (attempt.kind !== 'answer') return { kind: 'retry', retryAfter: undefined };
  const { status, headers, replayed, codes } = attempt.reading;
  if (status >= 200 && status < 300) return { kind: 'success' };
  const retryAfter = parseRetryAfter(headers.get('retry-after'), Date.now());
  if (idempotency && codes.includes(idempotency.inProgressCode)) return { kind: 'wait', retryAfter };
  return retry.on.has(status) && !replayed ? { kind: 'retry', retryAfter } : { kind: 'final' };
}

/**
 * What is known of the write after an attempt.
 *
 * @param before - What was known before it: an attempt whose fate is unknown leaves it unknown, until an answer tells.
 */
export function effectAfter(before: Effect, attempt: ReadAttempt, settings: Settings): Effect {
  if (!isWrite(settings.method)) return 'none';
  if (attempt.kind === 'network-failed') return wasNotSent(attempt.cause) ? before : 'unknown';
  if (attempt.kind !== 'answer') return 'unknown';
  const { status, replayed, createdAt, codes } = attempt.reading;
  if (status >= 200 && status < 300) return 'done';
  if (codes.includes(RESPONSE_NOT_KEPT)) return 'done';
  if (codes.includes(OUTCOME_UNRESOLVED)) return 'unknown';
  const { idempotency } = settings;
  if (idempotency && codes.includes(idempotency.inProgressCode)) return 'unknown';
  // Recorded or not: a 303 follows a write that happened, browsers show status 0 for all redirections, and a 5xx may come after
  // the effect.
  if (status < 400 || status >= 500) return 'unknown';
  // A recorded refusal is the result of the operation, and a key of another request was never this one's.
  const isResult = replayed || createdAt !== undefined;
  if (isResult || (idempotency && codes.includes(idempotency.keyReusedCode))) return 'none';
  return status === 408 ? 'unknown' : before;
}

/** @param depth - Errors may be their own causes. */
function wasNotSent(error: unknown, depth = 8): boolean {
  // Not by instanceof: the platform's errors are of another realm in an iframe or a vm.
  if (typeof error !== 'object' || error === null || depth === 0) return false;
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  return (typeof code === 'string' && NOT_SENT.includes(code)) || wasNotSent(cause, depth - 1);
}
