import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, Post } from '@nestjs/common';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Idempotent, IdempotencyModule, sharedClient } from 'nestjs-pg-idempotency';
import { finished } from 'node:stream/promises';
import {
  connect,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
} from 'node:http2';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';

let runs = 0;

@Controller('echo')
class EchoController {
  @Post()
  @Idempotent()
  echo(@Body() body: unknown): unknown {
    runs += 1;
    return { body, run: runs };
  }
}

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

function send(session: ClientHttp2Session, key: string, type: string, body: string): Promise<Answer> {
  // Without a content-length: HTTP/2 needs none.
  const headers = { ':method': 'POST', ':path': '/echo', 'idempotency-key': key, 'content-type': type };
  return answerTo(session.request(headers).end(body));
}

function answerTo(request: ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let received: IncomingHttpHeaders & { ':status'?: number } = {};
    let text = '';
    request.on('response', (response) => (received = response));
    request.on('data', (chunk: Buffer) => (text += chunk.toString()));
    request.on('end', () => resolve({ status: received[':status'], headers: received, text }));
    request.on('error', reject);
  });
}

describe('HTTP/2 (fastify)', () => {
  let database: TestDatabase;
  let app: NestFastifyApplication;
  let session: ClientHttp2Session;

  beforeAll(async () => {
    database = await createTestDatabase();
    const module = await Test.createTestingModule({
      imports: [
        TypeOrmModule.forRoot({ type: 'postgres', url: database.url, retryAttempts: 0 }),
        IdempotencyModule.forRoot({ client: sharedClient('tests'), purge: false }),
      ],
      controllers: [EchoController],
    }).compile();
    // The adapter's type for HTTP/2 is another than that for HTTP/1.
    const adapter = new FastifyAdapter({ http2: true } as object);
    app = module.createNestApplication<NestFastifyApplication>(adapter, { logger: false });
    const fastify = app.getHttpAdapter().getInstance();
    fastify.addContentTypeParser('text/xml', async (_request: unknown, payload: NodeJS.ReadableStream) => {
      await finished(payload.resume());
    });
    await app.listen(0, '127.0.0.1');
    const { port } = app.getHttpServer().address() as { port: number };
    session = connect(`http://127.0.0.1:${port}`);
  });

  afterAll(async () => {
    session.close();
    await app.close();
    await database.drop();
  });

  it('replays', async () => {
    const first = await send(session, 'h2', 'application/json', '{"a":1}');
    const retry = await send(session, 'h2', 'application/json', '{"a":1}');
    expect(first.status).toBe(201);
    expect(retry.status).toBe(201);
    expect(retry.text).toBe(first.text);
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(retry.headers['content-type']).toBe(first.headers['content-type']);
  });

  it('takes a body without a byte for none, however it is framed', async () => {
    const send = (endStream: boolean, headers: Record<string, string> = {}): Promise<Answer> => {
      const request = session.request(
        { ':method': 'POST', ':path': '/echo', 'idempotency-key': 'h2-empty', ...headers },
        { endStream },
      );
      if (!endStream) request.end(Buffer.alloc(0));
      return answerTo(request);
    };
    const [first, framed] = [await send(true), await send(false)];
    expect([first.status, framed.status]).toEqual([201, 201]);
    expect([framed.text, framed.headers['idempotency-replayed']]).toEqual([first.text, 'true']);
  });

  it('refuses a body that no parser has kept, although nothing declares it', async () => {
    const before = runs;
    const answer = await send(session, 'h2-xml', 'text/xml', '<a/>');
    expect(answer.status).toBe(415);
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE' });
    expect(runs).toBe(before);
  });
});
