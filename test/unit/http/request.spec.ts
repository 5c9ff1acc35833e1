import { describe, expect, it } from '@jest/globals';
import { VERSION_NEUTRAL, VersioningType, type VersioningOptions } from '@nestjs/common';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import { fingerprint } from '../../../lib/core/fingerprint.js';
import type { Exchange } from '../../../lib/http/exchange.js';
import { digestsOf, uploadOf } from '../../../lib/http/multipart.js';
import {
  anonymousTemplate,
  arrivesEmpty,
  canonicalPath,
  endpointName,
  headerLines,
  mediaTypeOf,
  parsedBody,
  rawBody,
  targetOf,
  versionOf,
} from '../../../lib/transports/http/request.js';

interface Sent {
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly rawBody?: Buffer;
  readonly url?: string;
}

function exchange({ headers = {}, body, rawBody, url = '/orders' }: Sent): Exchange {
  const rawRequest = { method: 'POST', headers, readableEnded: true } as unknown as IncomingMessage;
  return { rawRequest, url, body, rawBody } as Exchange;
}

const JSON_OF = (length: number): Record<string, string> => ({
  'content-type': 'application/json',
  'content-length': String(length),
});

describe('headerLines', () => {
  const lines = (request: object, raw: object = request): unknown[] =>
    headerLines({ request, rawRequest: raw } as unknown as Exchange, 'IDEMPOTENCY-KEY');

  it('gives each line, whatever the case of its name', () => {
    const rawHeaders = ['Idempotency-Key', 'a', 'X-Other', 'b', 'idempotency-key', 'c, d'];
    expect(lines({ rawHeaders, headers: { 'idempotency-key': 'a, c, d' } })).toEqual(['a', 'c, d']);
    expect(lines({ rawHeaders: ['X-Other', 'b'], headers: { 'x-other': 'b' } })).toEqual([]);
  });

  it.each<[string, object, unknown[]]>([
    ['no lines', { rawHeaders: [], headers: { 'idempotency-key': 'a' } }, ['a']],
    ['not even a list of lines', { headers: { 'idempotency-key': 'a' } }, ['a']],
    ['names in the case of the event', { rawHeaders: [], headers: { 'Idempotency-Key': 'a' } }, ['a']],
    ['several values', { rawHeaders: [], headers: { 'idempotency-key': ['a', 'b'] } }, ['a', 'b']],
    ['a value of another type', { rawHeaders: [], headers: { 'idempotency-key': 7 } }, [7]],
    [
      'the lines of other headers',
      { rawHeaders: ['X-Other', 'b'], headers: { 'idempotency-key': 'a' } },
      ['a'],
    ],
    ['a list without values', { rawHeaders: [], headers: { 'idempotency-key': [] } }, [[]]],
    ['null', { rawHeaders: [], headers: { 'idempotency-key': null } }, [null]],
    ['nothing', { rawHeaders: [], headers: {} }, []],
  ])('reads what an adapter parsed where it leaves %s', (_what, request, expected) => {
    expect(lines(request)).toEqual(expected);
    expect(lines({}, request)).toEqual(expected);
  });
});

