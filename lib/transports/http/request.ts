import { VersioningType, type VersioningOptions } from '@nestjs/common';
import type { IncomingMessage } from 'node:http';
import { types } from 'node:util';
import type { FingerprintBody, FingerprintInput } from '../../core/fingerprint.js';
import type { Exchange } from '../../http/exchange.js';

/** A version as a handler or controller declares it. */
export type DeclaredVersion = string | symbol | readonly (string | symbol)[] | undefined;

/** What a route declares of the requests that it takes, besides its path. */
export interface Routing {
  /** Of the controller; undefined where it takes requests to any host. */
  readonly hosts: readonly (string | RegExp)[] | undefined;
  readonly version: DeclaredVersion;
}

/** Everything of a request that decides which work is done, but for its body: endpoint and fingerprint are made of it. */
export interface Target extends Pick<FingerprintInput, 'method' | 'host' | 'version' | 'path' | 'query'> {
  /** Its route, as a name. */
  readonly endpoint: string;
}

/** What a request is aimed at. */
export function targetOf(
  exchange: Exchange,
  routing: Routing,
  versioning: VersioningOptions | undefined,
): Target {
  const { rawRequest, url, template } = exchange;
  const method = rawRequest.method ?? '';
  const [path = '', ...query] = url.split('?');
  const version = versionOf(exchange, routing.version, versioning);
  return {
    method,
    host: isOneHost(routing.hosts) ? undefined : exchange.hostname,
    version,
    path: canonicalPath(path, template),
    query: query.join('?'),
    endpoint: endpointName(method, template, version, routing.hosts),
  };
}

