import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fastifyCompress from '@fastify/compress';
import { ConflictException, Controller, Post, Res, StreamableFile } from '@nestjs/common';
import compression from 'compression';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import { ADAPTERS, startApp, type Adapter, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { comparableHeaders, postWithKey } from '../helpers/replay.js';

interface Reply {
  type(mediaType: string): this;
  send(body: unknown): unknown;
}

function longText(): string {
  // Not beginning with the digits: what looks like a zlib header is taken for compressed by @fastify/compress.
  return `Long: ${randomUUID()} `.repeat(200);
}

@Controller()
@Idempotent()
class LongAnswersController {
  @Post('json')
  json(): object {
    return { text: longText() };
  }

  @Post('file')
  file(): StreamableFile {
    return new StreamableFile(Readable.from([Buffer.from(longText())]), { type: 'text/csv' });
  }

  @Post('sent')
  sent(@Res() reply: Reply): void {
    reply.type('text/plain').send(longText());
  }

  @Post('refusal')
  refusal(): never {
    throw new ConflictException(longText());
  }
}

type Decode = (body: Buffer) => Buffer;

/** Node has it since 22.15. */
const { zstdDecompressSync } = zlib as { zstdDecompressSync?: Decode };

const DECODERS: Readonly<Record<string, Decode>> = {
  gzip: zlib.gunzipSync,
  deflate: zlib.inflateSync,
  br: zlib.brotliDecompressSync,
  identity: (body) => body,
  ...(zstdDecompressSync && { zstd: zstdDecompressSync }),
};

/** What the adapter's compression offers. */
function codingsOf(adapter: Adapter): string[] {
  const common = ['gzip', 'deflate', 'br'];
  return adapter === 'fastify' && zstdDecompressSync ? [...common, 'zstd'] : common;
}

function decoded({ headers, body }: HttpResponse): string {
  return DECODERS[(headers['content-encoding'] as string | undefined) ?? 'identity']!(body).toString();
}

/** Coding and framing depend on what the retry accepts; all else must be equal. */
function headersButCoding(response: HttpResponse): Record<string, unknown> {
  const {
    'content-encoding': _coding,
    'content-length': _length,
    'transfer-encoding': _framing,
    ...others
  } = comparableHeaders(response);
  return others;
}

describe.each(ADAPTERS)('a replay of a compressed answer (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [LongAnswersController],
      configure: async (nest) => {
        if (adapter === 'express') nest.use(compression({ threshold: 0 }));
        else await nest.register(fastifyCompress, { threshold: 0 });
      },
    });
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (path: string, key: string, coding: string, body = {}): Promise<HttpResponse> =>
    postWithKey(`${app.url}/${path}`, key, body, { 'Accept-Encoding': coding });

  describe.each(codingsOf(adapter))('to a first client that accepts %s', (coding) => {
    it.each(['json', 'file', 'sent', 'refusal'])(
      'repeats /%s for any other coding, or none',
      async (path) => {
        const key = randomUUID();
        const original = await send(path, key, coding);
        expect(original.headers['content-encoding']).toBe(coding);
        for (const accepted of [...codingsOf(adapter), 'identity']) {
          const replay = await send(path, key, accepted);
          expect(replay.headers['idempotency-replayed']).toBe('true');
          expect(replay.status).toBe(original.status);
          expect([accepted, undefined]).toContain(replay.headers['content-encoding']);
          expect(decoded(replay)).toBe(decoded(original));
          expect(headersButCoding(replay)).toEqual(headersButCoding(original));
        }
      },
    );

    it('keeps the answer as it was before compression', async () => {
      const key = randomUUID();
      const original = await send('json', key, coding);
      const [row] = await database.query<{ body: Buffer; headers: string }>(
        'SELECT response_body AS body, response_headers::text AS headers FROM idempotency_records WHERE key = $1',
        [key],
      );
      expect(row!.body.toString()).toBe(decoded(original));
      expect(row!.headers).not.toContain('content-encoding');
    });
  });

  it('repeats an uncompressed original to a client that accepts compression', async () => {
    const original = await send('json', 'plain-first', 'identity');
    expect(original.headers['content-encoding']).toBeUndefined();
    const replay = await send('json', 'plain-first', 'gzip');
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(decoded(replay)).toBe(original.text);
  });

  it('is told apart from an error of the library, whose media type stays when it is compressed', async () => {
    await send('json', 'reused', 'gzip');
    const refusal = await send('json', 'reused', 'gzip', { another: 'body' });
    expect(refusal.status).toBe(422);
    expect(refusal.headers['content-type']).toBe('application/problem+json; charset=utf-8');
    expect(JSON.parse(decoded(refusal))).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
  });
});
