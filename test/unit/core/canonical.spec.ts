import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  canonicalText,
  excludedMembers,
  NotCanonicalError,
  writeCanonical,
} from '../../../lib/core/canonical.js';

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

describe('canonicalText', () => {
  it('is JSON of the same value', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        // JSON has no negative zero: both a round trip and the canonical text turn it into 0.
        expect(parsed(canonicalText(value))).toEqual(parsed(JSON.stringify(value)));
      }),
    );
  });

  it('does not depend on the order of members', () => {
    fc.assert(
      fc.property(jsonValue, (value) => expect(canonicalText(reversed(value))).toBe(canonicalText(value))),
    );
  });

  it('is equal only for equal values', () => {
    fc.assert(
      fc.property(jsonValue, jsonValue, (one, other) => {
        const areEqual = canonicalText(one) === canonicalText(other);
        expect(areEqual).toBe(isEqual(parsed(JSON.stringify(one)), parsed(JSON.stringify(other))));
      }),
    );
  });

  it('sorts members by code unit and leaves no white space', () => {
    const value = parsed('{"b": [1, {"z": null, "a": true}], "a": "ü", "A": 1.0, "10": 1e2, "9": -0}');
    expect(canonicalText(value)).toBe('{"10":100,"9":0,"A":1,"a":"ü","b":[1,{"a":true,"z":null}]}');
  });

  it('tells lone surrogates apart', () => {
    expect(canonicalText('\ud800')).not.toBe(canonicalText('\ud801'));
  });

  it('counts a member called __proto__', () => {
    expect(canonicalText(parsed('{"__proto__":{"a":1}}'))).toBe('{"__proto__":{"a":1}}');
  });

  it('takes objects without a prototype, as parsers of forms make them', () => {
    const form = Object.assign(Object.create(null) as object, { b: ['1', '2'], a: '' });
    expect(canonicalText(form)).toBe('{"a":"","b":["1","2"]}');
    const inherited: unknown = Object.assign(Object.create(Object.create(null) as object) as object, {
      a: '',
    });
    expect(canonicalText(inherited)).toBe('{"a":""}');
  });

  it('leaves out members that are undefined', () => {
    expect(canonicalText({ a: undefined, b: 1 })).toBe('{"b":1}');
  });

  describe('of what JSON lacks', () => {
    class Money {
      constructor(private readonly cents: number) {}

      toJSON(): number {
        return this.cents;
      }
    }
    class Price extends Money {}
    class Wrapped {
      constructor(private readonly value: unknown) {}

      toJSON(): unknown {
        return this.value;
      }
    }

    it.each<[string, unknown]>([
      ['undefined', [undefined]],
      ['[null]', [null]],
      ['NaN', Number.NaN],
      ['Infinity', Number.POSITIVE_INFINITY],
      ['-Infinity', Number.NEGATIVE_INFINITY],
      ['a bigint', 12n],
      ['the number that it is', 12],
      ['its text', '12'],
      ['a Date', new Date(12)],
      ['another Date', new Date(13)],
      ['an invalid Date', new Date(Number.NaN)],
      ['what a Date is in JSON', new Date(12).toJSON()],
      ['a Map', new Map([['a', 1]])],
      ['the object that it is like', { a: 1 }],
      ['a Map with a number for a key', new Map([[1, 1]])],
      ['a Map with its text', new Map([['1', 1]])],
      ['an empty Map', new Map()],
      ['a Set', new Set([1, 2])],
      ['the list that it is like', [1, 2]],
      ['a Set in another order', new Set([2, 1])],
      ['an empty Set', new Set()],
      ['bytes', Uint8Array.of(1, 2)],
      ['other bytes', Uint8Array.of(1, 3)],
      ['bytes as numbers', Uint16Array.of(1, 2)],
      ['a clamped array', Uint8ClampedArray.of(1, 2)],
      ['a buffer', Uint8Array.of(1, 2).buffer],
      ['a view', new DataView(Uint8Array.of(1, 2).buffer)],
      ['an instance', new Money(12)],
      ['one of another class', new Price(12)],
      ['one that is undefined in JSON', new Wrapped(undefined)],
      ['one that is null in JSON', new Wrapped(null)],
      ['a URL', new URL('https://example.com/')],
      ['its text', 'https://example.com/'],
    ])('%s is told apart from all others, and equal to itself alone', (_what, value) => {
      VALUES.add(canonicalText(value));
      expect(canonicalText([value])).toBe(canonicalText([value]));
    });

    it('has as many texts as there are values', () => {
      // Two of the rows are one text: twelve and twelve. All others stand alone.
      expect(VALUES.size).toBe(33);
    });

    const VALUES = new Set<string>();

    it('does not depend on the order of a Map, nor on where bytes lie', () => {
      expect(
        canonicalText(
          new Map([
            ['a', 1],
            ['b', 2],
          ]),
        ),
      ).toBe(
        canonicalText(
          new Map([
            ['b', 2],
            ['a', 1],
          ]),
        ),
      );
      expect(canonicalText(Buffer.from('xab').subarray(1))).toBe(
        canonicalText(Uint8Array.from(Buffer.from('ab'))),
      );
    });

    it('leaves out members of a Map as it does those of an object', () => {
      const value = new Map<string, unknown>([
        ['a', 1],
        [
          'meta',
          new Map<string, unknown>([
            ['at', 1],
            ['by', 'me'],
          ]),
        ],
      ]);
      expect(canonicalText(value, excludedMembers(['a', 'meta.at']))).toBe('Map("meta":Map("by":"me"))');
    });
  });

  describe('refuses, and names the place of,', () => {
    class Plain {
      readonly a = 1;
    }
    class Endless {
      toJSON(): Endless {
        return new Endless();
      }
    }
    const cycle: { inside: unknown[] } = { inside: [] };
    cycle.inside.push({ again: cycle });

    it.each<[string, unknown, string]>([
      ['a function', { a: [1, () => 1] }, '$["a"][1] is a function'],
      ['a symbol', { 'a b': Symbol('s') }, '$["a b"] is a symbol'],
      ['an instance', [new Plain()], '$[0] is an instance of Plain'],
      ['an instance that is one in JSON too', [new Endless()], '$[0] is an instance of Endless'],
      ['what contains itself', cycle, '$["inside"][0]["again"] is a value that contains itself'],
      [
        'a Map with an object for a key',
        { m: new Map([[{}, 1]]) },
        '$["m"] is a Map with a key of type object',
      ],
      ['what is in a Map', new Map([['k', new Set([() => 1])]]), '$["k"][0] is a function'],
      ['a function by itself', () => 1, '$ is a function'],
    ])('%s', (_what, value, message) => {
      expect(() => canonicalText(value)).toThrow(NotCanonicalError);
      expect(() => canonicalText(value)).toThrow(message);
    });

    it('an instance whose constructor is no class', () => {
      const value: unknown = Object.assign(new Plain(), JSON.parse('{"constructor":null}'));
      expect(() => canonicalText(value)).toThrow('$ is an instance of Plain');
      expect(() =>
        canonicalText(Object.create(Object.create(Object.create(null) as object) as object)),
      ).toThrow('an unnamed class');
    });

    it('not what is there twice', () => {
      const shared = { a: 1 };
      expect(canonicalText([shared, shared])).toBe('[{"a":1},{"a":1}]');
    });
  });

  describe('is linear in what a stranger sends', () => {
    /** Counts how often members are asked for, and characters written, for a value of this many parts. */
    const effort = (value: unknown): { visits: number; written: number } => {
      const counted = { visits: 0, written: 0 };
      const watched = new WeakMap<object, object>();
      const watch = (target: unknown): unknown => {
        if (typeof target !== 'object' || target === null) return target;
        const known = watched.get(target);
        if (known) return known;
        const proxy = new Proxy(target, {
          get: (object, name, receiver) => {
            counted.visits += 1;
            return watch(Reflect.get(object, name, receiver) as unknown);
          },
          ownKeys: (object) => {
            const keys = Reflect.ownKeys(object);
            counted.visits += keys.length;
            return keys;
          },
        });
        watched.set(target, proxy);
        return proxy;
      };
      writeCanonical(watch(value), (piece) => (counted.written += piece.length));
      return counted;
    };

    const deepList = (depth: number): unknown => parsed('[1,'.repeat(depth) + '"x"' + ']'.repeat(depth));
    const deepObject = (depth: number): unknown => parsed('{"a":'.repeat(depth) + '1' + '}'.repeat(depth));
    const deepText = (depth: number): unknown =>
      parsed('[1,'.repeat(depth) + `"${'a'.repeat(10_000)}"` + ']'.repeat(depth));

    it.each<[string, (size: number) => unknown]>([
      ['depth of lists', deepList],
      ['depth of objects', deepObject],
      ['a long text below many lists', deepText],
      [
        'members',
        (size) => Object.fromEntries(Array.from({ length: size }, (_, index) => [`member-${index}`, index])),
      ],
      ['items', (size) => Array.from({ length: size }, (_, index) => ({ index }))],
    ])('%s', (_what, make) => {
      const [small, large] = [effort(make(500)), effort(make(1_000))];
      expect(large.visits).toBeLessThanOrEqual(2 * small.visits + 10);
      expect(large.written).toBeLessThanOrEqual(2 * small.written + 5_000);
      expect(large.written).toBe(canonicalText(make(1_000)).length);
    });

    it('refuses references that make few bytes stand for many values', () => {
      let value: unknown = ['x'];
      for (let depth = 0; depth < 60; depth++) value = [value, value];
      expect(() => canonicalText(value)).toThrow('a value that stands in more than 1000 places');
    });

    it('takes any depth that the parser takes', () => {
      const depth = 100_000;
      expect(canonicalText(nested(depth))).toHaveLength(2 * depth);
      expect(canonicalText(deepObject(50_000))).toHaveLength(50_000 * 6 + 1);
    });
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
