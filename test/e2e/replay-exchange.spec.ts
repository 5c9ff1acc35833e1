import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fastifyCors from '@fastify/cors';
import { Controller, Post, Res } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { postWithKey } from '../helpers/replay.js';

interface Reply {
  header(name: string, value: string | string[]): this;
  readonly raw?: ServerResponse;
}

@Controller()
@Idempotent()
class CookiesController {
  @Post('login')
  login(@Res({ passthrough: true }) reply: Reply): object {
    reply.header('Set-Cookie', ['session=secret-of-the-first; HttpOnly', 'theme=dark']);
    reply.header('WWW-Authenticate', 'Bearer realm="secret-of-the-first"');
    reply.header('Proxy-Authenticate', 'Basic realm="secret-of-the-first"');
    reply.header('X-Kept', 'kept');
    return { id: randomUUID() };
  }

  @Post('limits')
  @Idempotent({ response: { headers: { allow: ['X-Request-Id'], deny: ['X-Denied'] } } })
  limits(@Res({ passthrough: true }) reply: Reply): object {
    reply.header('X-Request-Id', 'of-the-handler').header('X-Denied', 'denied');
    return { id: randomUUID() };
  }

  @Post('appended')
  appended(@Res({ passthrough: true }) reply: Reply): object {
    (reply.raw ?? (reply as unknown as ServerResponse)).appendHeader('Link', '</of-the-handler>');
    return { id: randomUUID() };
  }

  @Post('withdrawn')
  @Idempotent({ response: { maxSize: 100 } })
  withdrawn(@Res({ passthrough: true }) reply: Reply): object {
    const response = reply.raw ?? (reply as unknown as ServerResponse);
    response.appendHeader('Set-Cookie', 'session=of-what-was-undone');
    return { text: 'x'.repeat(200) };
  }
}

const ORIGINS = ['https://a.example', 'https://b.example'];
let requests = 0;

/** Headers as middleware sets them: some before the handler, some when the head is written. */
function middleware(request: { readonly url?: string }, response: ServerResponse, next: () => void): void {
  requests += 1;
  const number = String(requests);
  response.setHeader('X-RateLimit-Remaining', number);
  response.setHeader('X-Request-Id', number);
  setLists(request, response);
  const writeHead = response.writeHead.bind(response) as (...args: unknown[]) => ServerResponse;
  response.writeHead = (...args: unknown[]): ServerResponse => {
    response.setHeader('Server-Timing', `total;dur=${number}`);
    response.appendHeader('Set-Cookie', `visit=${number}`);
    return writeHead(...args);
  };
  next();
}

/** Headers that Node appends to in place. */
function setLists({ url = '' }: { readonly url?: string }, response: ServerResponse): void {
  if (!/appended|withdrawn/.test(url)) return;
  response.setHeader('Link', ['</one>', '</two>']);
  response.setHeader('Set-Cookie', ['one=1', 'two=2']);
}

interface HookedReply extends Reply {
  readonly raw: ServerResponse;
}

interface FastifyInstance {
  addHook(name: string, hook: (request: { readonly url: string }, reply: HookedReply) => Promise<void>): void;
}

/** The same by Fastify's hooks. */
function addHooks(instance: FastifyInstance): void {
  const numbers = new WeakMap<ServerResponse, string>();
  instance.addHook('onRequest', async (request, reply) => {
    requests += 1;
    numbers.set(reply.raw, String(requests));
    setLists(request, reply.raw);
    reply.header('X-RateLimit-Remaining', String(requests));
    reply.header('X-Request-Id', String(requests));
  });
  instance.addHook('onSend', async (_request, reply) => {
    reply.header('Server-Timing', `total;dur=${numbers.get(reply.raw)!}`);
    reply.header('Set-Cookie', `visit=${numbers.get(reply.raw)!}`);
  });
}

