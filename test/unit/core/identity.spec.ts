import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isStorableText, lockNumber, MAX_IDENTITY_BYTES } from '../../../lib/core/identity.js';

const IDENTITY = { client: 'client', endpoint: 'POST /orders', key: 'key' };

describe('lockNumber', () => {
  it('is a signed number of 64 bits, the same in every release and process', () => {
    expect(lockNumber('idempotency_records', IDENTITY)).toBe('4194338073918003597');
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (client, endpoint, key) => {
        const number = lockNumber('t', { client, endpoint, key });
        expect(number).toBe(BigInt.asIntN(64, BigInt(number)).toString());
      }),
    );
  });

  it('differs between tables, and between parts that are equal when glued together', () => {
    const numbers = [
      lockNumber('t', { client: 'a|b', endpoint: 'e', key: 'c' }),
      lockNumber('t', { client: 'a', endpoint: 'b|e', key: 'c' }),
      lockNumber('t', { client: 'a', endpoint: 'e', key: 'b|c' }),
      lockNumber('t', { client: 'ab', endpoint: 'e', key: 'c' }),
      lockNumber('t', { client: 'a', endpoint: 'be', key: 'c' }),
      lockNumber('t', { client: '', endpoint: 'abe', key: 'c' }),
      lockNumber('u', { client: 'ab', endpoint: 'e', key: 'c' }),
      lockNumber('ta', { client: 'b', endpoint: 'e', key: 'c' }),
    ];
    expect(new Set(numbers).size).toBe(numbers.length);
  });
});

describe('isStorableText', () => {
  it.each(['\0', 'a\0', '\ud800', 'a\udfffb', '\udf81\ud83c'])('refuses %j', (text) => {
    expect(isStorableText(text, 100)).toBe(false);
  });

  it.each(['', 'a', 'é', '🎁', '\u0001', '\ufffd'])('accepts %j', (text) => {
    expect(isStorableText(text, 100)).toBe(true);
  });

  it('counts bytes of UTF-8', () => {
    expect(isStorableText('🎁', 4)).toBe(true);
    expect(isStorableText('🎁', 3)).toBe(false);
  });

  it('accepts exactly what UTF-8 can carry without loss', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const isLossless = Buffer.from(text).toString() === text && !text.includes('\0');
        expect(isStorableText(text, 10_000)).toBe(isLossless);
      }),
    );
  });
});

describe('the parts of an identity together', () => {
  it('fit into an entry of a B-tree index', () => {
    const { client, endpoint, key } = MAX_IDENTITY_BYTES;
    const headers = 8 + 3 * 4;
    expect(client + endpoint + key + headers).toBeLessThan(2_704);
  });
});
