import { describe, expect, it } from '@jest/globals';
import * as zlib from 'node:zlib';
import { inIdentityCoding } from '../../../lib/http/identity-coding.js';

type Encode = (body: Buffer) => Buffer;

const { zstdCompressSync } = zlib as { zstdCompressSync?: Encode };
const CODINGS: [string, Encode][] = [
  ['gzip', zlib.gzipSync],
  ['x-gzip', zlib.gzipSync],
  ['GZIP', zlib.gzipSync],
  ['deflate', zlib.deflateSync],
  ['br', zlib.brotliCompressSync],
  // Node has it since 22.15.
  ...(zstdCompressSync ? ([['zstd', zstdCompressSync]] as [string, Encode][]) : []),
];

const BODY = Buffer.from('a body '.repeat(100));

describe('inIdentityCoding', () => {
  it.each(CODINGS)('undoes %s', async (coding, encode) => {
    const headers = { 'content-encoding': coding, etag: '"1"' };
    expect(await inIdentityCoding({ status: 201, headers, body: encode(BODY) }, BODY.length)).toEqual({
      status: 201,
      headers: { etag: '"1"' },
      body: BODY,
    });
  });

  it.each([[{}], [{ 'content-encoding': 'compress' }], [{ 'content-encoding': 'gzip, br' }]])(
    'leaves an answer with %j as it is',
    async (headers) => {
      const answer = { status: 200, headers, body: BODY };
      expect(await inIdentityCoding(answer, 1)).toEqual(answer);
    },
  );

  it('leaves a body that is not in the coding it claims as it is', async () => {
    const answer = { status: 200, headers: { 'content-encoding': 'gzip' }, body: BODY };
    expect(await inIdentityCoding(answer, BODY.length)).toEqual(answer);
  });

  it.each(CODINGS)('does not undo %s beyond the size that is recorded', async (coding, encode) => {
    const answer = { status: 200, headers: { 'content-encoding': coding }, body: encode(BODY) };
    expect(await inIdentityCoding(answer, BODY.length - 1)).toBeUndefined();
  });
});
