/** Where a route looks for its keys. */
export interface KeySource {
  /** A header, a top-level field of the body, or a function of the application. */
  readonly kind: 'header' | 'body' | 'from';
  /** The header's name or the field's; `idempotency key` where a function finds it. */
  readonly name: string;
}

/** What every idempotency error says, whatever its code. */
interface ErrorBase<Code extends string> {
  /** Stable: programs may depend on it. */
  readonly code: Code;
  /** The same for every occurrence of the code. */
  readonly title: string;
  /** What happened this time, and what to do about it. Holds neither keys nor bodies. */
  readonly detail: string;
}

interface Answered<Status extends number> {
  /** HTTP status of the answer. */
  readonly status: Status;
}

interface Retryable<Status extends number> extends Answered<Status> {
  /** Seconds after which a retry with the same key makes sense. */
  readonly retryAfter: number;
}

/** The rules a key was checked against. */
interface KeyRefusal extends Answered<400> {
  /** Where the key was looked for. */
  readonly source: KeySource;
  readonly minLength: number;
  readonly maxLength: number;
}

interface Unresolved extends Answered<409> {
  /** Which attempt has the unknown outcome; the first is 1. */
  readonly attempt: number;
}

/** What each error says besides. */
interface ErrorFacts {
  IDEMPOTENCY_KEY_REQUIRED: KeyRefusal;
  IDEMPOTENCY_KEY_TOO_SHORT: KeyRefusal;
  IDEMPOTENCY_KEY_TOO_LONG: KeyRefusal;
  IDEMPOTENCY_KEY_MALFORMED: KeyRefusal;
  IDEMPOTENCY_CLIENT_UNRESOLVED: Answered<401>;
  IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE: Answered<415>;
  IDEMPOTENCY_IN_PROGRESS: Retryable<409 | 425 | 503>;
  IDEMPOTENCY_OUTCOME_UNRESOLVED: Unresolved;
  IDEMPOTENCY_RESPONSE_NOT_KEPT: Answered<409>;
  IDEMPOTENCY_SHUTTING_DOWN: Retryable<503>;
  IDEMPOTENCY_LEASE_LOST: Retryable<503>;
  IDEMPOTENCY_KEY_REUSED: Answered<422 | 409>;
  IDEMPOTENCY_STORE_UNAVAILABLE: Retryable<503>;
  IDEMPOTENCY_TRANSACTION_CONFLICT: Retryable<503>;
  IDEMPOTENCY_OUTCOME_UNKNOWN: Retryable<503>;
  IDEMPOTENCY_MAX_DURATION_EXCEEDED: Retryable<503>;
  IDEMPOTENCY_RECORD_UNREADABLE: Retryable<503>;
  IDEMPOTENCY_STORE_REFUSED: Answered<500>;
  IDEMPOTENCY_TRANSACTION_ABORTED: Answered<500>;
  IDEMPOTENCY_TRANSACTION_NOT_YOURS: Answered<500>;
  IDEMPOTENCY_COMMIT_REFUSED: Answered<500>;
  IDEMPOTENCY_RESPONSE_TOO_LARGE: Answered<500>;
  IDEMPOTENCY_RESPONSE_FAILED: Answered<500>;
  IDEMPOTENCY_RESPONSE_NOT_SENT: Answered<500>;
  IDEMPOTENCY_ENDPOINT_AMBIGUOUS: Answered<500>;
  IDEMPOTENCY_HANDLER_NOT_SEEN: Answered<500>;
}

/** The stable code of an {@link IdempotencyError}. */
export type IdempotencyErrorCode = keyof ErrorFacts;

/**
 * Every error this library answers with: a union that `switch (error.code)` tells apart, where each member has what it
 * can tell and nothing else. `IdempotencyError<'IDEMPOTENCY_IN_PROGRESS'>` is one of them.
 * What each means, what the client sees and how it ends is in `docs/errors.md`.
 */
export type IdempotencyError<Code extends IdempotencyErrorCode = IdempotencyErrorCode> = {
  [C in Code]: ErrorBase<C> & ErrorFacts[C];
}[Code];

