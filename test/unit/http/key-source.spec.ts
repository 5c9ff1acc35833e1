import { excludedMembers } from '../../../lib/core/canonical.js';
import { describe, expect, it } from '@jest/globals';
import type { ExecutionContext } from '@nestjs/common';
import type { IncomingMessage } from 'node:http';
import type { Exchange } from '../../../lib/http/exchange.js';
import { echoedKey, keyLookup } from '../../../lib/http/key-source.js';
import { routeSettings } from '../../../lib/http/route-settings.js';
import type { KeyOptions } from '../../../lib/index.js';

const CONTEXT = { name: 'context' } as unknown as ExecutionContext;

/** What the lookup of a body sees of a request. */
function exchangeWith(body: unknown, mediaType = 'application/json', length = '2'): Exchange {
  const rawRequest = {
    method: 'POST',
    headers: { 'content-type': mediaType, 'content-length': length },
    rawHeaders: ['Content-Type', mediaType],
  } as unknown as IncomingMessage;
  return { rawRequest, url: '/', body, request: { body } } as unknown as Exchange;
}

const inBody = keyLookup([{ body: 'key' }]);
const found: KeyOptions = { from: ({ id }: { id: string }) => id };

describe('keyLookup', () => {
  it.each<[string, (KeyOptions | undefined)[], string, string]>([
    ['nobody names one', [undefined, { minLength: 3 }], 'header', 'Idempotency-Key'],
    ['the module names a header', [{ header: 'X-Key' }, {}, undefined], 'header', 'X-Key'],
    ['a route names a field', [{ header: 'X-Key' }, { body: 'key' }], 'body', 'key'],
    ['a route names a header', [found, { body: 'key' }, { header: 'X-Key' }], 'header', 'X-Key'],
    ['a route has a function', [{ header: 'X-Key' }, { body: 'key' }, found], 'from', 'idempotency key'],
    ['a route names undefined', [{ body: 'key' }, { header: undefined }], 'body', 'key'],
  ])('looks where the narrowest layer says, where %s', (_where, layers, kind, name) => {
    expect(keyLookup(layers).source).toEqual({ kind, name });
  });

  it.each<[unknown, unknown[]]>([
    [{ key: 'k' }, ['k']],
    [{ key: null }, [null]],
    [{ key: 0 }, [0]],
    [{ key: undefined }, []],
    [{ other: 'k' }, []],
    [Object.create({ key: 'inherited' }), []],
    [Object.assign(Object.create(null) as object, { key: 'k' }), ['k']],
    [Object.assign([], { key: 'k' }), []],
    ['{"key":"k"}', []],
    [Buffer.from('{"key":"k"}'), []],
    [null, []],
    [undefined, []],
  ])('finds in the body %p: %j', (body, values) => {
    expect(inBody.read(exchangeWith(body), CONTEXT)).toEqual(values);
  });

  it('hands request and context to a function', async () => {
    const seen: unknown[] = [];
    const { read } = keyLookup([
      {
        from: (request, context) => {
          seen.push(request, context);
          return undefined;
        },
      },
    ]);
    const exchange = exchangeWith({});
    expect(await read(exchange, CONTEXT)).toEqual([]);
    expect(seen).toEqual([exchange.request, CONTEXT]);
  });

  it.each<[string, Exchange, boolean]>([
    ['a parsed body', exchangeWith({ a: 1 }), false],
    ['a parsed body of a type that is not known', exchangeWith({ a: 1 }, 'application/x-own'), false],
    ['an empty object', exchangeWith({}), false],
    ['a list', exchangeWith([]), false],
    ['no body', exchangeWith(undefined, '', '0'), false],
    ['text', exchangeWith('{"key":"k"}', 'text/plain'), true],
    ['bytes', exchangeWith(Buffer.from('{"key":"k"}')), true],
    ['a body without a parser', exchangeWith(undefined, 'application/xml'), true],
    ['a body without a parser, as Express 4 leaves it', exchangeWith({}, 'application/xml'), true],
  ])('knows of %s whether a key may hide in it', (_what, exchange, mayHide) => {
    expect(inBody.mayHide(exchange)).toBe(mayHide);
    expect(keyLookup([]).mayHide(exchange)).toBe(false);
    expect(keyLookup([found]).mayHide(exchange)).toBe(false);
  });
});

describe('echoedKey', () => {
  const body = { kind: 'body', name: 'key' } as const;

  it('repeats a header line as it came, and of other keys what a header can carry', () => {
    const header = { kind: 'header', name: 'X-Key' } as const;
    expect(echoedKey(header, ['"caf\u00c3\u00a9"'])).toBe('"caf\u00c3\u00a9"');
    expect(echoedKey(body, ['a key'])).toBe('a key');
    for (const key of ['caf\u00e9', 'a\r\nSet-Cookie: a', 'a\nb', 'a\tb', '\u0000', '🎁'])
      expect(echoedKey(body, [key])).toBeUndefined();
    expect(echoedKey(body, [])).toBeUndefined();
  });
});

describe('the fingerprint of a route', () => {
  it('leaves out the field that is the key, beside those that the options leave out', () => {
    const client = (): string => 'tests';
    const excluded = (key: KeyOptions): unknown => {
      const { fingerprint } = routeSettings({ client, fingerprint: { exclude: ['meta.sentAt'] } }, [{ key }]);
      return fingerprint.exclusions;
    };
    const files = new Set(['meta.sentAt']);
    const members = excludedMembers(['meta.sentAt']);
    expect(excluded({ body: 'key' })).toEqual({ members: excludedMembers(['meta.sentAt', 'key']), files });
    expect(excluded({ header: 'key' })).toEqual({ members, files });
    expect(excluded(found)).toEqual({ members, files });
  });
});
