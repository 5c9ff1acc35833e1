import { errorWithin, idempotencyError, IdempotencyFailure } from '../core/errors.js';

/** What PostgreSQL said, or that it could not be asked. */
export type DatabaseProblem =
  /** It reported an error and the session lives on. */
  | { readonly kind: 'refused'; readonly sqlState: string }
  /** The connection is gone, or the server ended the session. */
  | { readonly kind: 'lost' };

export const SERIALIZATION_FAILURE = '40001';
/** 40001 serialization_failure and 40P01 deadlock_detected: the transaction gave way and may be tried again. */
export const isConflict = (sqlState: string): boolean =>
  sqlState === SERIALIZATION_FAILURE || sqlState === '40P01';
export const LOCK_NOT_AVAILABLE = '55P03';
const UNIQUE_VIOLATION = '23505';
const IN_FAILED_TRANSACTION = '25P02';
/** 22P02 invalid_text_representation. */
const INVALID_TEXT = '22P02';
/** 26000 invalid_sql_statement_name and 42P05 duplicate_prepared_statement. */
const isNameProblem = (sqlState: string): boolean => sqlState === '26000' || sqlState === '42P05';
const NOT_SUPPORTED = '0A000';

interface ServerError {
  readonly code: string;
  readonly severity: string;
}

function isServerError(error: object): error is ServerError {
  const { code, severity } = error as Partial<ServerError>;
  return typeof code === 'string' && code.length === 5 && typeof severity === 'string';
}

/** Whether a record could not be written because somebody else's is there. */
export function isRecordThere(error: unknown): boolean {
  const problem = problemOf(error);
  return problem.kind === 'refused' && problem.sqlState === UNIQUE_VIOLATION;
}

/** Whether it is the error that the completion of a record raises which is not there any more. */
export function isRecordGone(error: unknown): boolean {
  const problem = problemOf(error);
  return problem.kind === 'refused' && problem.sqlState === INVALID_TEXT;
}

/** Tells an error reported by the server, which leaves the session usable, from a lost connection. */
export function problemOf(error: unknown): DatabaseProblem {
  if (
    typeof error !== 'object' ||
    error === null ||
    !isServerError(error) ||
    error.severity === 'FATAL' ||
    error.severity === 'PANIC'
  )
    return { kind: 'lost' };
  return { kind: 'refused', sqlState: error.code };
}

/** The PostgreSQL error inside whatever an ORM wrapped around it, or undefined. */
export function serverErrorWithin(error: unknown): ServerError | undefined {
  // What the application throws as an answer of its own is that, whatever it was made of.
  const { getStatus } = (error ?? {}) as { getStatus?: unknown };
  return typeof getStatus === 'function' ? undefined : errorWithin(error, isServerError);
}

/** Whether the server ended the session with it, which may be heard before the connection is seen to break. */
export function endsSession(error: unknown): boolean {
  const serverError = serverErrorWithin(error);
  return serverError !== undefined && problemOf(serverError).kind === 'lost';
}

/** The failure of a claim, or of a statement before COMMIT: nothing took effect. */
export function failureBeforeCommit(error: unknown): IdempotencyFailure {
  const problem = problemOf(error);
  if (problem.kind === 'refused') {
    if (isConflict(problem.sqlState)) return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
    if (problem.sqlState === IN_FAILED_TRANSACTION) return failure('IDEMPOTENCY_TRANSACTION_ABORTED', error);
  }
  return failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
}

/**
 * The failure of a statement that failed because it is sent under a name, and would not have failed without; undefined for any
 * other error.
 */
export function failureOfPrepared(error: unknown): IdempotencyFailure | undefined {
  const problem = problemOf(error);
  if (problem.kind === 'lost') return undefined;
  // Somebody deallocated it, or a pooler gave the transaction a session that has it not.
  if (isNameProblem(problem.sqlState)) return failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
  // A migration changed the type of what it returns. The server tells that by the message alone, which may be in any
  // language, and by the function that it is from.
  const { routine } = error as { routine?: unknown };
  return problem.sqlState === NOT_SUPPORTED && routine === 'RevalidateCachedQuery'
    ? failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error)
    : undefined;
}

/**
 * The failure of COMMIT itself. An error that the server reported means that it rolled back; a connection lost
 * meanwhile means that nobody knows.
 */
export function failureAtCommit(error: unknown): IdempotencyFailure {
  const problem = problemOf(error);
  if (problem.kind === 'lost') return failure('IDEMPOTENCY_OUTCOME_UNKNOWN', error);
  if (isConflict(problem.sqlState)) return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
  return isTemporary(problem.sqlState)
    ? failure('IDEMPOTENCY_STORE_UNAVAILABLE', error)
    : failure('IDEMPOTENCY_COMMIT_REFUSED', error);
}

/** Classes 53 insufficient resources, 55 object not in prerequisite state, 57 operator intervention, 58 system error. */
const isTemporary = (sqlState: string): boolean => /^5[3578]/.test(sqlState);

export function failure(code: Parameters<typeof idempotencyError>[0], cause?: unknown): IdempotencyFailure {
  return new IdempotencyFailure(idempotencyError(code), { cause });
}
