import { describe, expect, it } from '@jest/globals';
import type { IncomingMessage } from 'node:http';
import type { Exchange } from '../../../lib/http/exchange.js';
import { fingerprintInput, headerLines } from '../../../lib/http/request-reading.js';

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
  it('gives each line, whatever the case of its name', () => {
    const rawHeaders = ['Idempotency-Key', 'a', 'X-Other', 'b', 'idempotency-key', 'c, d'];
    expect(headerLines({ rawHeaders } as IncomingMessage, 'IDEMPOTENCY-KEY')).toEqual(['a', 'c, d']);
    expect(headerLines({ rawHeaders } as IncomingMessage, 'X-Absent')).toEqual([]);
  });
});

describe('fingerprintInput', () => {
  it.each([
    ['/orders', '/orders', ''],
    ['/orders?', '/orders', ''],
    ['/orders?a=1?b', '/orders', 'a=1?b'],
  ])('splits %j at the first question mark', (url, path, query) => {
    expect(fingerprintInput(exchange({ url }))).toMatchObject({ path, query });
  });

  it('reads the media type without parameters, in lower case', () => {
    const headers = { 'content-type': 'Application/Problem+JSON ; charset=utf-8', 'content-length': '2' };
    expect(fingerprintInput(exchange({ headers, body: {} }))).toMatchObject({
      mediaType: 'application/problem+json',
      body: { kind: 'parsed', value: {} },
    });
  });

  it.each<[string, Sent, unknown]>([
    ['no body', {}, { kind: 'empty' }],
    ['no body, for which a parser made an object', { headers: JSON_OF(0), body: {} }, { kind: 'empty' }],
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
    expect(fingerprintInput(exchange(sent))?.body).toEqual(body);
  });

  it.each<[string, Sent]>([
    ['JSON', { headers: JSON_OF(2) }],
    ['XML', { headers: { 'content-type': 'application/xml', 'content-length': '4' } }],
    ['XML as an object', { headers: { 'content-type': 'application/xml', 'content-length': '4' }, body: {} }],
    ['an unknown type as a stream', { headers: { 'content-length': '4' }, body: { readable: true } }],
    [
      'multipart',
      { headers: { 'content-type': 'multipart/form-data; boundary=x', 'content-length': '9' }, body: {} },
    ],
    [
      'JSON in chunks, read to its end by something else',
      { headers: { 'content-type': 'application/json', 'transfer-encoding': 'chunked' } },
    ],
  ])('refuses %s that no known parser has read', (_what, sent) => {
    expect(fingerprintInput(exchange(sent))).toBeUndefined();
  });
});
