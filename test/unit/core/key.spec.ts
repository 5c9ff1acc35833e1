import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { checkKey, readKey, type KeyReading, type KeyRules } from '../../../lib/core/key.js';

const RULES: KeyRules = {
  source: { kind: 'header', name: 'Idempotency-Key' },
  required: true,
  minLength: 1,
  maxLength: 256,
  pattern: /^[\x20-\x7e]*$/,
};
const ANYTHING: KeyRules = { ...RULES, maxLength: 1024, pattern: /[^]*/ };

function codeOf(reading: KeyReading): string {
  return reading.kind === 'refused' ? reading.error.code.replace('IDEMPOTENCY_KEY_', '') : reading.kind;
}

describe('readKey', () => {
  it('takes no line as absent, or as an error where a key is required', () => {
    expect(codeOf(readKey([], { ...RULES, required: false }))).toBe('absent');
    expect(codeOf(readKey([], RULES))).toBe('REQUIRED');
  });

  it('never takes an empty line as absent', () => {
    const optional = { ...RULES, required: false };
    expect(codeOf(readKey([''], optional))).toBe('TOO_SHORT');
    expect(codeOf(readKey(['  '], optional))).toBe('TOO_SHORT');
    expect(codeOf(readKey(['""'], optional))).toBe('TOO_SHORT');
  });

  it('refuses more than one line', () => {
    expect(codeOf(readKey(['a', 'a'], RULES))).toBe('MALFORMED');
  });

  it('reads back every string as RFC 8941 writes it', () => {
    const printable = fc.string({
      unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
    });
    fc.assert(
      fc.property(
        printable.filter(({ length }) => length > 0 && length <= 256),
        (key) => {
          const quoted = `"${key.replace(/["\\]/g, String.raw`\$&`)}"`;
          expect(readKey([quoted], RULES)).toEqual({ kind: 'key', key });
        },
      ),
    );
  });

  it('reads every bare key as it is', () => {
    const token = fc.stringMatching(/^[!#-~]{1,256}$/);
    fc.assert(fc.property(token, (key) => expect(readKey([key], RULES)).toEqual({ kind: 'key', key })));
  });

  it.each(['"', '"a', '"a"b', '"a";x', String.raw`"\a"`, String.raw`"a\"`, '"\u00e9"', '"a\tb"'])(
    'refuses the broken string %j',
    (line) => {
      expect(codeOf(readKey([line], ANYTHING))).toBe('MALFORMED');
    },
  );

  it('tells in its error which rules hold, and not what was sent', () => {
    const source = { kind: 'header', name: 'X-Key' } as const;
    const reading = readKey(['the-key-itself'], { ...RULES, source, maxLength: 4 });
    expect(reading).toEqual({
      kind: 'refused',
      error: {
        code: 'IDEMPOTENCY_KEY_TOO_LONG',
        status: 400,
        title: 'The idempotency key is not acceptable',
        detail: 'The X-Key header must be at most 4 characters.',
        source,
        minLength: 1,
        maxLength: 4,
      },
    });
    expect(JSON.stringify(reading)).not.toContain('the-key-itself');
  });
});

describe('readKey, of a source that is no header', () => {
  const body: KeyRules = { ...RULES, source: { kind: 'body', name: 'key' } };
  const found: KeyRules = { ...RULES, source: { kind: 'from', name: 'idempotency key' } };

  it.each(['plain', '"quoted"', '"broken', ' spaced ', '"a";x'])('takes %j as it is', (key) => {
    expect(readKey([key], body)).toEqual({ kind: 'key', key });
    expect(readKey([key], found)).toEqual({ kind: 'key', key });
  });

  it.each([null, 7, 0, false, {}, ['key'], []])('refuses %j, which is no string', (value) => {
    const optional = { ...body, required: false };
    expect(readKey([value], optional)).toMatchObject({
      error: { code: 'IDEMPOTENCY_KEY_MALFORMED', detail: 'Field key must be a string.' },
    });
  });

  it('says where a key that is absent should be', () => {
    const details = [RULES, body, found].map((rules) => readKey([], rules));
    const start = 'Include a unique key (1–256 characters), the same on every retry';
    expect(details).toMatchObject([
      { error: { detail: `${start}, in the Idempotency-Key header.` } },
      { error: { detail: `${start}, in the field key of the body.` } },
      { error: { detail: `${start}.` } },
    ]);
  });
});

describe('checkKey', () => {
  it('counts characters at both ends of the range', () => {
    const rules = { ...RULES, minLength: 3, maxLength: 5 };
    const codes = ['ab', 'abc', 'abcde', 'abcdef'].map((key) => codeOf(checkKey(key, rules)));
    expect(codes).toEqual(['TOO_SHORT', 'key', 'key', 'TOO_LONG']);
  });

  it.each([
    ['a NUL byte', 'a\0b'],
    ['a lone high surrogate', 'a\ud83c'],
    ['a lone low surrogate', '\udf81a'],
    ['surrogates in the wrong order', '\udf81\ud83c'],
  ])('refuses %s, whatever the pattern allows', (_what, key) => {
    expect(codeOf(checkKey(key, ANYTHING))).toBe('MALFORMED');
  });

  it('accepts a pair of surrogates', () => {
    expect(checkKey('🎁', ANYTHING)).toEqual({ kind: 'key', key: '🎁' });
  });

  it('refuses more bytes than the index can hold, however few the characters', () => {
    expect(codeOf(checkKey('é'.repeat(512), ANYTHING))).toBe('key');
    expect(codeOf(checkKey(`${'é'.repeat(512)}a`, ANYTHING))).toBe('MALFORMED');
    expect(codeOf(checkKey('a'.repeat(1024), ANYTHING))).toBe('key');
  });
});
