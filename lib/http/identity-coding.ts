import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import type { Answer } from './response-recorder.js';

type Decode = (body: Buffer) => Promise<Buffer>;

/** Node has it since 22.15, and where it has, `@fastify/compress` prefers it. */
const { zstdDecompress } = zlib as { zstdDecompress?: typeof zlib.gunzip };

const DECODERS: Readonly<Record<string, Decode | undefined>> = {
  gzip: promisify(zlib.gunzip),
  'x-gzip': promisify(zlib.gunzip),
  deflate: promisify(zlib.inflate),
  br: promisify(zlib.brotliDecompress),
  zstd: zstdDecompress && promisify(zstdDecompress),
};

/**
 * The answer as it was before compression (RFC 9110, section 8.4), because the retry may accept another coding or none.
 * On Express compression comes after us; on Fastify it came before. A coding that is not known is kept as it is.
 */
export async function inIdentityCoding({ headers, body, ...rest }: Answer): Promise<Answer> {
  const coding = headers['content-encoding'];
  const decode = typeof coding === 'string' ? DECODERS[coding.toLowerCase()] : undefined;
  if (!decode) return { ...rest, headers, body };
  const { 'content-encoding': _, ...others } = headers;
  return { ...rest, headers: others, body: await decode(body) };
}
