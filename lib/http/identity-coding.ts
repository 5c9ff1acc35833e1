import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import type { Answer } from '../transports/http/delivery.js';

type Decode = (body: Buffer, limit: zlib.ZlibOptions) => Promise<Buffer>;

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
 * On Express compression comes after us; on Fastify it came before. A coding that is not known is kept as it is, and so is
 * a body that is not in the coding it claims: `@fastify/compress` takes text whose first bytes look like a zlib header for
 * compressed, and only labels it.
 *
 * @returns undefined when it is larger than `maxSize` bytes.
 */
export async function inIdentityCoding(answer: Answer, maxSize: number): Promise<Answer | undefined> {
  const coding = answer.headers['content-encoding'];
  const name = typeof coding === 'string' ? coding.toLowerCase() : '';
  const decode = Object.hasOwn(DECODERS, name) ? DECODERS[name] : undefined;
  if (!decode) return answer;
  const { 'content-encoding': _, ...headers } = answer.headers;
  try {
    return { ...answer, headers, body: await decode(answer.body, { maxOutputLength: maxSize }) };
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? undefined : answer;
  }
}
