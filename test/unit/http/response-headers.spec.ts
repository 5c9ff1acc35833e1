import { describe, expect, it } from '@jest/globals';
import { ResponseHeaders, sharedName } from '../../../lib/http/response-headers.js';

const CREATED = new Date('2026-01-21T10:30:00.987Z');

function all(headers: ResponseHeaders): object {
  return { ...headers.ofKey('one'), ...headers.ofReplay(CREATED) };
}

describe('ResponseHeaders', () => {
  it('has names of its own', () => {
    const headers = new ResponseHeaders([undefined, {}]);
    expect(headers.ofKey('one')).toEqual({ 'idempotency-key': 'one' });
    expect(headers.ofKey(undefined)).toEqual({});
    expect(headers.ofOriginal(CREATED)).toEqual({ 'idempotency-created-at': '2026-01-21T10:30:00Z' });
    expect(headers.ofReplay(CREATED)).toEqual({
      'idempotency-created-at': '2026-01-21T10:30:00Z',
      'idempotency-replayed': 'true',
    });
    expect(headers.names).toEqual(['idempotency-key', 'idempotency-replayed', 'idempotency-created-at']);
  });

  it('lets the narrower layer win field by field', () => {
    const wider = { key: 'X-Key', replayed: 'X-Replayed' };
    const narrower = { key: undefined, replayed: false, createdAt: 'X-Created' } as const;
    const headers = new ResponseHeaders([wider, narrower]);
    expect(all(headers)).toEqual({ 'x-key': 'one', 'x-created': '2026-01-21T10:30:00Z' });
    expect(headers.names).toEqual(['x-key', 'x-created']);
  });

  it('is off as a whole, but for what a narrower layer names', () => {
    expect(all(new ResponseHeaders([{ key: 'X-Key' }, false]))).toEqual({});
    expect(all(new ResponseHeaders([false, {}]))).toEqual({});
    expect(all(new ResponseHeaders([false, { key: 'X-Key' }]))).toEqual({ 'x-key': 'one' });
  });
});

describe('sharedName', () => {
  it('does not count letter case', () => {
    expect(sharedName(['a', 'b', 'A'])).toBe('a');
    expect(sharedName(['a', 'b', 'c'])).toBeUndefined();
  });
});
