import { fillPath } from './path.js';
import { JSON_TYPE } from './keys.js';
import type { QueryValues } from './declaration.js';
import type { Settings } from './settings.js';

/** What a call may be given, whatever its types say. */
export interface AnyInput {
  readonly params?: Readonly<Record<string, unknown>>;
  readonly query?: QueryValues;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** A body as it goes out. */
export interface FrozenBody {
  readonly bytes: Uint8Array<ArrayBuffer> | undefined;
  readonly contentType: string | undefined;
}

/**
 * The address of a call.
 *
 * @throws Error that names the parameter at fault.
 */
export function addressOf({ baseUrl, path }: Settings, { params = {}, query = {} }: AnyInput): string {
  const filled = fillPath(path, params);
  if ('fault' in filled) throw new Error(filled.fault);
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) if (each !== undefined) search.append(name, String(each));
  }
  return baseUrl + filled.path + (search.size > 0 ? `?${search.toString()}` : '');
}

/**
 * The bytes of a body, taken at once: what the caller changes afterwards changes nothing. Forms, blobs, bytes and streams are
 * sent as they are, everything else as JSON.
 *
 * @throws TypeError for what JSON cannot hold.
 */
export function freezeBody(body: unknown): FrozenBody | Promise<FrozenBody> {
  if (body === undefined) return { bytes: undefined, contentType: undefined };
  const bytes = copyOfBytes(body);
  if (bytes) return { bytes, contentType: 'application/octet-stream' };
  if (isOfThePlatform(body)) return readBody(new Response(body as FormData));
  if (isUnlikeJson(body))
    throw new TypeError('the body is a collection, form or stream that JSON would make {} of');
  const json = JSON.stringify(body) as string | undefined;
  if (json === undefined) throw new TypeError(`the body is a ${typeof body}, which JSON cannot hold`);
  return { bytes: new TextEncoder().encode(json), contentType: JSON_TYPE };
}

/** By their tags: a form or stream of another realm, or of a library's own making, is none that the platform can read. */
const UNLIKE_JSON = /^\[object (?:Map|Set|FormData|Blob|File|URLSearchParams|ReadableStream)\]$/;

function isUnlikeJson(body: unknown): boolean {
  if (typeof body !== 'object' || body === null) return false;
  return Symbol.asyncIterator in body || UNLIKE_JSON.test(Object.prototype.toString.call(body));
}

/** Whether a body goes out as the bytes that it is, and not as JSON. */
export function isSentAsItIs(body: unknown): boolean {
  return body instanceof ArrayBuffer || ArrayBuffer.isView(body) || isOfThePlatform(body);
}

function copyOfBytes(body: unknown): Uint8Array<ArrayBuffer> | undefined {
  if (body instanceof ArrayBuffer) return new Uint8Array(body.slice());
  if (!ArrayBuffer.isView(body)) return undefined;
  // Not by slice, which of a Buffer of Node.js is no copy.
  return new Uint8Array(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
}

function isOfThePlatform(body: unknown): boolean {
  return [FormData, Blob, URLSearchParams, ReadableStream].some((type) => body instanceof type);
}

/** The platform knows how these are written; a form gets its boundary once, for all attempts. */
async function readBody(written: Response): Promise<FrozenBody> {
  const contentType = written.headers.get('content-type') ?? 'application/octet-stream';
  return { bytes: new Uint8Array(await written.arrayBuffer()), contentType };
}
