import { describe, expect, it } from '@jest/globals';
import type { Answer, Raw } from '../../../lib/store/batch.js';
import {
  claimFinding,
  guardOf,
  isTrue,
  lockedLook,
  optionalTimeOf,
  recordedFinding,
  replayFinding,
  responseOf,
  takeOverFinding,
  timeOf,
} from '../../../lib/store/rows.js';

/** 2026-01-21T10:30:00.123456Z */
const CREATED = '1768991400123456';
const CREATED_AT = new Date('2026-01-21T10:30:00.123Z');
const UNREADABLE = expect.objectContaining({
  error: expect.objectContaining({ code: 'IDEMPOTENCY_RECORD_UNREADABLE' }),
});
const UNAVAILABLE = expect.objectContaining({
  error: expect.objectContaining({ code: 'IDEMPOTENCY_STORE_UNAVAILABLE' }),
});

const answerOf = (...rows: Record<string, Raw>[]): Answer => ({
  command: 'SELECT',
  count: rows.length,
  rows,
});

/** The row of an identity whose answer is recorded. */
const ROW = {
  ...{ fingerprint: '0102', status: 'completed', mode: 'lease', format_version: '1', attempt: '2' },
  ...{ response_status: '201', response_headers: '[["x-one","1"],["x-gone",null]]', response_body: 'c3a4' },
  ...{ created_at: CREATED, live: 't', remaining: null },
};
const RECORDED = {
  kind: 'recorded',
  record: {
    ...{ status: 'completed', fingerprint: Buffer.of(1, 2), formatVersion: 1, createdAt: CREATED_AT },
    response: {
      status: 201,
      headers: [
        ['x-one', '1'],
        ['x-gone', null],
      ],
      body: Buffer.from('ä'),
    },
  },
};
const RUNNING = {
  ...ROW,
  status: 'processing',
  response_status: null,
  response_headers: null,
  response_body: null,
};
const LAPSED = { kind: 'lapsed', fingerprint: Buffer.of(1, 2), attempt: 2, createdAt: CREATED_AT };

/** Rows as both the look and the claim find them, and what they mean to whoever has the lock and to whoever has not. */
const FOUND: [string, Record<string, Raw>, free: object, taken: object][] = [
  ['a record', ROW, RECORDED, RECORDED],
  [
    'a record of a handler that threw',
    { ...ROW, status: 'failed' },
    { kind: 'recorded' },
    { kind: 'recorded' },
  ],
  ['an expired record', { ...ROW, live: 'f' }, { kind: 'expired' }, { kind: 'in-progress' }],
  ['an expired attempt', { ...RUNNING, live: 'f' }, { kind: 'expired' }, { kind: 'in-progress' }],
  ['an attempt without a lease', RUNNING, { kind: 'in-progress' }, { kind: 'in-progress' }],
  [
    'an attempt that holds its lease',
    { ...RUNNING, remaining: '1' },
    { kind: 'in-progress', remaining: 1 },
    { kind: 'in-progress', remaining: 1 },
  ],
  ['an attempt whose lease ends now', { ...RUNNING, remaining: '0' }, LAPSED, LAPSED],
  ['an attempt that has lapsed', { ...RUNNING, remaining: '-5' }, LAPSED, LAPSED],
];

/** What a newer release may have written. */
const NEWER: [string, Record<string, Raw>][] = [
  ['format', { format_version: '2' }],
  ['mode', { mode: 'other' }],
];

describe('values', () => {
  it('are text of one spelling', () => {
    expect(timeOf(CREATED)).toEqual(CREATED_AT);
    expect(timeOf('-1000')).toEqual(new Date(-1));
    expect([optionalTimeOf(null), optionalTimeOf(CREATED)]).toEqual([undefined, CREATED_AT]);
    expect(['t', 'f', null, undefined, 'true'].map(isTrue)).toEqual([true, false, false, false, false]);
  });

  it('of an answer may be missing', () => {
    const none = { response_status: null, response_headers: null, response_body: null };
    expect(responseOf(none)).toBeUndefined();
    expect(responseOf({ ...none, response_status: '204' })).toEqual({
      ...{ status: 204, headers: [], body: Buffer.alloc(0) },
    });
  });
});

