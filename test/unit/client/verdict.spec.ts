import { describe, expect, it } from '@jest/globals';
import type { Effect } from '../../../lib/client/errors.js';
import type { HttpMethod } from '../../../lib/client/method.js';
import type { Reading } from '../../../lib/client/reading.js';
import { settingsOf, type Settings } from '../../../lib/client/settings.js';
import { effectAfter, judge, type ReadAttempt } from '../../../lib/client/verdict.js';

const IN_PROGRESS = 'IDEMPOTENCY_IN_PROGRESS';
const KEY_REUSED = 'IDEMPOTENCY_KEY_REUSED';

function settings(method: HttpMethod = 'POST', idempotency: object | false = {}): Settings {
  return settingsOf({
    method,
    baseUrl: 'https://api.example.com',
    path: '/charges',
    retry: { on: [408, 429, 500, 502, 503], unsafe: true },
    ...(idempotency !== false && method !== 'GET' && { idempotency }),
  });
}

function answer(status: number, reading: Partial<Reading> = {}): ReadAttempt {
  const empty = { headers: new Headers(), body: undefined, fault: undefined, createdAt: undefined };
  return { kind: 'answer', reading: { status, ...empty, replayed: false, codes: [], ...reading } };
}

function networkFailed(...codes: string[]): ReadAttempt {
  const cause = codes.reduceRight<Error | undefined>(
    (inner, code) => Object.assign(new Error('failed', { cause: inner }), { code }),
    undefined,
  );
  return { kind: 'network-failed', cause };
}

const TIMED_OUT: ReadAttempt = { kind: 'timed-out' };
const ABORTED: ReadAttempt = { kind: 'aborted' };

describe('judge', () => {
  it.each([
    ['200', answer(200), 'success'],
    ['201', answer(201), 'success'],
    ['204', answer(204), 'success'],
    ['299', answer(299), 'success'],
    ['200, replayed', answer(200, { replayed: true }), 'success'],
    ['304', answer(304), 'final'],
    ['400', answer(400), 'final'],
    ['401', answer(401), 'final'],
    ['409', answer(409), 'final'],
    ['409 of another kind', answer(409, { codes: ['VERSION_CONFLICT'] }), 'final'],
    ['409 in progress', answer(409, { codes: [IN_PROGRESS] }), 'wait'],
    ['409 in progress among others', answer(409, { codes: ['A', IN_PROGRESS] }), 'wait'],
    ['422 key reused', answer(422, { codes: [KEY_REUSED] }), 'final'],
    ['422', answer(422), 'final'],
    ['a status in retry.on', answer(503), 'retry'],
    ['the same, replayed', answer(503, { replayed: true }), 'final'],
    ['a status that is not in retry.on', answer(504), 'final'],
    ['a network failure', networkFailed(), 'retry'],
    ['a time-out', TIMED_OUT, 'retry'],
    ['the caller', ABORTED, 'final'],
  ])('%s', (_, attempt, kind) => {
    expect(judge(attempt, settings()).kind).toBe(kind);
  });

  it.each([
    ['retry', answer(503, { headers: new Headers({ 'retry-after': '7' }) })],
    ['wait', answer(409, { codes: [IN_PROGRESS], headers: new Headers({ 'retry-after': '7' }) })],
  ])('hands on what the server asks for, to %s', (kind, attempt) => {
    expect(judge(attempt, settings())).toEqual({ kind, retryAfter: 7_000 });
  });

  it('waits for nobody without a key of its own', () => {
    expect(judge(answer(409, { codes: [IN_PROGRESS] }), settings('POST', false)).kind).toBe('final');
  });

  it('knows the server by its own code', () => {
    const own = settings('POST', { codes: { inProgress: 'E_BUSY' } });
    expect(judge(answer(409, { codes: ['E_BUSY'] }), own).kind).toBe('wait');
    expect(judge(answer(409, { codes: [IN_PROGRESS] }), own).kind).toBe('final');
  });
});

