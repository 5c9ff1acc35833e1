import { describe, expect, it } from '@jest/globals';
import { errorWithin } from '../../../lib/core/causes.js';
import { idempotencyError, keyError, outcomeUnresolved } from '../../../lib/core/errors.js';
import type { IdempotencyError, IdempotencyErrorCode } from '../../../lib/index.js';

const RULES = { source: { kind: 'body', name: 'key' }, minLength: 8, maxLength: 64 } as const;

/** Says of every error what only its own code can tell. It compiles only as long as no code is missing. */
function told(error: IdempotencyError): unknown {
  switch (error.code) {
    case 'IDEMPOTENCY_KEY_REQUIRED':
    case 'IDEMPOTENCY_KEY_TOO_SHORT':
    case 'IDEMPOTENCY_KEY_TOO_LONG':
    case 'IDEMPOTENCY_KEY_MALFORMED':
      return [error.source.kind, error.source.name, error.minLength, error.maxLength];
    case 'IDEMPOTENCY_OUTCOME_UNRESOLVED':
      return error.attempt;
    case 'IDEMPOTENCY_IN_PROGRESS':
    case 'IDEMPOTENCY_SHUTTING_DOWN':
    case 'IDEMPOTENCY_LEASE_LOST':
    case 'IDEMPOTENCY_STORE_UNAVAILABLE':
    case 'IDEMPOTENCY_TRANSACTION_CONFLICT':
    case 'IDEMPOTENCY_OUTCOME_UNKNOWN':
    case 'IDEMPOTENCY_MAX_DURATION_EXCEEDED':
    case 'IDEMPOTENCY_RECORD_UNREADABLE':
      return error.retryAfter.toFixed(0);
    case 'IDEMPOTENCY_KEY_REUSED':
      return error.status satisfies 422 | 409;
    case 'IDEMPOTENCY_CLIENT_UNRESOLVED':
      return error.status satisfies 401;
    case 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE':
      return error.status satisfies 415;
    case 'IDEMPOTENCY_RESPONSE_NOT_KEPT':
      return error.status satisfies 409;
    case 'IDEMPOTENCY_STORE_REFUSED':
    case 'IDEMPOTENCY_TRANSACTION_ABORTED':
    case 'IDEMPOTENCY_TRANSACTION_NOT_YOURS':
    case 'IDEMPOTENCY_COMMIT_REFUSED':
    case 'IDEMPOTENCY_RESPONSE_TOO_LARGE':
    case 'IDEMPOTENCY_RESPONSE_FAILED':
    case 'IDEMPOTENCY_RESPONSE_NOT_SENT':
    case 'IDEMPOTENCY_ENDPOINT_AMBIGUOUS':
    case 'IDEMPOTENCY_HANDLER_NOT_SEEN':
      return error.status satisfies 500;
    default:
      return error satisfies never;
  }
}

/** What the compiler must refuse, or the members would not be told apart. */
export function refused(error: IdempotencyError): unknown {
  // @ts-expect-error: it is not known yet whether there is a retry.
  const early: unknown = error.retryAfter;
  if (error.code === 'IDEMPOTENCY_KEY_REUSED') {
    // @ts-expect-error: an error that a retry does not mend has no such member.
    return [early, error.retryAfter];
  }
  if (error.code === 'IDEMPOTENCY_KEY_TOO_SHORT') {
    // @ts-expect-error: the key itself is in no error.
    return error.key;
  }
  // @ts-expect-error: codes are missing.
  return error satisfies never;
}

describe('errorWithin', () => {
  const isCoded = (error: object): error is { code: string } => 'code' in error;
  const found = { code: 'x' };

  it.each<[string, unknown, unknown]>([
    ['itself', found, found],
    ['the cause', new Error('a', { cause: found }), found],
    ['what a driver threw', Object.assign(new Error('a'), { driverError: found }), found],
    [
      'what is further within',
      new Error('a', {
        cause: Object.assign(new Error('b'), { driverError: new Error('c', { cause: found }) }),
      }),
      found,
    ],
    ['one of several', new AggregateError([new Error('a'), new Error('b', { cause: found })]), found],
    [
      'nothing where reading fails',
      Object.defineProperty(new Error('a'), 'cause', {
        get() {
          throw new Error('detached');
        },
      }),
      undefined,
    ],
    ['nothing in an error without one', new Error('a', { cause: 'text' }), undefined],
    ['nothing in what is no error', 'code', undefined],
    ['nothing in null', null, undefined],
  ])('finds %s', (_what, error, expected) => {
    expect(errorWithin(error, isCoded)).toBe(expected);
  });

  it('ends with errors that are made of each other', () => {
    const [one, other] = [new Error('one'), new Error('other')];
    one.cause = other;
    other.cause = one;
    expect(errorWithin(one, isCoded)).toBeUndefined();
  });
});

describe('an error', () => {
  it('has the members of its code, and no others', () => {
    expect(told(keyError('IDEMPOTENCY_KEY_TOO_SHORT', 'Too short.', RULES))).toEqual(['body', 'key', 8, 64]);
    expect(told(outcomeUnresolved(3))).toBe(3);
    expect(outcomeUnresolved(3).detail).toContain('Attempt 3 ');
    expect(told(idempotencyError('IDEMPOTENCY_IN_PROGRESS', { retryAfter: 7 }))).toBe('7');
    expect(idempotencyError('IDEMPOTENCY_KEY_REUSED')).not.toHaveProperty('retryAfter');
    expect(Object.keys(idempotencyError('IDEMPOTENCY_KEY_REUSED')).sort()).toEqual([
      'code',
      'detail',
      'status',
      'title',
    ]);
  });

  it('can be named by its code', () => {
    const one: IdempotencyError<'IDEMPOTENCY_OUTCOME_UNRESOLVED'> = outcomeUnresolved(1);
    const code: IdempotencyErrorCode = one.code;
    expect([code, one.status, one.attempt]).toEqual(['IDEMPOTENCY_OUTCOME_UNRESOLVED', 409, 1]);
  });
});
