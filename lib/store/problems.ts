import { errorWithin } from '../core/causes.js';
import { idempotencyError, IdempotencyFailure, IdempotencyUsageError } from '../core/errors.js';

/** A connection was not to be had in time. */
export class AcquireTimeoutError extends Error {
  override readonly name = 'AcquireTimeoutError';

  constructor(milliseconds: number) {
    super(`no connection of the pool became free within ${milliseconds} ms`);
  }
}

/** What PostgreSQL said, or that it could not be asked. */
export type DatabaseProblem =
  /** It reported an error and the session lives on. */
  | { readonly kind: 'refused'; readonly sqlState: string }
  /** The connection is gone, or the server ended the session. */
  | { readonly kind: 'lost' };

/** What an SQLSTATE of the library's own statements means. */
type Meaning =
  /** The transaction gave way to another and may be tried again. */
  | 'conflict'
  /** An earlier error aborted the transaction. */
  | 'aborted'
  /** It passes. */
  | 'temporary'
  /** It stays until somebody does something about it. */
  | 'permanent';

export const SERIALIZATION_FAILURE = '40001';
export const LOCK_NOT_AVAILABLE = '55P03';
const UNIQUE_VIOLATION = '23505';
const IN_FAILED_TRANSACTION = '25P02';
/** undefined_file: a file of the server's is missing, unlike all else of class 58. */
const UNDEFINED_FILE = '58P01';
/**
 * 22P02 invalid_text_representation is what a record's statement raises in another transaction than the claim's; 25P01
 * no_active_sql_transaction and 3B001 invalid_savepoint_specification are raised by what comes before it.
 */
const NOT_THE_TRANSACTION: readonly unknown[] = ['22P02', '25P01', '3B001'];
/** 22012 division_by_zero: what it raises where it wrote nothing. */
const NOTHING_WRITTEN = '22012';
/** 26000 invalid_sql_statement_name and 42P05 duplicate_prepared_statement. */
const isNameProblem = (sqlState: string): boolean => sqlState === '26000' || sqlState === '42P05';
const READ_ONLY = '25006';
const NOT_SUPPORTED = '0A000';

/** 08: the connection; 25P03 and 25P04: the session's own time limits; 57P: shutdown, administrators, dropped databases. */
const ENDS_SESSION = /^(?:08|25P0[34]$|57P)/;
/** Classes 53 insufficient resources, 57 operator intervention, 58 system error. */
const PASSES = /^5[378]/;

/** 40001 serialization_failure, 40P01 deadlock_detected, and whatever else makes a transaction give way. */
export const isConflict = (sqlState: string): boolean => sqlState.startsWith('40');

/** One rule for every statement of the library's own. */
function meaningOf(sqlState: string): Meaning {
  if (isConflict(sqlState)) return 'conflict';
  if (sqlState === IN_FAILED_TRANSACTION) return 'aborted';
  if (sqlState === UNDEFINED_FILE) return 'permanent';
  return PASSES.test(sqlState) || sqlState === LOCK_NOT_AVAILABLE ? 'temporary' : 'permanent';
}

interface ServerError {
  readonly code: string;
  readonly severity: string;
}

function isServerError(error: object): error is ServerError {
  const { code, severity } = error as Partial<ServerError>;
  return typeof code === 'string' && code.length === 5 && typeof severity === 'string';
}

/** Tells an error reported by the server, which leaves the session usable, from a lost connection. */
export function problemOf(error: unknown): DatabaseProblem {
  if (typeof error !== 'object' || error === null || !isServerError(error)) return { kind: 'lost' };
  // The severity comes in the server's language, in which not every word for FATAL is that.
  const isFatal = error.severity === 'FATAL' || error.severity === 'PANIC' || ENDS_SESSION.test(error.code);
  return isFatal ? { kind: 'lost' } : { kind: 'refused', sqlState: error.code };
}

/** The PostgreSQL error inside whatever an ORM wrapped around it, or undefined. */
export function serverErrorWithin(error: unknown): ServerError | undefined {
  return isOwnAnswer(error) ? undefined : errorWithin(error, isServerError);
}

/** What the application throws as an answer of its own is that, whatever it was made of. */
function isOwnAnswer(error: unknown): boolean {
  return typeof ((error ?? {}) as { getStatus?: unknown }).getStatus === 'function';
}

/** Whether a handler failed because it tried to end the transaction that it runs in. */
export function isEndingRefused(error: unknown): boolean {
  return !isOwnAnswer(error) && errorWithin(error, isNotYours) !== undefined;
}

function isNotYours(error: object): error is IdempotencyUsageError {
  return error instanceof IdempotencyUsageError && error.code === 'IDEMPOTENCY_TRANSACTION_NOT_YOURS';
}

/** The failure of such a handler: what it sent was not executed. */
export function failureOfRefusedEnding(cause: unknown): IdempotencyFailure {
  const detail =
    'A statement that ends the transaction was refused, and everything was rolled back. On the server, throw an error to ' +
    'roll back, and use `dataSource.transaction(...)` for a part that may fail.';
  return new IdempotencyFailure(idempotencyError('IDEMPOTENCY_TRANSACTION_NOT_YOURS', { detail }), { cause });
}

/** Whether the server ended the session with it, which may be heard before the connection is seen to break. */
export function endsSession(error: unknown): boolean {
  const serverError = serverErrorWithin(error);
  return serverError !== undefined && problemOf(serverError).kind === 'lost';
}

/** Whether it is what a transaction is told that goes on after an error. */
export function isAborted(error: ServerError | undefined): boolean {
  return error?.code === IN_FAILED_TRANSACTION;
}

