import type { IncomingMessage } from 'node:http';
import type { FingerprintBody, FingerprintInput } from '../core/fingerprint.js';
import type { Exchange } from './exchange.js';

/** The values of a header, one for each line it was sent in; Node joins them elsewhere. */
export function headerLines(request: IncomingMessage, name: string): string[] {
  const wanted = name.toLowerCase();
  const lines: string[] = [];
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    const found = request.rawHeaders[index];
    if (found?.length === wanted.length && found.toLowerCase() === wanted)
      lines.push(request.rawHeaders[index + 1] ?? '');
  }
  return lines;
}

/**
 * Everything a request asks for, or undefined when it has a body that no parser has read: hashing that as empty would
 * make different requests equal.
 */
export function fingerprintInput(exchange: Exchange): FingerprintInput | undefined {
  const body = bodyOf(exchange);
  return body && inputWith(exchange, body);
}

/** Everything a request asks for, with a body that was read elsewhere. */
export function inputWith({ rawRequest, url }: Exchange, body: FingerprintBody): FingerprintInput {
  const [path = '', ...query] = url.split('?');
  return {
    method: rawRequest.method ?? '',
    path,
    query: query.join('?'),
    mediaType: body.kind === 'empty' ? '' : mediaTypeOf(rawRequest),
    body,
  };
}

/** The bytes of a body as they came, or undefined when it has one and nobody kept them. */
export function rawBody({ rawRequest, body, rawBody: kept }: Exchange): FingerprintBody | undefined {
  if (kept) return { kind: 'bytes', bytes: kept };
  // A parser for bytes leaves them as they came.
  if (body instanceof Uint8Array) return { kind: 'bytes', bytes: body };
  return carriesBody(rawRequest) ? undefined : { kind: 'empty' };
}

/** Whether a request carries fields and files. */
export function isMultipart({ rawRequest }: Exchange): boolean {
  return carriesBody(rawRequest) && mediaTypeOf(rawRequest) === 'multipart/form-data';
}

function bodyOf({ rawRequest, body, rawBody: kept }: Exchange): FingerprintBody | undefined {
  const hasBody = carriesBody(rawRequest);
  const isNothing = body === undefined || body === null || isEmptyObject(body);
  if (!hasBody && isNothing) return { kind: 'empty' };
  if (typeof body === 'string') return { kind: 'text', text: body };
  if (body instanceof Uint8Array) return { kind: 'bytes', bytes: body };
  if (isParsedType(mediaTypeOf(rawRequest)) && body !== undefined) return { kind: 'parsed', value: body };
  return kept ? { kind: 'bytes', bytes: kept } : undefined;
}

function carriesBody(request: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  const { headers, stream } = request;
  // HTTP/2 frames a body without having to declare it.
  const follows = stream?.endAfterHeaders === false;
  return Number(headers['content-length'] ?? 0) > 0 || 'transfer-encoding' in headers || follows;
}

function mediaTypeOf(request: IncomingMessage): string {
  return (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** Types whose parsers give a value. Anything else with an object as its body was not read by a parser we know. */
function isParsedType(mediaType: string): boolean {
  return /^application\/(?:json|x-www-form-urlencoded)$|\+json$|\/json$/.test(mediaType);
}

function isEmptyObject(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0
  );
}