describe('effectAfter', () => {
  const rows: [string, ReadAttempt, Record<'none' | 'unknown', Effect>][] = [
    ['200', answer(200), { none: 'done', unknown: 'done' }],
    ['204', answer(204), { none: 'done', unknown: 'done' }],
    ['302', answer(302), { none: 'unknown', unknown: 'unknown' }],
    ['303', answer(303), { none: 'unknown', unknown: 'unknown' }],
    ['a redirection in a browser', answer(0), { none: 'unknown', unknown: 'unknown' }],
    ['400', answer(400), { none: 'none', unknown: 'unknown' }],
    ['401', answer(401), { none: 'none', unknown: 'unknown' }],
    ['408', answer(408), { none: 'unknown', unknown: 'unknown' }],
    ['409', answer(409), { none: 'none', unknown: 'unknown' }],
    ['409 in progress', answer(409, { codes: [IN_PROGRESS] }), { none: 'unknown', unknown: 'unknown' }],
    ['422', answer(422), { none: 'none', unknown: 'unknown' }],
    ['422 key reused', answer(422, { codes: [KEY_REUSED] }), { none: 'none', unknown: 'none' }],
    ['429', answer(429), { none: 'none', unknown: 'unknown' }],
    ['500', answer(500), { none: 'unknown', unknown: 'unknown' }],
    ['503', answer(503), { none: 'unknown', unknown: 'unknown' }],
    ['a replayed 402', answer(402, { replayed: true }), { none: 'none', unknown: 'none' }],
    ['a recorded 402', answer(402, { createdAt: new Date(0) }), { none: 'none', unknown: 'none' }],
    ['a recorded 303', answer(303, { createdAt: new Date(0) }), { none: 'unknown', unknown: 'unknown' }],
    ['a replayed 500', answer(500, { replayed: true }), { none: 'unknown', unknown: 'unknown' }],
    [
      'an unresolved outcome',
      answer(409, { codes: ['IDEMPOTENCY_OUTCOME_UNRESOLVED'], createdAt: new Date(0), replayed: true }),
      { none: 'unknown', unknown: 'unknown' },
    ],
    [
      'an answer that was not kept',
      answer(409, { codes: ['IDEMPOTENCY_RESPONSE_NOT_KEPT'] }),
      { none: 'done', unknown: 'done' },
    ],
    ['a time-out', TIMED_OUT, { none: 'unknown', unknown: 'unknown' }],
    ['the caller', ABORTED, { none: 'unknown', unknown: 'unknown' }],
    ['a reset connection', networkFailed('', 'ECONNRESET'), { none: 'unknown', unknown: 'unknown' }],
    ['a broken pipe', networkFailed('EPIPE'), { none: 'unknown', unknown: 'unknown' }],
    ['a refused connection', networkFailed('', 'ECONNREFUSED'), { none: 'none', unknown: 'unknown' }],
    ['an unknown host', networkFailed('', '', 'ENOTFOUND'), { none: 'none', unknown: 'unknown' }],
    ['a resolver that fails', networkFailed('EAI_AGAIN'), { none: 'none', unknown: 'unknown' }],
    ['a failure of a browser', networkFailed(), { none: 'unknown', unknown: 'unknown' }],
  ];

  it.each(
    rows.flatMap(([name, attempt, effects]) =>
      (['none', 'unknown'] as const).map((before) => [name, before, effects[before], attempt] as const),
    ),
  )('%s, after %s: %s', (_, before, expected, attempt) => {
    expect(effectAfter(before, attempt, settings())).toBe(expected);
  });

  it.each(rows)('%s: a call that only reads has none', (_, attempt) => {
    expect(effectAfter('none', attempt, settings('GET'))).toBe('none');
  });

  it('comes to an end where an error is its own cause', () => {
    const cause: Error = new Error('failed');
    cause.cause = cause;
    expect(effectAfter('none', { kind: 'network-failed', cause }, settings())).toBe('unknown');
  });

  it('is not fooled by codes of idempotency where the call has no key', () => {
    const without = settings('POST', false);
    expect(effectAfter('unknown', answer(422, { codes: [KEY_REUSED] }), without)).toBe('unknown');
    expect(effectAfter('none', answer(409, { codes: [IN_PROGRESS] }), without)).toBe('none');
  });
});
