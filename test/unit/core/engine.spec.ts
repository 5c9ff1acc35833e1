import { describe, expect, it } from '@jest/globals';
import { disposition, type Disposition } from '../../../lib/core/disposition.js';
import { decide } from '../../../lib/core/engine.js';
import { idempotencyError, IdempotencyFailure } from '../../../lib/core/errors.js';
import { FORMAT_VERSION, type IdempotencyRecord } from '../../../lib/core/record.js';
import type { Claim, ClaimOutcome } from '../../../lib/core/store.js';

const FINGERPRINT = Buffer.from([1, 2, 3]);

const CLAIM: Claim = {
  identity: { client: 'c', endpoint: 'e', key: 'k' },
  fingerprint: FINGERPRINT,
  ttl: 1,
  maxDuration: 1,
  isolation: undefined,
  storesErrors: true,
};

const RECORD: IdempotencyRecord = {
  fingerprint: FINGERPRINT,
  status: 'completed',
  mode: 'transaction',
  formatVersion: FORMAT_VERSION,
  response: { status: 201, headers: [], body: Buffer.alloc(0) },
  createdAt: new Date(0),
};

const decideOn = (outcome: ClaimOutcome | Error): ReturnType<typeof decide> =>
  decide(
    { claim: () => (outcome instanceof Error ? Promise.reject(outcome) : Promise.resolve(outcome)) },
    CLAIM,
  );

const decideOnRecord = (facts: Partial<IdempotencyRecord>): ReturnType<typeof decide> =>
  decideOn({ kind: 'recorded', record: { ...RECORD, ...facts } });

const rejection = (code: string): unknown => ({ kind: 'reject', error: expect.objectContaining({ code }) });

describe('decide', () => {
  it('replays what was recorded for the same request', async () => {
    expect(await decideOnRecord({})).toEqual({ kind: 'replay', record: RECORD });
  });

  it('rejects another request under the same key', async () => {
    expect(await decideOnRecord({ fingerprint: Buffer.from([1, 2, 4]) })).toEqual(
      rejection('IDEMPOTENCY_KEY_REUSED'),
    );
  });

  it('rejects while the original is running', async () => {
    expect(await decideOn({ kind: 'in-progress' })).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
  });

  it.each<[string, Partial<IdempotencyRecord>]>([
    ['format', { formatVersion: FORMAT_VERSION + 1 }],
    ['fingerprint', { fingerprint: Buffer.from([2, 2, 3]) }],
    ['mode', { mode: 'lease' }],
  ])('neither replays nor refuses a record with a newer %s', async (_what, facts) => {
    expect(await decideOnRecord(facts)).toEqual(rejection('IDEMPOTENCY_RECORD_UNREADABLE'));
  });

  it('rejects with the failure of the store and its cause', async () => {
    const cause = new Error('connection refused');
    const failure = new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'), { cause });
    expect(await decideOn(failure)).toEqual({ kind: 'reject', error: failure.error, cause });
  });

  it('lets mistakes of its own through', async () => {
    await expect(decideOn(new TypeError('a bug'))).rejects.toThrow(TypeError);
  });
});

describe('disposition', () => {
  const all = { isStored: () => true };
  const none = { isStored: () => false };
  const release: Disposition = { kind: 'release' };

  it('records what the handler produced below 500', () => {
    expect(disposition('returned', 201, all)).toEqual({ kind: 'complete', handler: 'returned' });
    expect(disposition('threw', 499, all)).toEqual({ kind: 'complete', handler: 'threw' });
  });

  it.each([
    ['of a handler that was not entered', disposition('not-begun', 400, all)],
    ['that broke off', disposition('broken', 200, all)],
    ['of 500 that was returned', disposition('returned', 500, all)],
    ['of 503 that was thrown', disposition('threw', 503, all)],
    ['that the policy leaves out', disposition('returned', 201, none)],
  ])('releases a response %s', (_what, decided) => {
    expect(decided).toEqual(release);
  });
});
