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

  it('merges what counts of a request field by field', () => {
    const layers = [{ body: 'raw' as const }, undefined, { exclude: ['meta.at'] }, { headers: ['X-Tenant'] }];
    const { fingerprint } = routeSettings(
      { client, fingerprint: { headers: ['X-Shop'], exclude: ['at'] } },
      layers.map((each) => ({ fingerprint: each })),
    );
    expect(fingerprint).toEqual({
      body: 'raw',
      exclusions: { members: new Map([['meta', new Map([['at', 'all']])]]), files: new Set(['meta.at']) },
      headers: ['x-tenant'],
    });
    expect(routeSettings({ client }, []).fingerprint).toEqual({
      body: 'parsed',
      exclusions: { members: undefined, files: new Set() },
      headers: [],
    });
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
