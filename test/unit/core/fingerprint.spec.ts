import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { excludedMembers, NotCanonicalError } from '../../../lib/core/canonical.js';
import {
  fingerprint,
  FINGERPRINT_VERSION,
  type FingerprintBody,
  type FileDigest,
  type FingerprintInput,
} from '../../../lib/core/fingerprint.js';

const REQUEST: FingerprintInput = {
  method: 'POST',
  path: '/orders',
  query: '',
  mediaType: 'application/json',
  body: { kind: 'parsed', value: { item: 'book', meta: { attempt: 1, tags: ['a'] } } },
};

function hexOf(input: Partial<FingerprintInput>, exclude: readonly string[] = []): string {
  const exclusions = { members: excludedMembers(exclude), files: new Set(exclude) };
  return fingerprint({ ...REQUEST, ...input }, exclusions).toString('hex');
}

const parsed = (value: unknown): Partial<FingerprintInput> => ({ body: { kind: 'parsed', value } });

describe('fingerprint', () => {
  it('stays what it is: rows written by an earlier release have it', () => {
    expect(hexOf({})).toBe('01fab7ac0149c1e8d563428301fc572305556e5029809c0dae371373d3f73e5dc0');
  });

  it.each<[FingerprintBody, string]>([
    [{ kind: 'empty' }, '5:empty0:'],
    [{ kind: 'parsed', value: { b: 1, a: ['ü'] } }, '6:parsed18:{"a":["ü"],"b":1}'],
    [{ kind: 'text', text: 'a"b' }, '4:text6:"a\\"b"'],
    [{ kind: 'bytes', bytes: Buffer.from('ab') }, '5:bytes2:ab'],
    [{ kind: 'custom', value: 'ü' }, '6:custom2:ü'],
  ])('is the hash of its parts, each with its length in bytes: %j', (body, hashed) => {
    const hash = createHash('sha256').update(`4:POST7:/orders0:16:application/json${hashed}`);
    expect(hexOf({ body })).toBe(`01${hash.digest('hex')}`);
    expect(fingerprint({ ...REQUEST, body }).toString('hex')).toBe(hexOf({ body }));
  });

  it('lets the failure of a body that cannot be read through', () => {
    const body = {
      get broken(): never {
        throw new RangeError('the getter failed');
      },
    };
    expect(() => hexOf(parsed(body))).toThrow('the getter failed');
  });

  it('begins with its version', () => {
    const print = fingerprint(REQUEST);
    expect(print).toHaveLength(33);
    expect(print[0]).toBe(FINGERPRINT_VERSION);
  });

  it('depends on every part', () => {
    const others: Partial<FingerprintInput>[] = [
      {},
      { method: 'PUT' },
      { path: '/orders/' },
      { query: 'a=1' },
      { mediaType: 'application/vnd.api+json' },
      { body: { kind: 'empty' } },
      parsed({ item: 'book' }),
      { host: '' },
      { host: 'a.example.com' },
      { version: '' },
      { version: 'a.example.com' },
      { headers: [['x-tenant']] },
      { headers: [['x-tenant', '']] },
      { headers: [['x-tenant', 'a']] },
      { headers: [['x-tenant', 'a', 'b']] },
      { headers: [['x-tenant', 'a'], ['b']] },
      { headers: [['host', 'a.example.com']] },
      { host: 'a.example.com', version: 'a.example.com' },
    ];
    expect(new Set(others.map((other) => hexOf(other))).size).toBe(others.length);
  });

  it('does not depend on where one part ends and the next begins', () => {
    const part = fc.string({ maxLength: 4 });
    fc.assert(
      fc.property(part, part, part, part, (a, b, c, d) => {
        const one = hexOf({ path: a, query: b });
        const other = hexOf({ path: c, query: d });
        expect(one === other).toBe(a === c && b === d);
      }),
    );
    expect(hexOf({ path: '/a', query: 'b' })).not.toBe(hexOf({ path: '/ab', query: '' }));
    expect(hexOf({ path: '/a1:b', query: '' })).not.toBe(hexOf({ path: '/a', query: '1:b' }));
  });

  it('tells kinds of bodies with the same content apart', () => {
    const bodies: FingerprintBody[] = [
      { kind: 'empty' },
      { kind: 'text', text: '' },
      { kind: 'text', text: '""' },
      { kind: 'parsed', value: '' },
      { kind: 'bytes', bytes: Buffer.from('""') },
      { kind: 'bytes', bytes: Buffer.alloc(0) },
      { kind: 'custom', value: '""' },
      { kind: 'custom', value: '' },
      { kind: 'multipart', fields: {}, files: [] },
      { kind: 'parsed', value: { fields: {}, files: {} } },
      { kind: 'parsed', value: [{}, {}] },
    ];
    expect(new Set(bodies.map((body) => hexOf({ body }))).size).toBe(bodies.length);
  });

  it('tells texts apart that UTF-8 would make equal', () => {
    expect(hexOf({ body: { kind: 'text', text: '\ud800' } })).not.toBe(
      hexOf({ body: { kind: 'text', text: '\ud801' } }),
    );
  });

  it('counts bytes as bytes and text as text in what the application computes', () => {
    const print = (value: string | Uint8Array): string => hexOf({ body: { kind: 'custom', value } });
    expect(print('ü')).toBe(print(Buffer.from('ü')));
    expect(print(Buffer.from([0xff]))).not.toBe(print(Buffer.from([0xfe])));
  });

  it('is refused for what cannot be compared', () => {
    expect(() => hexOf(parsed({ at: () => 0 }))).toThrow(NotCanonicalError);
  });

  describe('of fields and files', () => {
    const scan: FileDigest = { field: 'scan', name: 'a.txt', mediaType: 'text/plain', sha256: '00' };
    const print = (fields: object, files: readonly FileDigest[], exclude: string[] = []): string =>
      hexOf({ body: { kind: 'multipart', fields, files } }, exclude);

    it('stays what it is', () => {
      expect(print({ a: '1' }, [scan])).toBe(
        '0192343734288af8fff1c6838c76e2a7de2b34179501d4b410bc30864149650d37',
      );
    });

    it('depends on everything said of a file', () => {
      const others: FileDigest[][] = [
        [],
        [scan],
        [scan, scan],
        [{ ...scan, field: 'photo' }],
        [{ ...scan, name: 'b.txt' }],
        [{ ...scan, name: undefined }],
        [{ ...scan, mediaType: 'text/csv' }],
        [{ ...scan, mediaType: undefined }],
        [{ ...scan, sha256: '01' }],
        [{ ...scan, field: '__proto__' }],
      ];
      const prints = [...others.map((files) => print({}, files)), print({ scan: 'a.txt' }, [])];
      expect(new Set(prints).size).toBe(prints.length);
    });

    it('depends on the order of files in a field only', () => {
      const [first, second, photo] = [scan, { ...scan, sha256: '01' }, { ...scan, field: 'photo' }];
      expect(print({}, [first, photo, second])).toBe(print({}, [photo, first, second]));
      expect(print({}, [first, second])).not.toBe(print({}, [second, first]));
    });

    it('leaves out the files of excluded fields', () => {
      expect(print({ a: '1', scan: 'x' }, [scan], ['scan'])).toBe(print({ a: '1' }, []));
      expect(print({}, [scan], ['scan.name'])).toBe(print({}, [scan]));
    });
  });

  describe('with excluded fields', () => {
    it('counts neither their values nor their absence', () => {
      const exclude = ['sentAt', 'meta.attempt'];
      const prints = [
        { a: 1, sentAt: 1, meta: { attempt: 1, by: 'me' } },
        { a: 1, sentAt: 2, meta: { attempt: { deep: true }, by: 'me' } },
        { a: 1, meta: { by: 'me' } },
      ].map((value) => hexOf(parsed(value), exclude));
      expect(new Set(prints).size).toBe(1);
    });

    it('counts everything else', () => {
      const exclude = ['meta.attempt'];
      const prints = [
        { meta: { attempt: 1, by: 'me' } },
        { meta: { attempt: 1, by: 'you' } },
        { attempt: 1, meta: { by: 'me' } },
        { 'meta.attempt': 1, meta: { by: 'me' } },
        { meta: [{ attempt: 1 }] },
        { meta: [{ attempt: 2 }] },
        { meta: 'attempt' },
        { meta: null },
      ].map((value) => hexOf(parsed(value), exclude));
      expect(new Set(prints).size).toBe(prints.length);
    });

    it('finds them at any depth, and nothing inside of what is no object', () => {
      const value = (c: number, text = 'text'): unknown => ({ a: { b: { c, d: 1 } }, text });
      const exclude = ['a.b.c', 'text.length', 'text.0'];
      expect(hexOf(parsed(value(1)), exclude)).toBe(hexOf(parsed(value(2)), exclude));
      expect(hexOf(parsed(value(1, 'texts')), exclude)).not.toBe(hexOf(parsed(value(1)), exclude));
      expect(hexOf(parsed(value(1)), ['text.length'])).toBe(hexOf(parsed(value(1))));
    });

    it('leaves the body as it was', () => {
      const value = { sentAt: 1, meta: { attempt: 1 } };
      hexOf(parsed(value), ['sentAt', 'meta.attempt']);
      expect(value).toEqual({ sentAt: 1, meta: { attempt: 1 } });
    });

    it('does not look at inherited names', () => {
      expect(hexOf(parsed({ a: 1 }), ['constructor', '__proto__.a'])).toBe(hexOf(parsed({ a: 1 })));
    });
  });
});
