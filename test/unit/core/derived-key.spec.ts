import { describe, expect, it } from '@jest/globals';
import { derivedKey } from '../../../lib/core/derived-key.js';

const IDENTITY = { client: 'client', endpoint: 'POST /payments', key: 'key' };

describe('derivedKey', () => {
  it('stays what it is from release to release: outside services remember it', () => {
    expect(derivedKey(IDENTITY, 'charge')).toBe('Q7Fu2DsbzhFZbfef_IxUPxMB_ZxrGFD_49GEJgBhdYU');
  });

  it('is another for every name and every part of the identity', () => {
    const keys = [
      derivedKey(IDENTITY, 'charge'),
      derivedKey(IDENTITY, 'refund'),
      derivedKey(IDENTITY, ''),
      derivedKey({ ...IDENTITY, client: 'other' }, 'charge'),
      derivedKey({ ...IDENTITY, endpoint: 'other' }, 'charge'),
      derivedKey({ ...IDENTITY, key: 'other' }, 'charge'),
      // Equal only when glued together.
      derivedKey({ client: 'clientP', endpoint: 'OST /payments', key: 'key' }, 'charge'),
      derivedKey({ ...IDENTITY, key: 'keyc' }, 'harge'),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('is base64url of 256 bits and tells nothing of what it was made from', () => {
    const key = derivedKey(IDENTITY, 'charge');
    expect(key).toMatch(/^[\w-]{43}$/);
    for (const part of [...Object.values(IDENTITY), 'charge']) expect(key).not.toContain(part);
  });
});
