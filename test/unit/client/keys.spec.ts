import { webcrypto } from 'node:crypto';
import { afterEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  bodyFingerprintKey,
  derivedKey,
  faultOfKey,
  randomKey,
  type KeyInput,
} from '../../../lib/client/keys.js';

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const platform = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!;

afterEach(() => {
  Object.defineProperty(globalThis, 'crypto', platform);
});

/** Web Crypto as browsers have it on http:. */
function withoutSecureContext(): void {
  const insecure = { getRandomValues: webcrypto.getRandomValues.bind(webcrypto) };
  Object.defineProperty(globalThis, 'crypto', { configurable: true, value: insecure });
}

describe('randomKey', () => {
  it('is a UUID of version 7, another one for each call', async () => {
    const strategy = randomKey();
    const keys = await Promise.all(Array.from({ length: 1_000 }, async () => strategy({})));
    for (const key of keys) expect(key).toMatch(UUID_V7);
    expect(new Set(keys).size).toBe(1_000);
    // Each of the four variants that the standard allows, and of the random digits.
    expect(new Set(keys.map((key) => key[19]))).toEqual(new Set(['8', '9', 'a', 'b']));
    for (const place of [15, 16, 17, 20, 35]) {
      expect(new Set(keys.map((key) => key[place])).size).toBe(16);
    }
  });

  it('begins with the time', async () => {
    const [before, key, after] = [Date.now(), await randomKey()({}), Date.now()];
    const time = parseInt(key.replaceAll('-', '').slice(0, 12), 16);
    expect(time).toBeGreaterThanOrEqual(before);
    expect(time).toBeLessThanOrEqual(after);
  });

  it('is one also where a browser has little of Web Crypto', async () => {
    withoutSecureContext();
    expect(crypto.randomUUID).toBeUndefined();
    expect(await randomKey()({})).toMatch(UUID_V7);
  });
});

describe('derivedKey', () => {
  const keyOf = (...parts: (string | number | bigint | null | undefined)[]): string =>
    derivedKey<unknown>(() => parts)({});

  it('joins its parts', () => {
    expect(keyOf('submission', 'form42', 7, 9n)).toBe('submission_form42_7_9');
  });

  it('hands on its input', () => {
    const strategy = derivedKey(({ id }: { id: number }) => ['order', id]);
    expect(strategy({ id: 7 })).toBe('order_7');
  });

  it('is different for different parts', () => {
    // Few characters, so that parts which would collide without encoding do come up.
    const part = fc.string({ minLength: 1, unit: fc.constantFrom('a', '_', '%', '5', 'F', 'ü', ' ', '"') });
    const parts = fc.array(part, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(parts, parts, (one, other) => {
        expect(keyOf(...one) === keyOf(...other)).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
      { numRuns: 1_000 },
    );
    expect(keyOf('a_b')).not.toBe(keyOf('a', 'b'));
    expect(keyOf('a%5Fb')).not.toBe(keyOf('a_b'));
  });

  it('is made of characters that a key may have', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'grapheme' }), (part) => {
        expect(keyOf(part)).toMatch(/^[A-Za-z0-9\-.!~*'()%]+$/);
      }),
    );
  });

  it.each([
    [[undefined], 1],
    [['a', null], 2],
    [['a', ''], 2],
    [['a', 'b', undefined, 'd'], 3],
    [['a', Number('inv_88')], 2],
    [[Infinity], 1],
    [['a', { id: 7 } as unknown as string], 2],
  ])('refuses %j: part %d is missing', (parts, position) => {
    expect(() => keyOf(...parts)).toThrow(`part ${position} of the derived key is missing`);
  });

  it('refuses no parts at all', () => {
    expect(() => keyOf()).toThrow('the derived key has no parts');
  });

  it.each([0, 0n, '0', 'false'])('does not take %p for missing', (part) => {
    expect(keyOf(part)).toBe(String(part));
  });
});