describe('is linear in what a stranger sends', () => {
  /** Counts how often something is read of it, at any depth. */
  function watched<Value>(value: Value, counted: { reads: number }): Value {
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
    return new Proxy(value, {
      get: (target, name, receiver) => {
        counted.reads += 1;
        return watched(Reflect.get(target, name, receiver) as unknown, counted);
      },
      ownKeys: (target) => {
        const keys = Reflect.ownKeys(target);
        counted.reads += keys.length;
        return keys;
      },
    });
  }

  const pairs = (size: number): string[] =>
    Array.from({ length: size }, (_, index) => [`X-Header-${index}`, 'a']).flat();
  const files = (size: number, field: (index: number) => string): object[] =>
    Array.from({ length: size }, (_, index) => ({
      fieldname: field(index),
      originalname: `${index}`,
      mimetype: 'text/plain',
      buffer: Buffer.from('a'),
    }));
  const fingerprintOf = async (request: object, body: unknown): Promise<void> => {
    const upload = uploadOf({ request, body } as Exchange)!;
    const digests = await digestsOf(upload.files);
    const multipart = { kind: 'multipart', fields: upload.fields, files: digests! } as const;
    fingerprint({ method: 'POST', path: '/', query: '', mediaType: '', body: multipart });
  };
  const parts = (size: number): object => {
    const body: Record<string, unknown> = {};
    for (let index = 0; index < size; index++) {
      const part = { fieldname: `f${index}`, fields: body };
      body[`f${index}`] =
        index % 2
          ? { ...part, type: 'field', value: 'a' }
          : { ...part, type: 'file', _buf: Buffer.from('a') };
    }
    return body;
  };

  it.each<[string, (size: number, counted: { reads: number }) => unknown]>([
    [
      'header lines',
      (size, counted) =>
        headerLines(
          { rawRequest: watched({ rawHeaders: pairs(size), headers: {} }, counted), request: {} } as never,
          'x',
        ),
    ],
    [
      'headers of an adapter without lines',
      (size, counted) => {
        const headers = Object.fromEntries(Array.from({ length: size }, (_, index) => [`x-${index}`, 'a']));
        return headerLines({ rawRequest: watched({ headers }, counted), request: {} } as never, 'x');
      },
    ],
    [
      'files of one field',
      (size, counted) => fingerprintOf(watched({ files: files(size, () => 'f') }, counted), {}),
    ],
    [
      'files of many fields',
      (size, counted) => fingerprintOf(watched({ files: files(size, String) }, counted), {}),
    ],
    [
      'fields of a form',
      (size, counted) => {
        const fields = Object.fromEntries(Array.from({ length: size }, (_, index) => [`f${index}`, 'a']));
        return fingerprintOf({ files: [] }, watched(fields, counted));
      },
    ],
    [
      'parts of a form, with their files',
      async (size, counted) => {
        const upload = uploadOf({ request: {}, body: parts(size) } as Exchange)!;
        await fingerprintOf(
          {
            files: watched(
              upload.files.map((file) => ({ ...file, fieldname: file.field, buffer: file.content })),
              counted,
            ),
          },
          {},
        );
      },
    ],
  ])('%s', async (_what, read) => {
    const [few, many] = [{ reads: 0 }, { reads: 0 }];
    await read(200, few);
    await read(400, many);
    expect(few.reads).toBeGreaterThanOrEqual(200);
    expect(many.reads).toBeLessThanOrEqual(2 * few.reads + 10);
  });
});

describe('targetOf', () => {
  const aimed = (url: string, template = '/orders', hostname = ''): ReturnType<typeof targetOf> =>
    targetOf(
      { ...exchange({ url }), template, hostname },
      { hosts: hostname ? [':tenant.example.com'] : undefined, version: undefined },
      undefined,
    );

  it.each([
    ['/orders', '/orders', ''],
    ['/orders?', '/orders', ''],
    ['/orders?a=1?b', '/orders', 'a=1?b'],
  ])('splits %j at the first question mark', (url, path, query) => {
    expect(aimed(url)).toMatchObject({ path, query, method: 'POST', endpoint: 'POST /orders' });
  });

  it('has the host where the controller declares one with parameters', () => {
    expect(aimed('/orders').host).toBeUndefined();
    expect(aimed('/orders', '/orders', 'a.example.com')).toMatchObject({
      host: 'a.example.com',
      endpoint: 'POST :tenant.example.com/orders',
    });
  });
});

describe('canonicalPath', () => {
  it.each([
    ['/labels/AbC', '/labels/:id', '/labels/AbC'],
    ['/labels/AbC/', '/labels/:id', '/labels/AbC'],
    ['//labels//AbC', '/labels/:id', '/labels/AbC'],
    ['/LABELS/AbC', '/labels/:id', '/labels/AbC'],
    ['http://api.example.com:8080/labels/AbC', '/labels/:id', '/labels/AbC'],
    ['HTTPS://api.example.com/labels/AbC', '/labels/:id', '/labels/AbC'],
    ['/labels/%41bC', '/labels/:id', '/labels/AbC'],
    ['/labels/a%2Fb', '/labels/:id', '/labels/a%2Fb'],
    ['/labels/a%2fb', '/labels/:id', '/labels/a%2Fb'],
    ['/labels/%zz', '/labels/:id', '/labels/%zz'],
    ['/', '/', '/'],
    ['http://api.example.com', '/', '/'],
  ])('writes %j on %j as %j', (path, template, canonical) => {
    expect(canonicalPath(path, template)).toBe(canonical);
  });

  it('tells values of parameters apart by letter case', () => {
    expect(canonicalPath('/labels/abc', '/labels/:id')).not.toBe(canonicalPath('/labels/AbC', '/labels/:id'));
  });

  it.each([
    ['/files/A/b/', '/files/*path'],
    ['/Orders', '/orders{/:id}'],
    ['/Maps/1-2', '/maps/:lat-:lng'],
    ['/api/Orders', '/orders'],
    ['/Documents:delete', '/documents\\:delete'],
    ['/Orders/1', ''],
  ])('leaves %j on %j as it was sent', (path, template) => {
    expect(canonicalPath(path, template)).toBe(path);
  });
});