/** The key is absent, too short, too long or not of the allowed form. */
export type KeyError = IdempotencyError<
  | 'IDEMPOTENCY_KEY_REQUIRED'
  | 'IDEMPOTENCY_KEY_TOO_SHORT'
  | 'IDEMPOTENCY_KEY_TOO_LONG'
  | 'IDEMPOTENCY_KEY_MALFORMED'
>;

/** Seconds a client is told to wait when nothing better is known. */
const RETRY_SOON = 1;

const CATALOGUE = {
  IDEMPOTENCY_CLIENT_UNRESOLVED: {
    status: 401,
    title: 'The client of this request is not known',
    detail: 'Authenticate the request: its idempotency key cannot be told apart from other clients’ keys.',
  },
  IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE: {
    status: 415,
    title: 'The body of this request cannot be compared with a retry',
    detail:
      'The server has no parsed body for this media type. Send a supported media type; on the server, add a body ' +
      'parser for it or set `fingerprint.body` on the route to a function.',
  },
  IDEMPOTENCY_IN_PROGRESS: {
    status: 409,
    title: 'A request with this idempotency key is still running',
    detail: 'Retry with the same key after the time given by Retry-After.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_RESPONSE_NOT_KEPT: {
    status: 409,
    title: 'The request took effect, but its response could not be kept',
    detail: 'Do not send it again under another key: look up what it created.',
  },
  IDEMPOTENCY_SHUTTING_DOWN: {
    status: 503,
    title: 'The server is shutting down',
    detail: 'Retry with the same key: another instance answers.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_LEASE_LOST: {
    status: 503,
    title: 'Another attempt has taken over this request',
    detail: 'Retry with the same key: it gets the answer of the attempt that took over.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_KEY_REUSED: {
    status: 422,
    title: 'The idempotency key was used for a different request',
    detail:
      'Method, path, query, media type, body, and the host, version and headers that the route counts must equal those of ' +
      'the first request; use a new key.',
  },
  IDEMPOTENCY_STORE_UNAVAILABLE: {
    status: 503,
    title: 'The idempotency store cannot be reached',
    detail: 'Nothing took effect. Retry with the same key.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_TRANSACTION_CONFLICT: {
    status: 503,
    title: 'The transaction gave way to a concurrent one',
    detail: 'Nothing took effect. Retry with the same key.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_OUTCOME_UNKNOWN: {
    status: 503,
    title: 'The database’s answer to COMMIT was lost',
    detail: 'The request may have taken effect. Retry with the same key: it finds out, and never runs twice.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_MAX_DURATION_EXCEEDED: {
    status: 503,
    title: 'The request ran longer than allowed',
    detail:
      'It was rolled back and its key is free. Retry with the same key; on the server, see `maxDuration`.',
    retryAfter: RETRY_SOON,
  },
  IDEMPOTENCY_RECORD_UNREADABLE: {
    status: 503,
    title: 'The recorded answer was written by a newer release',
    detail: 'The request took effect once. Retry with the same key when the deployment has finished.',
    retryAfter: 5,
  },
  IDEMPOTENCY_STORE_REFUSED: {
    status: 500,
    title: 'The database refused what the idempotency store asked of it',
    detail:
      'Nothing took effect, and the same will happen again until somebody mends it on the server: its log has the SQLSTATE and ' +
      'the remedy.',
  },
  IDEMPOTENCY_TRANSACTION_NOT_YOURS: {
    status: 500,
    title: 'The handler ended the transaction that it runs in',
    detail:
      'What it wrote before may have been committed, and nothing was recorded: the same key runs it once more. On the server, leave ' +
      'COMMIT and ROLLBACK to the library: throw an error to roll back, and use `dataSource.transaction(...)` for a part that may fail.',
  },
  IDEMPOTENCY_TRANSACTION_ABORTED: {
    status: 500,
    title: 'The handler went on after an SQL error',
    detail:
      'An SQL error inside the handler was swallowed, so PostgreSQL aborted the transaction and everything was rolled ' +
      'back. Let the error propagate, or wrap the statement that may fail in `dataSource.transaction(...)`.',
  },
  IDEMPOTENCY_COMMIT_REFUSED: {
    status: 500,
    title: 'The database refused to commit',
    detail:
      'A constraint that is checked at COMMIT was violated. Everything was rolled back and nothing was recorded.',
  },
  IDEMPOTENCY_RESPONSE_TOO_LARGE: {
    status: 500,
    title: 'The response is too large to be recorded',
    detail: 'Everything was rolled back. On the server, raise `response.maxSize` or answer with a reference.',
  },
  IDEMPOTENCY_RESPONSE_FAILED: {
    status: 500,
    title: 'The response broke off while it was produced',
    detail: 'Everything was rolled back and nothing was recorded. Retry with the same key.',
  },
  IDEMPOTENCY_RESPONSE_NOT_SENT: {
    status: 500,
    title: 'The answer could not be sent',
    detail:
      'The request took effect and its answer is recorded. Retry with the same key to get it; on the server, see what ' +
      'wraps the response.',
  },
  IDEMPOTENCY_ENDPOINT_AMBIGUOUS: {
    status: 500,
    title: 'Two handlers share one endpoint',
    detail: 'On the server, give each of them a name of its own: `@Idempotent({ endpoint: … })`.',
  },
  IDEMPOTENCY_HANDLER_NOT_SEEN: {
    status: 500,
    title: 'A success was answered, and the handler was not seen to run',
    detail:
      'Nothing was recorded, and in transaction mode everything was rolled back. On the server, something answered in place of ' +
      'the handler, or wraps it out of sight. Have an interceptor that answers by itself, such as a cache, or that turns ' +
      'errors before the handler into successes, leave this route out: replays are answered by the library.',
  },
} as const satisfies { [C in Exclude<IdempotencyErrorCode, OccasionalCode>]: CatalogueEntry<C> };

