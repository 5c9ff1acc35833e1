import { describe, expect, it } from '@jest/globals';
import { disposition } from '../../../lib/core/disposition.js';
import { sharedClient } from '../../../lib/http/client-resolvers.js';
import { routeSettings } from '../../../lib/http/route-settings.js';

const client = sharedClient('tests');

describe('routeSettings', () => {
  it('merges the headers of module, controller and route field by field', () => {
    const { headers } = routeSettings(
      { client, response: { headers: { deny: ['x-secret'], allow: ['x-request-id'] }, maxSize: 10 } },
      [
        { response: { headers: { allow: ['x-trace-id'] } } },
        { response: { headers: { allow: undefined as never } } },
      ],
    );
    const recorded = ['x-secret', 'x-trace-id', 'x-request-id'].map((name) => headers.isRecorded(name));
    expect(recorded).toEqual([false, true, false]);
  });

  it.each([
    ['merges options', { exclude: ['a'] }, [{ compute: String }], { exclude: ['a'], compute: String }],
    ['keeps raw where nothing else is said', 'raw' as const, [undefined], 'raw'],
    ['has raw replace options', { exclude: ['a'] }, ['raw' as const], 'raw'],
    ['has options replace raw', 'raw' as const, [{ exclude: ['a'] }], { exclude: ['a'] }],
    [
      'has raw forget wider options',
      { exclude: ['a'] },
      ['raw' as const, { compute: String }],
      { compute: String },
    ],
  ])('%s of the fingerprint', (_what, module, overrides, expected) => {
    const settings = routeSettings(
      { client, fingerprint: module },
      overrides.map((fingerprint) => ({ fingerprint })),
    );
    expect(settings.fingerprint).toEqual(expected);
  });

  describe('records what a handler threw', () => {
    const ofThrown = (
      statuses: number[] | undefined,
      mode: 'transaction' | 'lease',
      status: number,
    ): string =>
      disposition('threw', status, routeSettings({ client, mode, response: { statuses } }, []).storage).kind;

    it.each([
      ['by default', undefined, 200],
      ['where a list names statuses of errors', [200, 402], 200],
    ])('%s, whatever status a filter made of it', (_when, statuses, status) => {
      expect(ofThrown(statuses, 'transaction', status)).toBe('complete');
    });

    it('in lease mode, where no writes have to be undone', () => {
      expect(ofThrown([200], 'lease', 200)).toBe('complete');
    });

    it('but not where the list names no error, for there is no savepoint to go back to', () => {
      expect(ofThrown([200], 'transaction', 200)).toBe('give-up');
    });
  });
});