describe('mediaTypeOf', () => {
  it('is without parameters, in lower case', () => {
    const headers = { 'content-type': 'Application/Problem+JSON ; charset=utf-8' };
    expect(mediaTypeOf(exchange({ headers }).rawRequest)).toBe('application/problem+json');
  });
});

describe('parsedBody', () => {
  it.each<[string, Sent, unknown]>([
    ['no body', {}, { kind: 'empty' }],
    ['no body, for which a parser made an object', { headers: JSON_OF(0), body: {} }, { kind: 'empty' }],
    ['no body, for which a parser made a text', { headers: JSON_OF(0), body: '' }, { kind: 'empty' }],
    [
      'chunks without a byte',
      { headers: { 'transfer-encoding': 'chunked' }, body: Buffer.alloc(0) },
      { kind: 'empty' },
    ],
    [
      'a value of a type that the application parses by itself',
      { headers: { 'content-type': 'text/plain', 'content-length': '7' }, body: { a: 1 } },
      { kind: 'parsed', value: { a: 1 } },
    ],
    [
      'a Map without entries',
      { headers: { 'content-type': 'application/msgpack', 'content-length': '1' }, body: new Map() },
      { kind: 'parsed', value: new Map() },
    ],
    ['null', { headers: JSON_OF(4), body: null }, { kind: 'parsed', value: null }],
    ['false', { headers: JSON_OF(5), body: false }, { kind: 'parsed', value: false }],
    ['an empty object', { headers: JSON_OF(2), body: {} }, { kind: 'parsed', value: {} }],
    ['an empty array', { headers: JSON_OF(2), body: [] }, { kind: 'parsed', value: [] }],
    [
      'text',
      { headers: { 'content-type': 'text/plain', 'content-length': '1' }, body: 'a' },
      { kind: 'text', text: 'a' },
    ],
    [
      'the raw body where no parser gave a value',
      { headers: { 'content-type': 'application/xml', 'content-length': '4' }, rawBody: Buffer.from('<a/>') },
      { kind: 'bytes', bytes: Buffer.from('<a/>') },
    ],
    [
      'the raw body where an unknown parser gave an object',
      {
        headers: { 'content-type': 'application/xml', 'content-length': '4' },
        body: {},
        rawBody: Buffer.from('<a/>'),
      },
      { kind: 'bytes', bytes: Buffer.from('<a/>') },
    ],
  ])('takes %s for what it is', (_what, sent, body) => {
    expect(parsedBody(exchange(sent))).toEqual(body);
  });

  it.each<[string, Sent]>([
    ['JSON', { headers: JSON_OF(2) }],
    ['XML', { headers: { 'content-type': 'application/xml', 'content-length': '4' } }],
    ['XML as an object', { headers: { 'content-type': 'application/xml', 'content-length': '4' }, body: {} }],
    ['null of an unknown type', { headers: { 'content-length': '4' }, body: null }],
    [
      'multipart',
      { headers: { 'content-type': 'multipart/form-data; boundary=x', 'content-length': '9' }, body: {} },
    ],
    [
      'JSON in chunks, read to its end by something else',
      { headers: { 'content-type': 'application/json', 'transfer-encoding': 'chunked' } },
    ],
  ])('refuses %s that no known parser has read', (_what, sent) => {
    expect(parsedBody(exchange(sent))).toBeUndefined();
  });
});

describe('rawBody', () => {
  it('is the bytes that were kept, or that a parser left; nothing where there are none', () => {
    const headers = { 'content-length': '1' };
    expect(rawBody(exchange({ headers, rawBody: Buffer.from('a'), body: 'b' }))).toEqual({
      kind: 'bytes',
      bytes: Buffer.from('a'),
    });
    expect(rawBody(exchange({ headers, body: Buffer.from('a') }))).toEqual({
      kind: 'bytes',
      bytes: Buffer.from('a'),
    });
    expect(rawBody(exchange({ headers, body: 'a' }))).toBeUndefined();
    expect(rawBody(exchange({ headers, rawBody: Buffer.alloc(0) }))).toEqual({ kind: 'empty' });
    expect(rawBody(exchange({}))).toEqual({ kind: 'empty' });
  });
});