/** Codes whose errors tell something of the occasion, and are made by functions of their own. */
type OccasionalCode = KeyError['code'] | 'IDEMPOTENCY_OUTCOME_UNRESOLVED';
type CatalogueEntry<Code extends IdempotencyErrorCode> = Omit<IdempotencyError<Code>, 'code'>;

/** The error of a code, with its status and texts. */
export function idempotencyError<Code extends keyof typeof CATALOGUE>(
  code: Code,
  facts: { detail?: string; retryAfter?: number } = {},
): IdempotencyError<Code> {
  return { code, ...CATALOGUE[code], ...facts } as unknown as IdempotencyError<Code>;
}

/** An attempt in lease mode began, and nobody knows how it ended. */
export function outcomeUnresolved(attempt: number): IdempotencyError<'IDEMPOTENCY_OUTCOME_UNRESOLVED'> {
  return {
    code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED',
    status: 409,
    title: 'An earlier attempt has an unknown outcome',
    detail:
      `Attempt ${attempt} began and its outcome is not known: it may have taken effect. The request is not run again ` +
      'until the outcome is settled.',
    attempt,
  };
}

/** A key that breaks a rule. `detail` says which, and names the rule. */
export function keyError(
  code: KeyError['code'],
  detail: string,
  { source, minLength, maxLength }: Omit<KeyRefusal, 'status'>,
): KeyError {
  const title =
    code === 'IDEMPOTENCY_KEY_REQUIRED'
      ? 'An idempotency key is required'
      : 'The idempotency key is not acceptable';
  return { code, status: 400, title, detail, source, minLength, maxLength };
}

/** Carries an {@link IdempotencyError} through code that reports failure by throwing. */
export class IdempotencyFailure extends Error {
  override readonly name = 'IdempotencyFailure';

  constructor(
    readonly error: IdempotencyError,
    options?: ErrorOptions,
  ) {
    super(`${error.code}: ${error.title}. ${error.detail}`, options);
  }
}

/**
 * A mistake of the application, found at boot or inside a handler: the message names what is wrong and the remedy.
 * `code` is stable.
 */
export class IdempotencyUsageError extends Error {
  override readonly name = 'IdempotencyUsageError';

  constructor(
    readonly code: `IDEMPOTENCY_${string}`,
    message: string,
    options?: ErrorOptions,
  ) {
    super(`${code}: ${message}`, options);
  }
}