describe('the answers of lock and look', () => {
  const guard = guardOf(answerOf({ free: 't', began: CREATED, role: 'r', login: 'l', pid: '7' }));
  const taken = { ...guard, free: false };

  it('are what the lock says', () => {
    expect(guard).toEqual({ free: true, began: CREATED, role: { role: 'r', login: 'l' }, pid: '7' });
    expect(guardOf(answerOf({ free: 'f' }))).toEqual({
      free: false,
      began: '',
      role: { role: '', login: '' },
      pid: '',
    });
  });

  it.each(FOUND)('mean: %s', (_what, row, free, notFree) => {
    expect(lockedLook(guard, answerOf(row))).toMatchObject(free);
    expect(lockedLook(taken, answerOf(row))).toMatchObject(notFree);
  });

  it('mean that nothing is there, or that somebody is at it', () => {
    expect(lockedLook(guard, answerOf())).toEqual({ kind: 'nothing', guard });
    expect(lockedLook(taken, answerOf())).toEqual({ kind: 'in-progress' });
  });

  it.each(NEWER)('mean that a newer release has another %s', (_what, columns) => {
    expect(() => lockedLook(guard, answerOf({ ...ROW, ...columns }))).toThrow(UNREADABLE);
    expect(() => lockedLook(guard, answerOf({ ...RUNNING, ...columns }))).toThrow(UNREADABLE);
    // What has expired is nobody's any more.
    expect(lockedLook(guard, answerOf({ ...ROW, ...columns, live: 'f' }))).toEqual({ kind: 'expired' });
  });

  it('may be none', () => {
    expect(() => guardOf(undefined)).toThrow(UNAVAILABLE);
    expect(() => guardOf(answerOf())).toThrow(UNAVAILABLE);
    expect(() => lockedLook(guard, undefined)).toThrow(UNAVAILABLE);
  });
});

describe('the answer to a claim', () => {
  const nothing = Object.fromEntries(Object.keys(ROW).map((name) => [name, null]));
  const claim = (free: string, row: Record<string, Raw>): object =>
    claimFinding(answerOf({ free, pid: '7', claimed_at: null, mine: null, ...row }));
  const claimed = (attempt: number): object => ({
    ...{ kind: 'claimed', createdAt: CREATED_AT, attempt, row: { kind: 'processing' } },
  });

  it.each(FOUND)('means: %s', (_what, row, free, notFree) => {
    for (const mine of ['f', null]) {
      expect(claim('t', { ...row, mine })).toMatchObject(free);
      expect(claim('f', { ...row, mine })).toMatchObject(notFree);
    }
  });

  it('means that it is claimed, or that a rival was there', () => {
    expect(claim('t', { ...nothing, claimed_at: CREATED })).toEqual(claimed(1));
    expect(claim('t', nothing)).toEqual({ kind: 'again' });
    expect(claim('f', nothing)).toEqual({ kind: 'in-progress' });
  });

  it('recognises its own, whose acknowledgement was lost, while it runs', () => {
    const mine = { ...RUNNING, remaining: '1', mine: 't' };
    expect([claim('t', mine), claim('f', mine)]).toEqual([claimed(2), claimed(2)]);
    expect(claim('t', { ...mine, remaining: '-1' })).toEqual(claimed(2));
    expect(claim('t', { ...mine, live: 'f' })).toEqual({ kind: 'expired' });
    expect(claim('t', { ...ROW, mine: 't' })).toEqual(RECORDED);
  });

  it.each(NEWER)('means that a newer release has another %s', (_what, columns) => {
    expect(() => claim('t', { ...ROW, ...columns })).toThrow(UNREADABLE);
  });

  it('may be none', () => {
    expect(() => claimFinding(undefined)).toThrow(UNAVAILABLE);
    expect(() => claimFinding(answerOf())).toThrow(UNAVAILABLE);
  });

  it('to a takeover means that it took place, or not', () => {
    expect(takeOverFinding(answerOf({ claimed_at: CREATED, attempt: '3' }))).toEqual(claimed(3));
    expect(takeOverFinding(answerOf())).toBeUndefined();
    expect(takeOverFinding(undefined)).toBeUndefined();
  });
});

describe('a look that claims nothing', () => {
  it.each(FOUND)('replays a record alone: %s', (_what, row, free) => {
    const found = replayFinding(row as never);
    if ('record' in free || (free as { kind: string }).kind === 'recorded') expect(found).toMatchObject(free);
    else expect(found).toBeUndefined();
  });

  it('finds nothing where nothing is', () => {
    expect(replayFinding(undefined)).toBeUndefined();
  });

  it.each(NEWER)('refuses what a newer release has written with another %s', (_what, columns) => {
    expect(() => replayFinding({ ...ROW, ...columns } as never)).toThrow(UNREADABLE);
    expect(() => recordedFinding({ ...ROW, ...columns } as never)).toThrow(UNREADABLE);
  });
});
