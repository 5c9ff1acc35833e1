import type { IncomingMessage } from 'node:http';
import type { FingerprintBody, FingerprintInput } from '../core/fingerprint.js';
import type { Exchange } from './exchange.js';

/** The values of a header, one for each line it was sent in; Node joins them elsewhere. */
export function headerLines(request: IncomingMessage, name: string): string[] {
  const wanted = name.toLowerCase();
  const lines: string[] = [];
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    if (request.rawHeaders[index]?.toLowerCase() === wanted) lines.push(request.rawHeaders[index + 1] ?? '');
  }
  return lines;
}

/**
 * Everything a request asks for, or undefined when it has a body that no parser has read: hashing that as empty would
 * make different requests equal.
 */
export function fingerprintInput(exchange: Exchange): FingerprintInput | undefined {
  const { rawRequest, url } = exchange;
  const mediaType = mediaTypeOf(rawRequest);
  const body = bodyOf(exchange, mediaType);
  if (!body) return undefined;
  const [path = '', ...query] = url.split('?');
  return {
    method: rawRequest.method ?? '',
    path,
    query: query.join('?'),
    mediaType: body.kind === 'empty' ? '' : mediaType,
    body,
  };
}

function bodyOf({ rawRequest, body, rawBody }: Exchange, mediaType: string): FingerprintBody | undefined {
  const hasBody = carriesBody(rawRequest);
  const isNothing = body === undefined || body === null || isEmptyObject(body);
  if (!hasBody && isNothing) return { kind: 'empty' };
  if (typeof body === 'string') return { kind: 'text', text: body };
  if (body instanceof Uint8Array) return { kind: 'bytes', bytes: body };
  if (isParsedType(mediaType) && body !== undefined) return { kind: 'parsed', value: body };
  return rawBody ? { kind: 'bytes', bytes: rawBody } : undefined;
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
