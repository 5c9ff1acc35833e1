import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { canonicalJson, NotCanonicalError } from '../../../lib/core/canonical-json.js';

/** Values as a parser makes them, lone surrogates, `__proto__` and numbers of every form included. */
const jsonValue = fc.jsonValue({ maxDepth: 4, stringUnit: 'binary' });

/** The same value with its members in another order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value)
    .reverse()
    .map(([name, member]) => [name, reversed(member)] as const);
  return Object.fromEntries(members);
}

/** What a parser on the other side would get. */
function parsed(text: string): unknown {
  return JSON.parse(text) as unknown;
}

function nested(levels: number): unknown {
  return parsed(`${'['.repeat(levels)}${']'.repeat(levels)}`);
}

describe('canonicalJson', () => {
  it('is JSON of the same value', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        // JSON has no negative zero: both a round trip and the canonical text turn it into 0.
        expect(parsed(canonicalJson(value))).toEqual(parsed(JSON.stringify(value)));
      }),
    );
  });

  it('does not depend on the order of members', () => {
    fc.assert(
      fc.property(jsonValue, (value) => expect(canonicalJson(reversed(value))).toBe(canonicalJson(value))),
    );
  });

  it('is equal only for equal values', () => {
    fc.assert(
      fc.property(jsonValue, jsonValue, (one, other) => {
        const areEqual = canonicalJson(one) === canonicalJson(other);
        expect(areEqual).toBe(isEqual(parsed(JSON.stringify(one)), parsed(JSON.stringify(other))));
      }),
    );
  });

  it('sorts members by code unit and leaves no white space', () => {
    const value = parsed('{"b": [1, {"z": null, "a": true}], "a": "ü", "A": 1.0, "10": 1e2, "9": -0}');
    expect(canonicalJson(value)).toBe('{"10":100,"9":0,"A":1,"a":"ü","b":[1,{"a":true,"z":null}]}');
  });

  it('tells lone surrogates apart', () => {
    expect(canonicalJson('\ud800')).not.toBe(canonicalJson('\ud801'));
  });

  it('counts a member called __proto__', () => {
    expect(canonicalJson(parsed('{"__proto__":{"a":1}}'))).toBe('{"__proto__":{"a":1}}');
  });

  it('takes objects without a prototype, as parsers of forms make them', () => {
    const form = Object.assign(Object.create(null) as object, { b: ['1', '2'], a: '' });
    expect(canonicalJson(form)).toBe('{"a":"","b":["1","2"]}');
    const inherited: unknown = Object.assign(Object.create(Object.create(null) as object) as object, {
      a: '',
    });
    expect(canonicalJson(inherited)).toBe('{"a":""}');
  });

  it('leaves out members that are undefined', () => {
    expect(canonicalJson({ a: undefined, b: 1 })).toBe('{"b":1}');
  });

  it.each([
    ['undefined', undefined],
    ['a function', () => 1],
    ['a bigint', 1n],
    ['NaN', Number.NaN],
    ['Infinity', { a: [Number.POSITIVE_INFINITY] }],
    ['a Date', { at: new Date(0) }],
    ['a Map', new Map()],
    ['a Buffer', { bytes: Buffer.from('a') }],
    ['undefined in an array', [undefined]],
  ])('refuses %s', (_what, value) => {
    expect(() => canonicalJson(value)).toThrow(NotCanonicalError);
    expect(() => canonicalJson(value)).toThrow(expect.objectContaining({ name: 'NotCanonicalError' }));
  });

  it('refuses nesting that would exhaust the stack, and what is near it not', () => {
    expect(canonicalJson(nested(1_001))).toHaveLength(2_002);
    expect(() => canonicalJson(nested(1_002))).toThrow(NotCanonicalError);
    expect(() => canonicalJson(nested(5_000))).toThrow(NotCanonicalError);
    const objects = (levels: number): unknown =>
      JSON.parse('{"a":'.repeat(levels) + '1' + '}'.repeat(levels));
    expect(canonicalJson(objects(1_000))).toHaveLength(6_001);
    expect(() => canonicalJson(objects(1_001))).toThrow(NotCanonicalError);
  });
});

function isEqual(one: unknown, other: unknown): boolean {
  try {
    expect(one).toStrictEqual(other);
    return true;
  } catch {
    return false;
  }
}
