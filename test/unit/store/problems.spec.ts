import { describe, expect, it } from '@jest/globals';
import { HttpException } from '@nestjs/common';
import { IdempotencyUsageError, type IdempotencyFailure } from '../../../lib/core/errors.js';
import {
  AcquireTimeoutError,
  endsSession,
  failure,
  failureAtCommit,
  failureBeforeCommit,
  failureOfAborted,
  failureOfRecord,
  failureOfRefusedEnding,
  isAborted,
  isEndingRefused,
  isForgotten,
  mayBeStandby,
  passes,
  problemOf,
  serverErrorWithin,
} from '../../../lib/store/problems.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const REFUSED = 'IDEMPOTENCY_STORE_REFUSED';
const CONFLICT = 'IDEMPOTENCY_TRANSACTION_CONFLICT';
const ABORTED = 'IDEMPOTENCY_TRANSACTION_ABORTED';
const NOT_YOURS = 'IDEMPOTENCY_TRANSACTION_NOT_YOURS';
const COMMIT_REFUSED = 'IDEMPOTENCY_COMMIT_REFUSED';
const UNKNOWN = 'IDEMPOTENCY_OUTCOME_UNKNOWN';

const serverError = (code: string, facts: object = {}): Error =>
  Object.assign(new Error(code), { code, severity: 'ERROR', ...facts });
const codeOf = (made: IdempotencyFailure): string => made.error.code;

/** What a state means: in a statement of the library's own, in that which writes the record, and at COMMIT. */
type Meaning = readonly [before: string, record: string, commit: string, passes: boolean];
const PERMANENT: Meaning = [REFUSED, REFUSED, COMMIT_REFUSED, false];
const TEMPORARY: Meaning = [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, true];
const GAVE_WAY: Meaning = [CONFLICT, CONFLICT, CONFLICT, true];
const LOST: Meaning = [UNAVAILABLE, UNAVAILABLE, UNKNOWN, true];
const FORGOTTEN: Meaning = [UNAVAILABLE, UNAVAILABLE, COMMIT_REFUSED, true];
const ENDED: Meaning = [REFUSED, NOT_YOURS, COMMIT_REFUSED, false];
const COLLIDED: Meaning = [REFUSED, CONFLICT, COMMIT_REFUSED, false];

/** One of every class of PostgreSQL's, and each that is an exception in its own. */
const STATES: readonly [sqlState: string, meaning: Meaning][] = [
  ['01000', PERMANENT],
  ['02000', PERMANENT],
  ['03000', PERMANENT],
  ['08000', LOST],
  ['08003', LOST],
  ['08006', LOST],
  ['08P01', LOST],
  ['09000', PERMANENT],
  ['0A000', PERMANENT],
  ['0B000', PERMANENT],
  ['0F000', PERMANENT],
  ['0L000', PERMANENT],
  ['0P000', PERMANENT],
  ['0Z000', PERMANENT],
  ['10608', PERMANENT],
  ['20000', PERMANENT],
  ['21000', PERMANENT],
  ['22000', PERMANENT],
  ['22001', PERMANENT],
  ['22012', COLLIDED],
  ['22P02', ENDED],
  ['22P05', PERMANENT],
  ['23502', PERMANENT],
  ['23503', PERMANENT],
  ['23505', COLLIDED],
  ['23514', PERMANENT],
  ['24000', PERMANENT],
  ['25000', PERMANENT],
  ['25001', PERMANENT],
  ['25006', PERMANENT],
  ['25P01', ENDED],
  ['25P02', [ABORTED, ABORTED, ABORTED, false]],
  ['25P03', LOST],
  ['25P04', LOST],
  ['26000', FORGOTTEN],
  ['27000', PERMANENT],
  ['28000', PERMANENT],
  ['2B000', PERMANENT],
  ['2D000', PERMANENT],
  ['2F000', PERMANENT],
  ['34000', PERMANENT],
  ['38000', PERMANENT],
  ['39000', PERMANENT],
  ['3B000', PERMANENT],
  ['3B001', ENDED],
  ['3D000', PERMANENT],
  ['3F000', PERMANENT],
  ['40000', GAVE_WAY],
  ['40001', GAVE_WAY],
  ['40002', GAVE_WAY],
  ['40003', [CONFLICT, CONFLICT, UNKNOWN, true]],
  ['40P01', GAVE_WAY],
  ['42501', PERMANENT],
  ['42601', PERMANENT],
  ['42703', PERMANENT],
  ['42804', PERMANENT],
  ['42P01', PERMANENT],
  ['42P05', FORGOTTEN],
  ['44000', PERMANENT],
  ['53000', TEMPORARY],
  ['53100', TEMPORARY],
  ['53200', TEMPORARY],
  ['53300', TEMPORARY],
  ['53400', TEMPORARY],
  ['54000', PERMANENT],
  ['54001', PERMANENT],
  ['55000', PERMANENT],
  ['55006', PERMANENT],
  ['55P03', [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, false]],
  ['55P04', PERMANENT],
  ['57000', TEMPORARY],
  ['57014', TEMPORARY],
  ['57P01', LOST],
  ['57P02', LOST],
  ['57P03', LOST],
  ['57P04', LOST],
  ['57P05', LOST],
  ['58000', TEMPORARY],
  ['58030', TEMPORARY],
  ['58P01', PERMANENT],
  ['58P02', TEMPORARY],
  ['72000', PERMANENT],
  ['F0000', PERMANENT],
  ['HV000', PERMANENT],
  ['P0001', PERMANENT],
  ['P0004', PERMANENT],
  ['XX000', PERMANENT],
  ['XX001', PERMANENT],
];

