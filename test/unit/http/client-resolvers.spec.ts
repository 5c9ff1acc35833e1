import { describe, expect, it } from '@jest/globals';
import { clientFromHeader, clientFromUser, sharedClient } from '../../../lib/http/client-resolvers.js';

describe('clientFromHeader', () => {
  const client = clientFromHeader('X-API-Key');

  it('gives the SHA-256 of the value, whatever the case of the name', () => {
    // As `printf secret | sha256sum` prints it: stored rows depend on it.
    const hash = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b';
    expect(client({ headers: { 'x-api-key': 'secret' } })).toBe(hash);
  });

  it('gives nothing for an absent, empty or repeated header', () => {
    expect(client({ headers: {} })).toBeUndefined();
    expect(client({ headers: { 'x-api-key': '' } })).toBeUndefined();
    expect(client({ headers: { 'x-api-key': ['a', 'b'] } })).toBeUndefined();
  });
});

describe('clientFromHeader with what clients renew', () => {
  it.each(['Authorization', 'authorization', 'Proxy-Authorization', 'Cookie'])('refuses %s', (name) => {
    const remedy =
      /^IDEMPOTENCY_OPTIONS_INVALID: clientFromHeader.*clientFromUser.*a function that hashes the key/;
    expect(() => clientFromHeader(name)).toThrow(remedy);
  });
});

describe('clientFromUser', () => {
  const client = clientFromUser((user: { id: number | bigint | string }) => user.id);

  it('gives the id as text', () => {
    expect([7, 7n, 'seven'].map((id) => client({ user: { id } }))).toEqual(['7', '7', 'seven']);
  });

  it('gives nothing without a user', () => {
    expect(client({})).toBeUndefined();
    expect(client({ user: null as never })).toBeUndefined();
  });

  it.each([undefined, null, '', NaN, Infinity, {}, [], true, Symbol('id')])(
    'gives nothing for an id that identifies nobody (%p)',
    (id) => {
      expect(client({ user: { id: id as never } })).toBeUndefined();
    },
  );

  it('takes an id of zero', () => {
    expect([0, 0n, '0'].map((id) => client({ user: { id } }))).toEqual(['0', '0', '0']);
  });
});

describe('sharedClient', () => {
  it('is the same for everybody', () => {
    expect(sharedClient('all')()).toBe('all');
  });
});