/** Whether no two requests to different hosts meet in the route, or it does not ask. */
function isOneHost(hosts: Routing['hosts']): boolean {
  if (hosts === undefined) return true;
  const [host, ...others] = hosts;
  return others.length === 0 && typeof host === 'string' && !/[:*{(]/.test(host);
}

/** An absolute-form target (RFC 9112, section 3.2.2), as sent to proxies. */
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[^/?]*/i;
const LITERAL = /^[^:*{}()[\]?+!\\"]+$/;
const PARAMETER = /^:[$\p{ID_Continue}]+$/u;

/**
 * One spelling for each path that the router takes for the same: literal segments as they are registered, values of
 * parameters as they are decoded, no empty segments. Where a route has more than these two kinds of segments, or the path
 * was rewritten before it was routed, nothing is known of what the router ignores: the path counts as it was sent.
 */
export function canonicalPath(sent: string, template: string): string {
  const path = sent.startsWith('/') ? sent : sent.replace(ORIGIN, '');
  const segments = path.split('/').filter((segment) => segment !== '');
  const registered = template.split('/').filter((segment) => segment !== '');
  const isPlain =
    segments.length === registered.length &&
    registered.every((segment, index) =>
      LITERAL.test(segment) ? isSpelling(segments[index] ?? '', segment) : PARAMETER.test(segment),
    );
  if (!isPlain) return path;
  const spelled = registered.map((segment, index) =>
    LITERAL.test(segment) ? segment : respelled(segments[index] ?? ''),
  );
  return `/${spelled.join('/')}`;
}

/** Whether a segment is that literal to a router that ignores letter case. One that was rewritten on its way is not. */
function isSpelling(sent: string, literal: string): boolean {
  return respelled(sent).toLowerCase() === respelled(literal).toLowerCase();
}

/** A value in the one way to encode it; as it was sent where it cannot be decoded. */
function respelled(value: string): string {
  try {
    return encodeURIComponent(decodeURIComponent(value));
  } catch {
    return value;
  }
}

/** A parameter or wildcard and its name; an escaped colon, `\:` on Express and `::` on Fastify, is text. */
const NAMED_PART = /(?<![\\:])([:*])(?:[$\p{ID_Continue}]+|"[^"]*")/gu;

/** Templates are those of registered routes, so that there are no more of these than of those. */
const anonymousTemplates = new Map<string, string>();

/** A route template whose parameter names do not count: `/labels/:id` and `/labels/:labelId` are the same. */
export function anonymousTemplate(template: string): string {
  const known = anonymousTemplates.get(template);
  if (known !== undefined) return known;
  const short = template.replace(NAMED_PART, '$1').replace(/\/{2,}/g, '/');
  const anonymous = short.length > 1 ? short.replace(/\/$/, '') : short || '/';
  anonymousTemplates.set(template, anonymous);
  return anonymous;
}

/**
 * Method, hosts, template and version of a route: `POST /labels/:/reprint`, `POST :tenant.example.com/orders`,
 * `POST /orders (version 2)`.
 */
export function endpointName(
  method: string,
  template: string,
  version: string | undefined,
  hosts: Routing['hosts'] = [],
): string {
  const host = hosts.map((each) => (typeof each === 'string' ? each : String(each))).join('|');
  const suffix = version === undefined ? '' : ` (version ${version})`;
  return `${method} ${host}${anonymousTemplate(template)}${suffix}`;
}

/** The version a request is served in, where its path does not say it; undefined where it is neutral. */
export function versionOf(
  exchange: Exchange,
  declared: DeclaredVersion,
  versioning: VersioningOptions | undefined,
): string | undefined {
  if (!versioning || versioning.type === VersioningType.URI) return undefined;
  const versions = versionNames(declared);
  if (versions.length === 1) return versions[0];
  return requestedVersions(exchange, versioning).find((version) => versions.includes(version));
}

/** The names of declared versions; undefined stands for none, as VERSION_NEUTRAL does. */
export function versionNames(declared: DeclaredVersion): (string | undefined)[] {
  // VERSION_NEUTRAL is a symbol.
  return [declared].flat().map((version) => (typeof version === 'string' ? version : undefined));
}

/** As Nest's adapters read them, the preferred one first. */
function requestedVersions({ rawRequest }: Exchange, versioning: VersioningOptions): string[] {
  switch (versioning.type) {
    case VersioningType.HEADER:
      return [rawRequest.headers[versioning.header.toLowerCase()] ?? []].flat();
    case VersioningType.MEDIA_TYPE:
      return (rawRequest.headers.accept ?? '')
        .split(/[,;]/)
        .map((parameter) => parameter.trim())
        .filter((parameter) => parameter.startsWith(versioning.key))
        .map((parameter) => parameter.slice(versioning.key.length).replace(/^"(.*)"$/, '$1'));
    case VersioningType.CUSTOM:
      // Fastify routes, and asks for the version, before it has made a request of its own.
      return [versioning.extractor(rawRequest)].flat();
    default:
      return [];
  }
}

/**
 * The values of a header, one for each line it was sent in; Node joins them elsewhere. Adapters of serverless platforms
 * make requests that have no lines, and applications set headers that were not sent: both are in `headers` alone.
 */
export function headerLines(exchange: Exchange, name: string): unknown[] {
  const wanted = name.toLowerCase();
  const lines: string[] = [];
  const { rawHeaders = [] } = exchange.rawRequest as Partial<IncomingMessage>;
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const found = rawHeaders[index];
    if (found?.length === wanted.length && found.toLowerCase() === wanted)
      lines.push(rawHeaders[index + 1] ?? '');
  }
  if (lines.length > 0) return lines;
  return headerValues(exchange, name);
}

/** An empty list was sent in no line, but it is there: nothing is ever taken for absent that could not be read. */
/** The values of a header as the handler reads them, whoever has set them. */
export function headerValues({ rawRequest, request }: Exchange, name: string): unknown[] {
  const { headers } = request as { headers?: Readonly<Record<string, unknown>> };
  const wanted = name.toLowerCase();
  return parsedValues(headers, wanted) ?? parsedValues(rawRequest.headers, wanted) ?? [];
}

function parsedValues(
  headers: Readonly<Record<string, unknown>> | undefined,
  wanted: string,
): unknown[] | undefined {
  for (const name in headers) {
    const value = headers[name];
    if (name.length !== wanted.length || name.toLowerCase() !== wanted || value === undefined) continue;
    return Array.isArray(value) && value.length > 0 ? (value as unknown[]) : [value];
  }
  return undefined;
}

/** The body by value, as the application's parsers left it; undefined where there is one that none of them has read. */
export function parsedBody({ rawRequest, body, rawBody: kept }: Exchange): FingerprintBody | undefined {
  // In JSON the empty text is a value.
  const isJson = isParsedType(mediaTypeOf(rawRequest)) && carriesBody(rawRequest);
  if (typeof body === 'string') return body === '' && !isJson ? EMPTY : { kind: 'text', text: body };
  if (types.isUint8Array(body)) return bytes(body);
  // Some parsers leave an empty object where they read nothing.
  const isNothing = body === undefined || body === null || isEmptyObject(body);
  const isPlaceholder =
    isNothing &&
    (body === undefined || !(isParsedType(mediaTypeOf(rawRequest)) || wasRead(rawRequest, body)));
  if (!carriesBody(rawRequest)) return isNothing ? EMPTY : { kind: 'parsed', value: body };
  return isPlaceholder ? kept && bytes(kept) : { kind: 'parsed', value: body };
}

/** Whether a parser has made an empty object of bytes, and not in their place. */
function wasRead(request: IncomingMessage, body: unknown): boolean {
  return body !== null && request.readableDidRead;
}

/** The bytes of a body as they came; undefined where it has one and nobody kept them. */
export function rawBody({ rawRequest, body, rawBody: kept }: Exchange): FingerprintBody | undefined {
  if (kept) return bytes(kept);
  // A parser for bytes leaves them as they came.
  if (types.isUint8Array(body)) return bytes(body);
  return carriesBody(rawRequest) ? undefined : EMPTY;
}

export const EMPTY: FingerprintBody = { kind: 'empty' };

function bytes(value: Uint8Array): FingerprintBody {
  return value.length === 0 ? EMPTY : { kind: 'bytes', bytes: value };
}

/**
 * Whether a body that nobody has read turns out to have no bytes: chunks may end before the first byte, and HTTP/2 may
 * end a stream after its headers. Waits for the client to say so, up to `patience` milliseconds.
 */
export async function arrivesEmpty({ rawRequest: request }: Exchange, patience: number): Promise<boolean> {
  if (request.readableEnded || request.destroyed || request.readableFlowing === true) return false;
  return new Promise<boolean>((resolve) => {
    const conclude = (isEmpty: boolean): void => {
      clearTimeout(timer);
      request.off('readable', look).off('end', end).off('close', fail).off('error', fail);
      resolve(isEmpty);
    };
    const look = (): void => {
      const chunk: unknown = request.read();
      if (chunk === null) return;
      conclude(false);
      // Behind the listeners: to put it back makes the stream readable once more.
      request.unshift(chunk);
    };
    const end = (): void => conclude(true);
    const fail = (): void => conclude(false);
    const timer = setTimeout(fail, patience);
    request.on('readable', look).once('end', end).once('close', fail).once('error', fail);
  });
}

/** Whether a request carries fields and files. */
export function isMultipart({ rawRequest }: Exchange): boolean {
  return carriesBody(rawRequest) && mediaTypeOf(rawRequest) === 'multipart/form-data';
}

function carriesBody(request: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  const { headers, stream } = request;
  // HTTP/2 frames a body without having to declare it.
  const follows = stream?.endAfterHeaders === false;
  return Number(headers['content-length'] ?? 0) > 0 || 'transfer-encoding' in headers || follows;
}

export function mediaTypeOf(request: IncomingMessage): string {
  return (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** Types whose parsers make an empty object of a body only where one was sent. */
function isParsedType(mediaType: string): boolean {
  return /^application\/(?:json|x-www-form-urlencoded)$|\+json$|\/json$/.test(mediaType);
}

function isEmptyObject(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    isPlain(value) &&
    Object.keys(value).length === 0
  );
}

/** A Map without entries has no members either. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