/** Whether the same statement may succeed a moment later: not where a lock is in the way, which the claim answers for. */
export function passes(error: unknown): boolean {
  const problem = problemOf(error);
  if (problem.kind === 'lost' || isForgotten(error)) return true;
  const meaning = meaningOf(problem.sqlState);
  return meaning === 'conflict' || (meaning === 'temporary' && problem.sqlState !== LOCK_NOT_AVAILABLE);
}

/** 42501 insufficient_privilege: the session may have been left with another role than its own, which a new one has not. */
export function isForbidden(error: unknown): boolean {
  const problem = problemOf(error);
  return problem.kind === 'refused' && problem.sqlState === '42501';
}

/** Whether a primary that was demoted would refuse so what is written: in its words for a read-only transaction, or for BEGIN. */
export function mayBeStandby(error: unknown): boolean {
  const problem = problemOf(error);
  return problem.kind === 'refused' && (problem.sqlState === READ_ONLY || problem.sqlState === NOT_SUPPORTED);
}

/**
 * The failure of a claim, or of a statement of the library's own before COMMIT: nothing took effect. `abortedBy`: what the
 * application went on after, where it did.
 */
export function failureBeforeCommit(error: unknown, abortedBy?: unknown): IdempotencyFailure {
  if (error instanceof IdempotencyFailure) return error;
  const problem = problemOf(error);
  if (problem.kind === 'lost' || isForgotten(error)) return failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
  const meaning = meaningOf(problem.sqlState);
  if (meaning === 'aborted') return failureOfAborted(abortedBy ?? error);
  return failure(CODES[meaning], meaning === 'permanent' ? remedied(error, problem.sqlState) : error);
}

/** What has to be done about what stays, by SQLSTATE. */
const REMEDIES: Readonly<Record<string, string>> = {
  '42501':
    'the role may not work on the table of records: GRANT SELECT, INSERT, UPDATE, DELETE ON it, and USAGE ON its SCHEMA, TO the role',
  '42P01': 'the table of records is gone, or has another name: run the migrations, and start again',
  '42703': 'the table of records lacks a column: run the migrations, and start again',
  '25006':
    'the transaction is read-only: leave a handler that makes it so, or that runs on a replica, unprotected',
  '22P05':
    'the encoding of the database cannot hold the client, the endpoint or the key: use UTF8, or names of ASCII',
  '23514':
    'the table of records has no partition for this identity, or a check that the migrations do not make: add the one, drop the other',
};

/** The same error behind what is to be done about it. */
function remedied(error: unknown, sqlState: string): Error {
  const remedy =
    REMEDIES[sqlState] ?? 'the database refused a statement of the library: its own log says why';
  return new Error(remedy, { cause: error });
}

/** The failure of a transaction that the application went on with after that error. */
export function failureOfAborted(abortedBy: unknown): IdempotencyFailure {
  // What gave way to another transaction may be tried again, whatever the application made of it.
  const isSwallowedConflict = isConflict(serverErrorWithin(abortedBy)?.code ?? '');
  return failure(CODES[isSwallowedConflict ? 'conflict' : 'aborted'], abortedBy);
}

const CODES = {
  conflict: 'IDEMPOTENCY_TRANSACTION_CONFLICT',
  aborted: 'IDEMPOTENCY_TRANSACTION_ABORTED',
  temporary: 'IDEMPOTENCY_STORE_UNAVAILABLE',
  permanent: 'IDEMPOTENCY_STORE_REFUSED',
} as const;

/** The same for the statements that write a record, along with which COMMIT would have come. */
export function failureOfRecord(error: unknown, abortedBy?: unknown): IdempotencyFailure {
  const problem = problemOf(error);
  const sqlState = problem.kind === 'refused' ? problem.sqlState : undefined;
  // Somebody else's is there.
  if (sqlState === UNIQUE_VIOLATION || sqlState === NOTHING_WRITTEN) {
    return failure('IDEMPOTENCY_TRANSACTION_CONFLICT', error);
  }
  if (NOT_THE_TRANSACTION.includes(sqlState)) {
    const cause = new Error('the handler has ended its transaction by itself', { cause: error });
    return failure('IDEMPOTENCY_TRANSACTION_NOT_YOURS', cause);
  }
  return failureBeforeCommit(error, abortedBy);
}

/** Whether a statement failed because it is sent under a name, and would not have failed without. */
export function isForgotten(error: unknown): boolean {
  const problem = problemOf(error);
  if (problem.kind === 'lost') return false;
  // Somebody deallocated it, or a pooler gave the transaction a session that has it not.
  if (isNameProblem(problem.sqlState)) return true;
  // A migration changed the type of what it returns. The server tells that by the message alone, which may be in any
  // language, and by the function that it is from.
  const { routine } = error as { routine?: unknown };
  return problem.sqlState === NOT_SUPPORTED && routine === 'RevalidateCachedQuery';
}

/**
 * The failure of COMMIT itself. An error that the server reported means that it rolled back; a connection lost
 * meanwhile means that nobody knows.
 */
export function failureAtCommit(error: unknown): IdempotencyFailure {
  const problem = problemOf(error);
  // 40003 statement_completion_unknown.
  if (problem.kind === 'lost' || problem.sqlState === '40003')
    return failure('IDEMPOTENCY_OUTCOME_UNKNOWN', error);
  const meaning = meaningOf(problem.sqlState);
  return failure(meaning === 'permanent' ? 'IDEMPOTENCY_COMMIT_REFUSED' : CODES[meaning], error);
}

export function failure(code: Parameters<typeof idempotencyError>[0], cause?: unknown): IdempotencyFailure {
  return new IdempotencyFailure(idempotencyError(code), { cause });
}