describe.each(ADAPTERS)('headers of the current exchange (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [CookiesController],
      configure: async (nest) => {
        if (adapter === 'express') {
          nest.use(middleware);
          nest.enableCors({ origin: ORIGINS, credentials: true, exposedHeaders: ['Idempotency-Replayed'] });
        } else {
          addHooks(nest.getHttpAdapter().getInstance() as unknown as FastifyInstance);
          await nest.register(fastifyCors, { origin: ORIGINS, credentials: true });
        }
      },
    });
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (path: string, key: string, origin = ORIGINS[0]!): Promise<HttpResponse> =>
    postWithKey(`${app.url}/${path}`, key, {}, { Origin: origin });

  it('are those of CORS for the origin that asks', async () => {
    const original = await send('login', 'cors', ORIGINS[0]);
    const replay = await send('login', 'cors', ORIGINS[1]);
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(original.headers['access-control-allow-origin']).toBe(ORIGINS[0]);
    expect(replay.headers['access-control-allow-origin']).toBe(ORIGINS[1]);
    expect(replay.headers['access-control-allow-credentials']).toBe('true');
    expect(replay.headers['vary']).toBe(original.headers['vary']);
    const stranger = await send('login', 'cors', 'https://stranger.example');
    expect(stranger.headers['idempotency-replayed']).toBe('true');
    expect(stranger.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('are those of rate limits, request ids and timings', async () => {
    const original = await send('login', 'exchange');
    const replay = await send('login', 'exchange');
    expect(replay.headers['idempotency-replayed']).toBe('true');
    for (const { headers } of [original, replay]) {
      const number = headers['x-request-id'] as string;
      expect(headers['x-ratelimit-remaining']).toBe(number);
      expect(headers['server-timing']).toBe(`total;dur=${number}`);
    }
    expect(replay.headers['x-request-id']).not.toBe(original.headers['x-request-id']);
  });

  it('go to the first client as cookies and challenges, and to nobody else', async () => {
    const original = await send('login', 'first-login');
    const replay = await send('login', 'first-login');
    expect(original.headers['set-cookie']).toEqual(
      expect.arrayContaining(['session=secret-of-the-first; HttpOnly', 'theme=dark']),
    );
    expect(original.headers['www-authenticate']).toBe('Bearer realm="secret-of-the-first"');
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(replay.headers['x-kept']).toBe('kept');
    expect(JSON.stringify(replay.rawHeaders)).not.toMatch(/secret|theme/);
    expect(replay.headers['set-cookie']).toBe(`visit=${replay.headers['x-request-id'] as string}`);
  });

  it('are recorded where the route allows it and left out where it denies it', async () => {
    const original = await send('limits', 'lists');
    const replay = await send('limits', 'lists');
    expect(original.headers).toMatchObject({ 'x-request-id': 'of-the-handler', 'x-denied': 'denied' });
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(replay.headers['x-request-id']).toBe('of-the-handler');
    expect(replay.headers['x-denied']).toBeUndefined();
  });

  it('are recorded where the handler appends to them', async () => {
    const original = await send('appended', 'appended');
    const replay = await send('appended', 'appended');
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(original.headers['link']).toEqual(['</one>', '</two>', '</of-the-handler>']);
    expect(replay.headers['link']).toEqual(original.headers['link']);
  });

  it('are all that an answer has whose handler was undone', async () => {
    const { status, headers } = await send('withdrawn', 'withdrawn');
    expect(status).toBe(500);
    expect(headers['set-cookie']).toEqual(expect.arrayContaining(['one=1', 'two=2']));
    expect(headers['set-cookie']).not.toContain('session=of-what-was-undone');
  });

  it('leave no secret in the table', async () => {
    const rows = await database.query<{ row: string }>(
      'SELECT idempotency_records::text AS row FROM idempotency_records',
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const { row } of rows) {
      expect(row).not.toMatch(/cookie|secret|authenticate|visit|theme|access-control|x-ratelimit/i);
    }
  });
});
