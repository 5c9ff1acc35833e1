import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { faultOfPath, fillPath, parametersOf } from '../../../lib/client/path.js';

describe('parametersOf', () => {
  it.each([
    ['/', []],
    ['/charges', []],
    ['/tickets/:ticketId/messages', ['ticketId']],
    ['/tickets/{ticketId}/messages/{id}', ['ticketId', 'id']],
    ['/:a/{b}/:c', ['a', 'b', 'c']],
    ['/files/{name}.{extension}', ['name', 'extension']],
    ['/v1/{name}:cancel', ['name']],
    ['/v1/foo:cancel', []],
    ['/v1/foo:cancel/:id', ['id']],
  ])('finds in %s %j', (path, names) => {
    expect(parametersOf(path)).toEqual(names);
    expect(faultOfPath(path)).toBeUndefined();
  });
});

describe('faultOfPath', () => {
  it.each([
    ['', 'must begin with "/"'],
    ['charges', 'must begin with "/"'],
    ['https://api.example.com/charges', 'must begin with "/"'],
    ['/charges?ref=1', 'query'],
    ['/charges#top', 'fragment'],
    ['/tickets/:', 'not :name or {name}'],
    ['/tickets/:id.json', 'not :name or {name}'],
    ['/tickets/:id-:other', 'not :name or {name}'],
    ['/tickets/{id', 'not :name or {name}'],
    ['/tickets/id}', 'not :name or {name}'],
    ['/tickets/{}', 'not :name or {name}'],
    ['/tickets/{a b}', 'not :name or {name}'],
    ['/tickets/:id/{id}', 'twice'],
    ['/tickets/{id}/{id}', 'twice'],
  ])('finds fault with %j: %s', (path, fault) => {
    expect(faultOfPath(path)).toContain(fault);
  });
});

describe('fillPath', () => {
  const filled = (path: string, values: Record<string, unknown>): string => {
    const result = fillPath(path, values);
    return 'path' in result ? result.path : `fault: ${result.fault}`;
  };

  it('puts in the values of both syntaxes', () => {
    expect(filled('/tickets/:ticketId/messages/{id}', { id: 7, ticketId: 'a' })).toBe(
      '/tickets/a/messages/7',
    );
    expect(filled('/v1/{name}:cancel', { name: 'x' })).toBe('/v1/x:cancel');
    expect(filled('/v1/foo:cancel', {})).toBe('/v1/foo:cancel');
  });

  it.each([
    ['a/b', 'a%2Fb'],
    ['../admin', '..%2Fadmin'],
    ['a?b#c', 'a%3Fb%23c'],
    ['50%', '50%25'],
    ['%2e%2e', '%252e%252e'],
    ['ü €', '%C3%BC%20%E2%82%AC'],
    ['{other}', '%7Bother%7D'],
    ['$&', '%24%26'],
    ['...', '...'],
    [-1, '-1'],
    [0, '0'],
  ])('encodes %j as %s', (value, encoded) => {
    expect(filled('/a/{id}/b', { id: value })).toBe(`/a/${encoded}/b`);
  });

  it('never lets a value leave its segment', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (value) => {
        const result = fillPath('/before/:id/after', { id: value });
        if ('fault' in result) {
          expect(['.', '..']).toContain(value);
          return;
        }
        const { pathname, search, hash } = new URL(`https://api.example.com${result.path}`);
        const [, before, segment = '', after, ...rest] = pathname.split('/');
        expect({ before, after, rest, search, hash, value: decodeURIComponent(segment) }).toEqual({
          before: 'before',
          after: 'after',
          rest: [],
          search: '',
          hash: '',
          value,
        });
      }),
    );
  });

  it.each([undefined, null, '', '.', '..', NaN, Infinity, true, {}, ['a'], 1n])(
    'refuses %p as a value',
    (value) => {
      expect(filled('/tickets/:id', { id: value })).toMatch(/^fault: parameter id of the path/);
    },
  );

  it('refuses a value that is missing, by name', () => {
    expect(filled('/tickets/:ticketId/messages/:id', { ticketId: 1 })).toMatch(/^fault: parameter id/);
  });

  it('refuses a value that the path has no place for', () => {
    expect(filled('/tickets/:id', { id: 1, ticketId: 2 })).toBe(
      'fault: the path /tickets/:id has no parameter ticketId',
    );
  });

  it('takes nothing from the prototype of the values', () => {
    expect(filled('/x/:constructor', {})).toMatch(/^fault: parameter constructor/);
  });
});