describe('arrivesEmpty', () => {
  const sent = (chunks: string[]): PassThrough => {
    const stream = new PassThrough();
    for (const chunk of chunks) stream.write(chunk);
    return stream;
  };
  const asked = (stream: PassThrough, patience = 60_000): Promise<boolean> =>
    arrivesEmpty({ rawRequest: stream } as unknown as Exchange, patience);

  it('waits for the end, or for the first byte, which stays where it was', async () => {
    expect(await asked(sent([]).end())).toBe(true);
    const stream = sent(['ab']);
    expect(await asked(stream)).toBe(false);
    expect(stream.read()).toEqual(Buffer.from('ab'));
    const late = sent([]);
    const answer = asked(late);
    late.end('c');
    expect(await answer).toBe(false);
  });

  it('is not so for what ends otherwise, takes too long, or was read by somebody else', async () => {
    const broken = sent([]);
    const answer = asked(broken);
    broken.destroy();
    expect(await answer).toBe(false);
    expect(await asked(sent([]), 1)).toBe(false);
    expect(await asked(sent([]).resume())).toBe(false);
    expect(await asked(broken)).toBe(false);
  });
});

describe('anonymousTemplate', () => {
  it.each([
    ['', '/'],
    ['/', '/'],
    ['/orders', '/orders'],
    ['/orders/', '/orders'],
    ['//api//orders', '/api/orders'],
    ['/labels/:id/reprint', '/labels/:/reprint'],
    ['/labels/:labelId/reprint', '/labels/:/reprint'],
    ['/maps/:lat-:lng', '/maps/:-:'],
    ['/files/*path', '/files/*'],
    ['/files/{*path}', '/files/{*}'],
    ['/files/*', '/files/*'],
    ['/quoted/:"a-b"', '/quoted/:'],
    ['/orders{/:id}', '/orders{/:}'],
    ['/orders/:id(\\d+)', '/orders/:(\\d+)'],
    ['/documents\\:delete', '/documents\\:delete'],
    ['/documents::delete', '/documents::delete'],
  ])('makes %j %j', (template, anonymous) => {
    expect(anonymousTemplate(template)).toBe(anonymous);
  });
});

describe('endpointName', () => {
  it('has method, template and version', () => {
    expect(endpointName('POST', '/orders/:id', undefined)).toBe('POST /orders/:');
    expect(endpointName('PUT', '/orders', '2')).toBe('PUT /orders (version 2)');
    expect(endpointName('PUT', '/orders', '2', [':a.example.com', /^b/])).toBe(
      'PUT :a.example.com|/^b//orders (version 2)',
    );
  });
});

describe('versionOf', () => {
  const exchange = (headers: IncomingHttpHeaders): Exchange =>
    ({ rawRequest: { headers } as IncomingMessage }) as Exchange;
  const byHeader: VersioningOptions = { type: VersioningType.HEADER, header: 'X-Version' };
  const byMediaType: VersioningOptions = { type: VersioningType.MEDIA_TYPE, key: 'v=' };
  const byExtractor: VersioningOptions = {
    type: VersioningType.CUSTOM,
    extractor: (request) => (request as IncomingMessage).headers['x-versions'] as string[] | string,
  };

  it('is undefined where the path says it, and without versioning', () => {
    expect(versionOf(exchange({}), '1', { type: VersioningType.URI })).toBeUndefined();
    expect(versionOf(exchange({}), '1', undefined)).toBeUndefined();
    expect(versionOf(exchange({}), undefined, byHeader)).toBeUndefined();
  });

  it('is the only declared one, whatever the request says', () => {
    expect(versionOf(exchange({}), '1', byHeader)).toBe('1');
    expect(versionOf(exchange({ 'x-version': '2' }), ['1'], byHeader)).toBe('1');
    expect(versionOf(exchange({ 'x-version': '2' }), VERSION_NEUTRAL, byHeader)).toBeUndefined();
  });

  it.each([
    [{ 'x-version': '2' }, '2'],
    [{ 'x-version': '1' }, '1'],
    [{}, undefined],
  ])('is the requested one of several in a header: %j', (headers, version) => {
    expect(versionOf(exchange(headers), ['1', '2', VERSION_NEUTRAL], byHeader)).toBe(version);
  });

  it.each([
    ['application/json;v=2', '2'],
    ['text/html, application/json; q=0.5; v="1"', '1'],
    ['application/json', undefined],
  ])('is the requested one of several in a media type: %j', (accept, version) => {
    expect(versionOf(exchange({ accept }), ['1', '2', VERSION_NEUTRAL], byMediaType)).toBe(version);
  });

  it('is the first that a custom extractor prefers', () => {
    const headers = { 'x-versions': ['3', '2', '1'] } as unknown as IncomingHttpHeaders;
    expect(versionOf(exchange(headers), ['1', '2'], byExtractor)).toBe('2');
    expect(versionOf(exchange({ 'x-versions': '1' }), ['1', '2'], byExtractor)).toBe('1');
  });
});
