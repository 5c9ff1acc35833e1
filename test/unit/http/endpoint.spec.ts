import { describe, expect, it } from '@jest/globals';
import { VERSION_NEUTRAL, VersioningType, type VersioningOptions } from '@nestjs/common';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { anonymousTemplate, endpointName, versionOf } from '../../../lib/http/endpoint.js';
import type { Exchange } from '../../../lib/http/exchange.js';

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