const LOSSES: readonly [what: string, error: unknown][] = [
  ['an error of the socket', Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })],
  ['an error without a code', new Error('Connection terminated unexpectedly')],
  ['a code of five characters of something else', Object.assign(new Error('x'), { code: 'EPIPE' })],
  ['an AcquireTimeoutError', new AcquireTimeoutError(5)],
  ['nothing', undefined],
  ['null', null],
  ['text', '40001'],
  ['FATAL', serverError('42501', { severity: 'FATAL' })],
  ['PANIC', serverError('42501', { severity: 'PANIC' })],
  ['FATAL in another language', serverError('57P01', { severity: 'SCHWERWIEGEND' })],
];

describe('what PostgreSQL says', () => {
  it.each(STATES)('%s', (sqlState, [before, record, commit, isPassing]) => {
    const error = serverError(sqlState);
    const made = [failureBeforeCommit, failureOfRecord, failureAtCommit].map((make) => make(error));
    expect([...made.map(codeOf), passes(error)]).toEqual([before, record, commit, isPassing]);
    // What has to be done about it may stand in between.
    for (const { cause } of made) expect([cause, (cause as Error).cause]).toContain(error);
    const isLost = commit === UNKNOWN && sqlState !== '40003';
    expect(problemOf(error)).toEqual(isLost ? { kind: 'lost' } : { kind: 'refused', sqlState });
    expect(endsSession(new Error('of an ORM', { cause: error }))).toBe(isLost);
    expect(isForgotten(error)).toBe(sqlState === '26000' || sqlState === '42P05');
    expect(mayBeStandby(error)).toBe(sqlState === '25006' || sqlState === '0A000');
    expect(isAborted(serverErrorWithin(error))).toBe(sqlState === '25P02');
  });

  it.each(LOSSES)('or does not, and the connection is lost: %s', (_what, error) => {
    expect(problemOf(error)).toEqual({ kind: 'lost' });
    expect(
      [failureBeforeCommit, failureOfRecord, failureAtCommit].map((make) => codeOf(make(error))),
    ).toEqual([UNAVAILABLE, UNAVAILABLE, UNKNOWN]);
    expect([passes(error), isForgotten(error), mayBeStandby(error)]).toEqual([true, false, false]);
  });

  it('of a plan that it made of another table than there is now', () => {
    const changed = serverError('0A000', { routine: 'RevalidateCachedQuery', message: 'in any language' });
    expect([isForgotten(changed), passes(changed)]).toEqual([true, true]);
    expect([failureBeforeCommit, failureOfRecord].map((make) => codeOf(make(changed)))).toEqual([
      UNAVAILABLE,
      UNAVAILABLE,
    ]);
  });

  it('of a failure that was made of it is that failure', () => {
    const made = failure('IDEMPOTENCY_LEASE_LOST');
    expect(failureBeforeCommit(made)).toBe(made);
  });
});

describe('a transaction that was aborted', () => {
  const refused = serverError('25P02');

  it('fails by what aborted it', () => {
    const first = serverError('23514');
    for (const make of [failureBeforeCommit, failureOfRecord]) {
      const made = make(refused, first);
      expect([codeOf(made), made.cause]).toEqual([ABORTED, first]);
    }
  });

  it('fails by what is known where that is not', () => {
    expect(failureBeforeCommit(refused).cause).toBe(refused);
  });

  it.each(['40001', '40P01'])('may be tried again where that gave way: %s', (sqlState) => {
    const swallowed = new Error('of an ORM', { cause: serverError(sqlState) });
    expect(codeOf(failureOfAborted(swallowed))).toBe(CONFLICT);
    expect(codeOf(failureOfRecord(refused, swallowed))).toBe(CONFLICT);
  });

  it.each([undefined, new Error('no word of a server'), serverError('22012')])('by %p', (abortedBy) => {
    const made = failureOfAborted(abortedBy);
    expect([codeOf(made), made.cause]).toEqual([ABORTED, abortedBy]);
  });
});

describe('what a handler throws', () => {
  const found = serverError('40001');

  it.each<[string, unknown, unknown]>([
    ['itself', found, found],
    ['within an ORM’s', Object.assign(new Error('x'), { driverError: found }), found],
    ['an answer of the application’s', new HttpException('x', 409, { cause: found }), undefined],
    ['nothing', undefined, undefined],
    ['null', null, undefined],
    ['something else', new Error('x'), undefined],
  ])('has the server’s error in it: %s', (_what, thrown, expected) => {
    expect(serverErrorWithin(thrown)).toBe(expected);
    expect(endsSession(thrown)).toBe(false);
  });

  it('has in it that it tried to end its transaction', () => {
    const refusal = new IdempotencyUsageError(NOT_YOURS, 'x');
    const finished = new IdempotencyUsageError('IDEMPOTENCY_TRANSACTION_FINISHED', 'x');
    const answer = new HttpException('x', 409, { cause: refusal });
    const wrapped = new Error('of an ORM', { cause: refusal });
    expect([refusal, wrapped, finished, answer, undefined].map(isEndingRefused)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
    const made = failureOfRefusedEnding(wrapped);
    expect([codeOf(made), made.error.status, made.cause]).toEqual([NOT_YOURS, 500, wrapped]);
    expect(made.error.detail).toContain('everything was rolled back');
  });
});
