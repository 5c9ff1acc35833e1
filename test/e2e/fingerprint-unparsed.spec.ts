import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Controller, Post, Req } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';

let runs = 0;

@Controller()
class BodiesController {
  @Post('any')
  @Idempotent()
  any(): object {
    runs += 1;
    return { id: randomUUID() };
  }

  @Post('computed')
  @Idempotent({
    fingerprint: {
      body: ({ headers }: IncomingMessage) => headers['digest'] as string,
    },
  })
  computed(@Req() request: unknown): object {
    runs += 1;
    return { id: randomUUID(), hasRequest: request !== undefined };
  }
}

interface FastifyInstance {
  removeContentTypeParser(type: string): void;
  addContentTypeParser(
    type: string,
    parser: (request: unknown, payload: IncomingMessage, done: (error: null) => void) => void,
  ): void;
}

const MULTIPART = [
  '--edge',
  'Content-Disposition: form-data; name="file"; filename="a.txt"',
  '',
  'content',
  '--edge--',
  '',
].join('\r\n');

describe.each(ADAPTERS)('a body that no parser has read (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;
  let key: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [BodiesController],
      configure: (nest) => {
        if (adapter === 'express') return;
        // Lets everything through unread, as plugins for uploads do; without it Fastify refuses unknown types itself.
        const fastify = nest.getHttpAdapter().getInstance() as unknown as FastifyInstance;
        fastify.removeContentTypeParser('text/plain');
        fastify.addContentTypeParser('*', (_request, _payload, done) => done(null));
      },
    });
  });

  beforeEach(() => {
    runs = 0;
    key = randomUUID();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (
    path: string,
    type: string,
    body: string,
    headers: Record<string, string> = {},
  ): Promise<HttpResponse> =>
    sendRequest(`${app.url}/${path}`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, ...(type === '' ? {} : { 'Content-Type': type }), ...headers },
      body,
    });

  it.each([
    ['text', 'any', 'text/plain', 'text'],
    ['XML', 'any', 'application/xml', '<a/>'],
    ['bytes', 'any', 'application/octet-stream', '\u0000'],
    ['no type', 'any', '', 'anything'],
    ['multipart', 'any', 'multipart/form-data; boundary=edge', MULTIPART],
  ])('is refused when it is %s', async (_what, path, type, body) => {
    const refusal = await send(path, type, body);
    expect(refusal.status).toBe(415);
    expect(refusal.headers['content-type']).toBe('application/problem+json; charset=utf-8');
    expect(refusal.json()).toMatchObject({
      code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
      detail: expect.stringContaining('fingerprint.body'),
    });
    expect(runs).toBe(0);
    expect(await database.query('SELECT FROM idempotency_records WHERE key = $1', [key])).toEqual([]);
  });

  it('is refused when it comes in chunks', async () => {
    const response = await fetch(`${app.url}/any`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, 'Content-Type': 'application/xml' },
      body: new Blob(['<a/>']).stream(),
      duplex: 'half',
    });
    expect(response.status).toBe(415);
    expect(await response.json()).toMatchObject({ code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE' });
    expect(runs).toBe(0);
  });

  it('leaves its key free for the request in another form', async () => {
    expect((await send('any', 'text/plain', 'text')).status).toBe(415);
    expect((await send('any', 'application/json', '{}')).status).toBe(201);
    expect(runs).toBe(1);
  });

  it('counts by what the route computes of it', async () => {
    const type = 'application/xml';
    const original = await send('computed', type, '<a/>', { Digest: 'one' });
    const replay = await send('computed', type, '<a />', { Digest: 'one' });
    const refusal = await send('computed', type, '<a/>', { Digest: 'two' });
    expect(original.status).toBe(201);
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(replay.text).toBe(original.text);
    expect(refusal.status).toBe(422);
    expect(runs).toBe(1);
  });
});

/** JSON whose dates and big numbers become what they stand for, as a parser of the application's own makes them. */
function revived(text: string): unknown {
  return JSON.parse(text, (_name, value: unknown) => {
    if (typeof value !== 'string') return value;
    if (/^\d+n$/.test(value)) return BigInt(value.slice(0, -1));
    return /^\d{4}-\d\d-\d\dT/.test(value) ? new Date(value) : value;
  });
}

describe.each(ADAPTERS)('a body that the application parses by itself (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;
  let key: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [BodiesController],
      configure: (nest) => {
        if (adapter === 'express') {
          nest.useBodyParser('text', { type: 'text/plain' });
          nest.use((request: { body?: unknown }, _response: unknown, next: () => void) => {
            if (typeof request.body === 'string') request.body = revived(request.body);
            next();
          });
          return;
        }
        const fastify = nest.getHttpAdapter().getInstance() as unknown as {
          removeContentTypeParser(type: string): void;
          addContentTypeParser(type: string, options: object, parser: (...args: unknown[]) => void): void;
        };
        fastify.removeContentTypeParser('text/plain');
        fastify.addContentTypeParser('text/plain', { parseAs: 'string' }, (_request, body, done) =>
          (done as (error: null, value: unknown) => void)(null, revived(body as string)),
        );
      },
    });
  });

  beforeEach(() => {
    runs = 0;
    key = randomUUID();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (body: string): Promise<HttpResponse> =>
    sendRequest(`${app.url}/any`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, 'Content-Type': 'text/plain; charset=UTF-8' },
      body,
    });

  it.each([
    [
      'a notification',
      '{"Type":"Notification","Message":"{}"}',
      '{ "Message": "{}", "Type": "Notification" }',
      '{"Type":"Other","Message":"{}"}',
    ],
    ['nothing but braces', '{}', '{ }', '[]'],
    [
      'a date',
      '{"at":"2026-01-01T00:00:00Z"}',
      '{"at":"2026-01-01T00:00:00.000Z"}',
      '{"at":"2026-01-01T00:00:01Z"}',
    ],
    [
      'a big number',
      '{"id":"9007199254740993n"}',
      '{ "id": "9007199254740993n" }',
      '{"id":"9007199254740992n"}',
    ],
  ])('is compared by value: %s', async (_what, body, same, other) => {
    expect((await send(body)).status).toBe(201);
    expect((await send(same)).headers['idempotency-replayed']).toBe('true');
    expect((await send(other)).status).toBe(422);
    expect(runs).toBe(1);
  });
});
