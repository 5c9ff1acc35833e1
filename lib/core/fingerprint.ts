import { createHash, hash } from 'node:crypto';
import { canonicalText, type Excluded } from './canonical.js';
import { lengthened } from './lengthened.js';

/** The first byte of every fingerprint. A change of the rules below needs a new number. */
export const FINGERPRINT_VERSION = 1;

/** The body as the application's parsers left it. */
export type FingerprintBody =
  | { readonly kind: 'empty' }
  | { readonly kind: 'parsed'; readonly value: unknown }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'multipart'; readonly fields: unknown; readonly files: readonly FileDigest[] }
  /** The application's own function decided what counts. */
  | { readonly kind: 'custom'; readonly value: string | Uint8Array };

/** A file of a multipart body. */
export interface FileDigest {
  /** Name of the field it was sent in. */
  readonly field: string;
  /** Its name at the client, where that is known. */
  readonly name: string | undefined;
  readonly mediaType: string | undefined;
  /** SHA-256 of its content, in hexadecimal. */
  readonly sha256: string;
}

/** Everything of a request that decides which work is done: all of it counts. */
export interface FingerprintInput {
  readonly method: string;
  /** The host, where requests are routed by it. */
  readonly host?: string | undefined;
  /** The version that the request is served in, where requests are routed by it. */
  readonly version?: string | undefined;
  /** Lines of the headers that the route counts, each behind its name. */
  readonly headers?: readonly (readonly string[])[];
  /** The concrete path, parameters filled in, in the one spelling that all the router takes for the same have. */
  readonly path: string;
  /** The query as it was sent, without the question mark. */
  readonly query: string;
  /** Type and subtype in lower case, without parameters; empty without a body. */
  readonly mediaType: string;
  readonly body: FingerprintBody;
}

/** What of a body does not count. */
export interface Exclusions {
  /** Members of the parsed body, and fields of an upload. */
  readonly members?: Excluded | undefined;
  /** Fields whose files do not count. */
  readonly files?: ReadonlySet<string>;
}

/**
 * SHA-256 over everything a request asks for, after one byte of version. Each part is hashed with its length, so that
 * no two different requests are made of the same bytes. Parsed bodies count by value: the order of members and white
 * space do not matter, letter case and types do. Of a multipart body the boundary and the order of its fields do not matter.
 *
 * @throws NotCanonicalError for a parsed body that cannot be compared; it names the place.
 */
export function fingerprint(input: FingerprintInput, exclusions: Exclusions = {}): Buffer {
  const { method, path, query, mediaType, body } = input;
  const head = lengthened(method, path, query, mediaType, body.kind) + routing(input);
  const digest = sha256(head, bodyContent(body, exclusions));
  return Buffer.from(String.fromCharCode(FINGERPRINT_VERSION) + digest, 'latin1');
}

/** What only some routes count; empty where there is nothing. The names of the first two are none that a header can have. */
function routing({ host, version, headers = [] }: FingerprintInput): string {
  const parts = [
    host !== undefined && ['routed host', host],
    version !== undefined && ['routed version', version],
    ...headers,
  ];
  const named = parts.filter((part) => part !== false).map((part) => lengthened(...part));
  return named.length === 0 ? '' : lengthened('routing', ...named);
}

/** The digest, one character for each byte. In one call where all is text, which costs a third of a stream of parts. */
function sha256(head: string, content: string | Uint8Array): string {
  return typeof content === 'string'
    ? hash('sha256', head + lengthened(content), 'binary')
    : createHash('sha256').update(`${head}${content.byteLength}:`).update(content).digest('binary');
}

function bodyContent(body: FingerprintBody, { members, files = NONE }: Exclusions): string | Uint8Array {
  switch (body.kind) {
    case 'empty':
      return '';
    case 'parsed':
      return canonicalText(body.value, members);
    case 'multipart':
      return canonicalText(
        { fields: body.fields, files: filesByField(body.files.filter(({ field }) => !files.has(field))) },
        members && new Map([['fields', members]]),
      );
    case 'text':
      // As JSON, because UTF-8 would turn different lone surrogates into the same bytes.
      return JSON.stringify(body.text);
    case 'bytes':
      return body.bytes;
    case 'custom':
      return body.value;
  }
}

const NONE: ReadonlySet<string> = new Set();

/** Parsers keep the order of the files in one field only. */
function filesByField(files: readonly FileDigest[]): object {
  const fields = new Map<string, object[]>();
  for (const { field, ...file } of files) {
    const known = fields.get(field);
    if (known) known.push(file);
    else fields.set(field, [file]);
  }
  return Object.fromEntries(fields);
}
