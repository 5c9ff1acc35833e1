import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import type { FileDigest } from '../core/fingerprint.js';
import type { Exchange } from './exchange.js';

/** A file as an upload parser left it. */
interface UploadedFile extends Omit<FileDigest, 'sha256'> {
  /** In memory, or where it is on disk; undefined where neither is known. */
  readonly content: Uint8Array | string | undefined;
}

/** Fields and files of a multipart body. */
export interface Upload {
  readonly fields: unknown;
  readonly files: readonly UploadedFile[];
}

/** What multer says of a file. `buffer` and `path` depend on its storage. */
interface MulterFile {
  readonly fieldname: string;
  readonly originalname?: string;
  readonly mimetype?: string;
  readonly buffer?: unknown;
  readonly path?: unknown;
}

/** What `@fastify/multipart` attaches to the body for a field or a file. */
interface FastifyPart {
  readonly type: 'field' | 'file';
  readonly fieldname: string;
  readonly value?: unknown;
  readonly filename?: string;
  readonly mimetype?: string;
  /** Set once the file was read. */
  readonly _buf?: unknown;
}

/** Hashed at a time, before others have a turn. */
const SLICE = 4 * 1024 * 1024;
/** What is at a path that is none of this machine's: that of a storage elsewhere. */
const NO_FILE = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG', 'ERR_INVALID_ARG_VALUE']);

/**
 * The fields and files of a multipart body as its parser left them, or undefined when none that is known has read it:
 * one that keeps its files elsewhere would make requests with different files equal.
 *
 * multer, and what imitates it, puts files on the request and makes a body without a prototype; `@fastify/multipart`
 * attaches a body of parts, or of plain values.
 */
export function uploadOf({ request, body }: Exchange): Upload | undefined {
  const { file, files, isMultipart } = request as Record<string, unknown>;
  const found = [file, files].filter((value) => typeof value === 'object' && value !== null);
  if (found.length > 0) return { fields: body ?? {}, files: found.flatMap(filesIn).map(ofMulter) };
  if (typeof body !== 'object' || body === null) return undefined;
  if (Object.getPrototypeOf(body) === null) return { fields: body, files: [] };
  const entries = Object.entries(body) as [string, unknown][];
  if (entries.some(([, value]) => [value].flat().some((part) => isPartOf(part, body))))
    return ofParts(entries);
  return typeof isMultipart === 'function' ? ofValues(entries) : undefined;
}

/**
 * Fields and files with the digests of their content, or undefined when one's content cannot be had. Files on disk are
 * read as streams.
 */
export async function digestsOf(files: readonly UploadedFile[]): Promise<FileDigest[] | undefined> {
  const digests: FileDigest[] = [];
  for (const { content, ...file } of files) {
    const sha256 = await digestOf(content);
    if (sha256 === undefined) return undefined;
    digests.push({ ...file, sha256 });
  }
  return digests;
}

async function digestOf(content: UploadedFile['content']): Promise<string | undefined> {
  if (content === undefined) return undefined;
  const hash = createHash('sha256');
  if (typeof content !== 'string') {
    for (let offset = 0; offset < content.length; offset += SLICE) {
      if (offset > 0) await setImmediate();
      hash.update(content.subarray(offset, offset + SLICE));
    }
    return hash.digest('hex');
  }
  try {
    await pipeline(createReadStream(content), hash);
    return hash.digest('hex');
  } catch (error) {
    if (NO_FILE.has(String((error as NodeJS.ErrnoException).code))) return undefined;
    throw error;
  }
}

/** One file, a list, or lists by field. */
function filesIn(files: unknown): unknown[] {
  if (Array.isArray(files)) return files;
  return isMulterFile(files) ? [files] : Object.values(files as object).flat();
}

function isMulterFile(file: unknown): file is MulterFile {
  return typeof file === 'object' && file !== null && 'fieldname' in file;
}

function ofMulter(file: unknown): UploadedFile {
  if (!isMulterFile(file)) return { field: '', name: undefined, mediaType: undefined, content: undefined };
  const { fieldname, originalname, mimetype, buffer, path } = file;
  const onDisk = typeof path === 'string' ? path : undefined;
  const content = buffer instanceof Uint8Array ? buffer : onDisk;
  return { field: fieldname, name: originalname, mediaType: mimetype, content };
}

/** Its parts refer to the body that holds them, which no field can be made to look like. */
function isPartOf(part: unknown, body: object): part is FastifyPart {
  return typeof part === 'object' && part !== null && 'fields' in part && part.fields === body;
}

function ofParts(entries: readonly [string, unknown][]): Upload {
  const parts = entries.flatMap(([, value]) => value as FastifyPart | FastifyPart[]);
  const fields = entries.map(([name, value]) => [name, valuesOf(value as FastifyPart | FastifyPart[])]);
  return {
    fields: Object.fromEntries(fields),
    files: parts
      .filter(({ type }) => type === 'file')
      .map(({ fieldname, filename, mimetype, _buf }) => ({
        field: fieldname,
        name: filename,
        mediaType: mimetype,
        content: _buf instanceof Uint8Array ? _buf : undefined,
      })),
  };
}

/** The text of a field; files are counted elsewhere. */
function valuesOf(parts: FastifyPart | FastifyPart[]): unknown {
  if (!Array.isArray(parts)) return parts.type === 'field' ? parts.value : undefined;
  const values = parts.filter(({ type }) => type === 'field').map(({ value }) => value);
  return values.length > 0 ? values : undefined;
}

/** Names and media types of the files are not known here, not even to the handler. */
function ofValues(entries: readonly [string, unknown][]): Upload {
  const fields: [string, unknown][] = [];
  const files: UploadedFile[] = [];
  for (const [field, value] of entries) {
    const values = Array.isArray(value) ? (value as unknown[]) : [value];
    const contents = values.filter((item) => item instanceof Uint8Array);
    for (const content of contents) files.push({ field, name: undefined, mediaType: undefined, content });
    if (contents.length < values.length) {
      fields.push([
        field,
        Array.isArray(value) ? values.filter((item) => !(item instanceof Uint8Array)) : value,
      ]);
    }
  }
  return { fields: Object.fromEntries(fields), files };
}