describe('bodyFingerprintKey', () => {
  const JSON_TYPE = 'application/json';

  const fingerprint = async (
    body: string | Uint8Array | undefined,
    request: Partial<KeyInput['request']> = {},
  ): Promise<string> => {
    const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
    const url = 'https://api.example.com/charges';
    return bodyFingerprintKey()({
      params: {},
      query: {},
      body: undefined,
      request: { method: 'POST', url, contentType: JSON_TYPE, bytes, ...request },
    });
  };

  it('is a SHA-256 in hexadecimal digits', async () => {
    expect(await fingerprint('{}')).toMatch(/^[0-9a-f]{64}$/);
  });

  it('does not change from one release to the next', async () => {
    // A key outlives the process that chose it, and may be computed again by a newer release.
    expect(await fingerprint('{"ref":"inv_88","amount":4200}')).toBe(
      // printf 'POST https://api.example.com/charges\napplication/json\n{"amount":4200,"ref":"inv_88"}' | sha256sum
      '755efe13563802d6ff461058ec791aa8d643e9bfed1dc8ab0e05e4815c463142',
    );
  });

  it('does not depend on the order of properties, at any depth', async () => {
    const value = fc.jsonValue({ maxDepth: 4 });
    await fc.assert(
      fc.asyncProperty(value, async (body) => {
        expect(await fingerprint(JSON.stringify(reversed(body)))).toBe(
          await fingerprint(JSON.stringify(body)),
        );
      }),
    );
  });

  it('is different for different bodies', async () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    await fc.assert(
      fc.asyncProperty(value, value, async (one, other) => {
        const [first, second] = [
          await fingerprint(JSON.stringify(one)),
          await fingerprint(JSON.stringify(other)),
        ];
        expect(first === second).toBe(sorted(one) === sorted(other));
      }),
    );
    expect(await fingerprint('[1,2]')).not.toBe(await fingerprint('[2,1]'));
    expect(await fingerprint('{"a":1}')).not.toBe(await fingerprint('{"a":"1"}'));
    expect(await fingerprint('{"a":{"b":1},"c":2}')).not.toBe(await fingerprint('{"a":{"b":1,"c":2}}'));
    expect(await fingerprint('{"__proto__":{"a":1}}')).not.toBe(await fingerprint('{}'));
  });

  it('is different for another method, address or media type', async () => {
    const keys = await Promise.all([
      fingerprint('{}'),
      fingerprint('{}', { method: 'PUT' }),
      fingerprint('{}', { url: 'https://api.example.com/charges?a=1' }),
      fingerprint('{}', { url: 'https://api.example.org/charges' }),
      fingerprint('{}', { contentType: 'text/plain' }),
      fingerprint(undefined, { contentType: undefined }),
    ]);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('takes other bodies byte by byte', async () => {
    const contentType = 'application/octet-stream';
    const one = await fingerprint(Uint8Array.of(1, 2), { contentType });
    expect(await fingerprint(Uint8Array.of(1, 2), { contentType })).toBe(one);
    expect(await fingerprint(Uint8Array.of(2, 1), { contentType })).not.toBe(one);
    expect(await fingerprint('{"a":1,"b":2}', { contentType })).not.toBe(
      await fingerprint('{"b":2,"a":1}', { contentType }),
    );
  });

  it('refuses a form: its boundary is random, and so would be the key', async () => {
    const contentType = 'multipart/form-data; boundary=abc';
    await expect(fingerprint('--abc--', { contentType })).rejects.toThrow('boundary');
  });

  it('says what is missing in a browser on http:', async () => {
    withoutSecureContext();
    await expect(fingerprint('{}')).rejects.toThrow('secure context');
  });
});

describe('faultOfKey', () => {
  const rules = { minLength: 4, maxLength: 8, pattern: /^[a-z]+$/ };

  it.each([
    ['abcd', undefined],
    ['abcdefgh', undefined],
    ['', 'is empty'],
    ['abc', 'has 3 characters, the least is 4'],
    ['abcdefghi', 'has 9 characters, the most is 8'],
    ['ABCD', 'does not match /^[a-z]+$/'],
    [undefined, 'is not a string'],
    [null, 'is not a string'],
    [1234, 'is not a string'],
    [['abcd'], 'is not a string'],
  ])('finds of %j: %s', (key, fault) => {
    expect(faultOfKey(key, rules)).toBe(fault);
  });

  it('calls an empty key empty also where the rules would take it', () => {
    expect(faultOfKey('', { minLength: 1, maxLength: 8, pattern: /^/ })).toBe('is empty');
  });
});

/** The same value with its members in another order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).reverse();
  return Object.fromEntries(members.map(([name, member]) => [name, reversed(member)]));
}

/** What two values have in common if they are equal as JSON. */
function sorted(value: unknown): string {
  return JSON.stringify(JSON.parse(JSON.stringify(value)), (_, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? ['object', Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1))]
      : Array.isArray(member)
        ? ['array', member.length, ...(member as unknown[])]
        : member,
  );
}
