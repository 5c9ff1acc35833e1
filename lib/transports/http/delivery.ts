import { isAscii } from 'node:buffer';
import { ServerResponse, type OutgoingHttpHeader, type OutgoingHttpHeaders } from 'node:http';
import { isDeepStrictEqual } from 'node:util';
import type { HeldView } from './held-view.js';
import { writeError, type Trailers } from './written.js';

/** A response as it was about to leave. Header names are in lower case. */
export interface Answer {
  readonly status: number;
  /** Undefined or empty for the standard one. */
  readonly statusMessage?: string | undefined;
  readonly headers: OutgoingHttpHeaders;
  readonly trailers?: Trailers | undefined;
  readonly body: Buffer;
}

/** As node:http has it, and nobody has wrapped it. */
const END: unknown = Reflect.get(ServerResponse.prototype, 'end');
/**
 * Bytes of a body that leave in one write with the head: node:http puts both together where the body is text. Only ASCII is
 * sent so. Its bytes are the same whatever takes them for text, as adapters of serverless platforms do.
 */
const ONE_WRITE = 16_384;
/** With it a stream of HTTP/2 breaks off, and nobody on this side hears of an error (RFC 9113, section 7). */
const CANCEL = 0x8;

/**
 * Sends an answer on a response that was let go, through whatever wraps it.
 *
 * @param own - Headers that are added, in lower case.
 * @param isThere - Whether the headers of the answer are set already.
 */
export function send(view: HeldView, answer: Answer, own: OutgoingHttpHeaders, isThere: boolean): void {
  const { raw, isHttp2 } = view;
  if (!isThere) setHeaders(raw, answer.headers);
  for (const name in own) raw.setHeader(name, own[name] as OutgoingHttpHeader);
  frame(view, answer);
  raw.statusCode = answer.status;
  // That of the held response must not stay; without one Node takes the standard one.
  if (!isHttp2) raw.statusMessage = answer.statusMessage ?? '';
  const { body } = answer;
  if (body.length === 0) raw.end();
  else if (raw.end === END && body.length <= ONE_WRITE && isAscii(body))
    raw.end(body.toString('latin1'), 'latin1');
  else raw.end(body);
}

const CHANGING = [
  ...['setHeader', 'setHeaders', 'appendHeader', 'removeHeader', 'writeHead', 'flushHeaders'],
  ...['addTrailers', 'setTrailer', 'write', 'end'],
];

/**
 * Keeps a writer quiet whose response somebody else has answered: what it still writes is lost, and neither throws at it nor is
 * told to the whole process, as node tells it where nobody listens.
 */
export function mute(view: HeldView): void {
  const { raw, isHttp2 } = view;
  if (!raw.writableEnded) {
    // Something that wraps it is still about to send it.
    raw.once('finish', () => mute(view));
    return;
  }
  if (!isHttp2) raw.on('error', () => undefined);
  for (const name of CHANGING) {
    if (typeof Reflect.get(raw, name) !== 'function') continue;
    const value = (...args: unknown[]): unknown => {
      const callback = args.find((arg): arg is (error: Error) => void => typeof arg === 'function');
      if (callback) process.nextTick(callback, writeError('ERR_STREAM_DESTROYED'));
      return name === 'write' ? false : raw;
    };
    Object.defineProperty(raw, name, { value, writable: true, configurable: true });
  }
}

/** What becomes of a response that could not be sent. Never throws. */
export function recover(view: HeldView, cause: unknown, instead: (cause: unknown) => Answer): void {
  const { raw, isHttp2 } = view;
  try {
    const { status, headers, body } = instead(cause);
    // What threw behind the end of it has not harmed it.
    if (raw.writableEnded) return;
    // Where that had none, node would not send the body of another.
    if (!raw.headersSent && mayHaveBody(raw.statusCode, isHttp2)) {
      if (!isHttp2) raw.statusMessage = '';
      for (const name of raw.getHeaderNames()) raw.removeHeader(name);
      // Not through what wraps the response, which has just failed.
      view.call('writeHead', [status, { ...headers, 'content-length': body.length }]);
      view.call('end', [body]);
      return;
    }
  } catch {
    // Nothing can be answered any more.
  }
  breakOff(view);
}

/** So that the client does not take for whole what it has. */
function breakOff({ raw, isHttp2 }: HeldView): void {
  const { stream } = raw as { stream?: { close(code: number): void } };
  if (isHttp2) stream?.close(CANCEL);
  else raw.destroy();
}

/** Said here because node:http sends chunks once a length has been removed, as it is when a placeholder's headers go. */
function frame({ raw, isHttp2 }: HeldView, { status, headers, trailers, body }: Answer): void {
  if (raw.req.method === 'HEAD' || !mayHaveBody(status, isHttp2)) {
    // Nothing can follow where nothing is.
    if (raw.hasHeader('trailer')) raw.removeHeader('trailer');
    return;
  }
  // HTTP/1.0 has no chunks, and nothing behind them.
  const hasChunks = isHttp2 || raw.useChunkedEncodingByDefault;
  if (!hasChunks) for (const name of ['trailer', 'transfer-encoding']) raw.removeHeader(name);
  if (!hasChunks || (!trailers && !isChunked(headers))) {
    if (String(raw.getHeader('content-length')) !== String(body.length))
      raw.setHeader('content-length', body.length);
    return;
  }
  raw.removeHeader('content-length');
  if (!trailers) return;
  if (!isHttp2 && !isChunked(headers)) raw.setHeader('transfer-encoding', 'chunked');
  if (!isHttp2) raw.addTrailers(trailers as [string, string][]);
  for (const [name, value] of isHttp2 ? trailers : []) raw.addTrailers({ [name]: value });
}

/** Only what differs is touched, so that what stays keeps the case of its name. */
function setHeaders(raw: ServerResponse, wanted: OutgoingHttpHeaders): void {
  const present = raw.getHeaders();
  for (const name in present) {
    if (!(name in wanted)) raw.removeHeader(name);
  }
  for (const name in wanted) {
    const value = wanted[name];
    if (value === undefined) raw.removeHeader(name);
    else if (!isSame(present[name], value)) raw.setHeader(name, value);
  }
}

/** HTTP/2 of node ends a response of 205 with its head. */
export function mayHaveBody(status: number, isHttp2: boolean): boolean {
  return status >= 200 && status !== 204 && status !== 304 && !(isHttp2 && status === 205);
}

/** Trailers are announced only where chunks are sent. */
export function isChunked(headers: OutgoingHttpHeaders): boolean {
  return 'transfer-encoding' in headers || 'trailer' in headers;
}

function isSame(one: OutgoingHttpHeader | undefined, other: OutgoingHttpHeader): boolean {
  return one === other || (Array.isArray(one) && isDeepStrictEqual(one, other));
}
