import { createHash, hash } from 'node:crypto';
import { canonicalJson, NotCanonicalError } from './canonical-json.js';
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

/** What a request asks for: all of it counts. */
export interface FingerprintInput {
  readonly method: string;
  /** The concrete path, parameters filled in, as it was sent. */
  readonly path: string;
  /** The query as it was sent, without the question mark. */
  readonly query: string;
  /** Type and subtype in lower case, without parameters; empty without a body. */
  readonly mediaType: string;
  readonly body: FingerprintBody;
}

/**
 * SHA-256 over everything a request asks for, after one byte of version. Each part is hashed with its length, so that
 * no two different requests are made of the same bytes. Parsed bodies count by value: the order of members and white
 * space do not matter, letter case and types do. Of a multipart body the boundary and the order of its fields do not matter.
 *
 * @param exclude - Dotted paths in the body that do not count.
 * @param excludeFiles - Fields whose files do not count. Default: the same.
 * @returns undefined for a parsed body that cannot be written canonically.
 */
export function fingerprint(
  input: FingerprintInput,
  exclude: readonly string[] = [],
  excludeFiles = exclude,
): Buffer | undefined {
  try {
    const { method, path, query, mediaType, body } = input;
    const head = lengthened(method, path, query, mediaType, body.kind);
    const content = bodyContent(body, exclude, excludeFiles);
    const digest = sha256(head, content);
    return Buffer.from(String.fromCharCode(FINGERPRINT_VERSION) + digest, 'latin1');
  } catch (error) {
    if (error instanceof NotCanonicalError) return undefined;
    throw error;
  }
}

/** The digest, one character for each byte. In one call where all is text, which costs a third of a stream of parts. */
function sha256(head: string, content: string | Uint8Array): string {
  return typeof content === 'string'
    ? hash('sha256', head + lengthened(content), 'binary')
    : createHash('sha256').update(`${head}${content.byteLength}:`).update(content).digest('binary');
}

function bodyContent(
  body: FingerprintBody,
  exclude: readonly string[],
  excludeFiles: readonly string[],
): string | Uint8Array {
  switch (body.kind) {
    case 'empty':
      return '';
    case 'parsed':
      return canonicalJson(exclude.reduce(without, body.value));
    case 'multipart':
      return canonicalJson({
        fields: exclude.reduce(without, body.fields),
        files: filesByField(body.files.filter(({ field }) => !excludeFiles.includes(field))),
      });
    case 'text':
      // As JSON, because UTF-8 would turn different lone surrogates into the same bytes.
      return JSON.stringify(body.text);
    case 'bytes':
      return body.bytes;
    case 'custom':
      return body.value;
  }
}

/** Parsers keep the order of the files in one field only. */
function filesByField(files: readonly FileDigest[]): object {
  const fields = new Map<string, object[]>();
  for (const { field, ...file } of files) fields.set(field, [...(fields.get(field) ?? []), file]);
  return Object.fromEntries(fields);
}

/** A copy without the field at a dotted path; the value itself where there is no such field. */
function without(value: unknown, path: string): unknown {
  const [head = '', ...rest] = path.split('.');
  if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, head))
    return value;
  const { [head]: field, ...others } = value as Record<string, unknown>;
  return rest.length === 0 ? others : { ...others, [head]: without(field, rest.join('.')) };
}
