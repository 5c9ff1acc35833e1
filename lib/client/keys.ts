import type { HttpMethod } from './method.js';
import type { PathValue } from './path.js';

/** What a key strategy may look at: the input as it was given, and the request as it will be sent. */
export interface KeyInput<Params = unknown, Query = unknown, Body = unknown> {
  /** The values of the path's parameters; an empty object without any. */
  readonly params: Params;
  /** The values of the query; an empty object without any. */
  readonly query: Query;
  /** The body, before its schema has seen it. */
  readonly body: Body;
  /** What will be sent, but for the headers. */
  readonly request: {
    readonly method: HttpMethod;
    readonly url: string;
    readonly contentType: string | undefined;
    /** The body as it goes out; undefined without one. */
    readonly bytes: Uint8Array | undefined;
  };
}

/** What is known of the input where the endpoint has no schema to tell more. */
type AnyKeyInput = KeyInput<Readonly<Record<string, PathValue>>, Readonly<Record<string, unknown>>>;

/** Chooses the key of a logical call, once, before its first attempt. A call that is given `idempotencyKey` does not ask. */
export type KeyStrategy<Input = KeyInput> = (input: Input) => string | Promise<string>;

/** What a server accepts as a key. Lengths are in characters. */
export interface KeyRules {
  readonly minLength: number;
  readonly maxLength: number;
  readonly pattern: RegExp;
}

/**
 * The default: a random UUID of version 7, another for every call. Two calls are two writes, a double click included.
 *
 * It begins with the time in milliseconds, followed by 74 random bits (RFC 9562, 5.7): keys of the same time lie next to each
 * other in the server's index, which stays cheap to write however large it grows. A clock that is wrong does no harm.
 */
export function randomKey(): KeyStrategy<unknown> {
  return () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const time = Date.now().toString(16).padStart(12, '0');
    return `${time}${hex(bytes.subarray(6))}`.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  };
}

/**
 * A key made of parts that name the operation, such as `submission_form42_user7`: every call with the same parts is the same
 * write, for as long as the server keeps its records. Parts are joined by `_`; what could be taken for that, or is not allowed
 * in a key, is percent-encoded, so that different parts never give the same key.
 *
 * A part that is missing, empty or `NaN` fails the call with `CALL_KEY_INVALID`: `submission_undefined` would make one write of
 * all.
 *
 * @example
 * ```ts
 * idempotency: { key: derivedKey(({ body }) => ['submission', body.formId, body.userId]) },
 * ```
 */
export function derivedKey<Input = AnyKeyInput>(
  parts: (input: Input) => readonly (string | number | bigint | null | undefined)[],
): (input: Input) => string {
  return (input) => {
    const found = parts(input);
    if (found.length === 0) throw new Error('the derived key has no parts');
    const missing = found.findIndex((part) => !isPart(part));
    if (missing >= 0) {
      throw new Error(`part ${missing + 1} of the derived key is missing, or neither text nor a number`);
    }
    return found.map((part) => encodeURIComponent(String(part)).replaceAll('_', '%5F')).join('_');
  };
}

/** Nor what all mistakes have in common: `NaN`, `[object Object]`. */
function isPart(part: unknown): boolean {
  return typeof part === 'string' ? part !== '' : typeof part === 'bigint' || Number.isFinite(part);
}

/**
 * A key that is the SHA-256 of method, address, media type and body: every call that sends the same is the same write. The
 * order of JSON properties does not count. Not for forms (`FormData`), whose boundary is another each time.
 *
 * Choose it with care: two payments of the same amount to the same receiver are the same write as well. It needs Web Crypto,
 * which browsers have on https: and localhost alone.
 */
export function bodyFingerprintKey(): KeyStrategy {
  return async ({ request: { method, url, contentType, bytes = new Uint8Array() } }) => {
    // No type in a type-checker's eyes, but absent in browsers on http:.
    const { subtle } = crypto as { subtle?: typeof crypto.subtle };
    if (!subtle) throw new Error('fingerprints need a secure context: https: or localhost');
    if (contentType?.startsWith('multipart/')) {
      throw new Error(
        'a form has a random boundary, and so would be its fingerprint: derive the key from its fields',
      );
    }
    const head = new TextEncoder().encode(`${method} ${url}\n${contentType ?? ''}\n`);
    const body = contentType === JSON_TYPE ? new TextEncoder().encode(sortedJson(bytes)) : bytes;
    const all = new Uint8Array(head.length + body.length);
    all.set(head);
    all.set(body, head.length);
    return hex(new Uint8Array(await subtle.digest('SHA-256', all)));
  };
}

/** The media type of bodies that were given as values. */
export const JSON_TYPE = 'application/json';

/** What is wrong with a key, or undefined. */
export function faultOfKey(key: unknown, { minLength, maxLength, pattern }: KeyRules): string | undefined {
  if (typeof key !== 'string') return 'is not a string';
  if (key === '') return 'is empty';
  if (key.length < minLength) return `has ${key.length} characters, the least is ${minLength}`;
  if (key.length > maxLength) return `has ${key.length} characters, the most is ${maxLength}`;
  return pattern.test(key) ? undefined : `does not match ${String(pattern)}`;
}

function sortedJson(bytes: Uint8Array): string {
  return JSON.stringify(JSON.parse(new TextDecoder().decode(bytes)), (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
