import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  Catch,
  Controller,
  Header,
  HttpCode,
  HttpException,
  Post,
  Redirect,
  Res,
  StreamableFile,
  type ArgumentsHost,
  type ExceptionFilter,
} from '@nestjs/common';
import { APP_FILTER, HttpAdapterHost } from '@nestjs/core';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomBytes, randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { of, type Observable } from 'rxjs';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectReplay, sendTwice } from '../helpers/replay.js';

/** What Express' response and Fastify's reply have in common. */
interface Reply {
  header(name: string, value: string | string[]): this;
  status(status: number): this;
  type(mediaType: string): this;
  send(body?: unknown): unknown;
  redirect(...args: unknown[]): unknown;
  removeHeader(name: string): unknown;
  /** Fastify only. */
  readonly raw?: ServerResponse;
  hijack?(): void;
}

interface FastifyInstance {
  addHook(name: string, hook: (request: unknown, reply: Reply) => Promise<void>): void;
}

let runs = 0;

/** Every answer has something that no second run would repeat. */
function unique(): string {
  runs += 1;
  return randomUUID();
}

@Controller()
@Idempotent()
class AnswersController {
  @Post('json')
  json(): object {
    return {
      zulu: unique(),
      alpha: { y: null, x: [3, 1, 2], '': 'empty name' },
      10: 'ten',
      9: 'nine',
      amount: '123456789012345678901234567890.10',
      number: 1e21,
      text: 'ü 🎁 \u2028 </script>',
    };
  }

  @Post('observable')
  @HttpCode(202)
  observable(): Observable<object> {
    return of({ id: unique() });
  }

  @Post('static-location')
  @Header('Location', '/things/7')
  @Header('Cache-Control', 'no-store')
  staticLocation(): object {
    return { id: unique() };
  }

  @Post('location')
  location(@Res({ passthrough: true }) reply: Reply): object {
    const id = unique();
    reply.header('Location', `/things/${id}`).header('Link', ['</a>; rel="prev"', '</b>; rel="next"']);
    return { id };
  }

  @Post('status')
  status(@Res({ passthrough: true }) reply: Reply): object {
    reply.status(203);
    return { id: unique() };
  }

  @Post('no-content')
  @HttpCode(204)
  noContent(@Res({ passthrough: true }) reply: Reply): void {
    reply.header('ETag', `"${unique()}"`);
  }

  @Post('nothing')
  nothing(@Res({ passthrough: true }) reply: Reply): void {
    reply.header('ETag', `"${unique()}"`);
  }

  @Post('text')
  text(): string {
    return `text ü ${unique()}`;
  }

  @Post('buffer')
  buffer(): Buffer {
    return Buffer.from(`\u0000\u00ff${unique()}`, 'latin1');
  }

  @Post('sent-buffer')
  sentBuffer(@Res() reply: Reply): void {
    unique();
    reply.status(200).type('image/png').send(randomBytes(300));
  }

  @Post('file')
  file(): StreamableFile {
    unique();
    const options = {
      type: 'application/pdf',
      disposition: 'attachment; filename="label.pdf"',
      length: 5_000,
    };
    return new StreamableFile(randomBytes(5_000), options);
  }

  @Post('streamed-file')
  streamedFile(): StreamableFile {
    unique();
    const chunks = [randomBytes(70_000), randomBytes(1), randomBytes(20_000)];
    return new StreamableFile(Readable.from(chunks), { type: 'application/zip' });
  }

  @Post('sent-stream')
  sentStream(@Res() reply: Reply): void {
    const source = Readable.from([Buffer.from(unique()), randomBytes(40_000), Buffer.from('end')]);
    reply.type('application/zip');
    if (reply.raw) reply.send(source);
    else source.pipe(reply as unknown as ServerResponse);
  }

  @Post('sent-json')
  sentJson(@Res() reply: Reply): void {
    reply.status(201).header('X-Custom', 'kept').send({ b: unique(), a: 1 });
  }

  @Post('sent-late')
  sentLate(@Res() reply: Reply): void {
    setImmediate(() => reply.status(201).send({ id: unique() }));
  }

  @Post('written')
  written(@Res() reply: Reply): void {
    reply.hijack?.();
    const raw = reply.raw ?? (reply as unknown as ServerResponse);
    raw.writeHead(201, ['Content-Type', 'text/csv', 'X-Line', 'one', 'X-Line', 'two']);
    raw.write(`id;${unique()}\n`);
    raw.write(Buffer.from('end;'));
    raw.end('2e', 'hex');
  }

  @Post('redirect')
  @Redirect('/nowhere', 302)
  redirect(): object {
    return { url: `/somewhere/${unique()}`, statusCode: 303 };
  }

  @Post('fixed-redirect')
  @Redirect('/fixed', 307)
  fixedRedirect(@Res({ passthrough: true }) reply: Reply): void {
    reply.header('X-Id', unique());
  }

  @Post('sent-redirect')
  sentRedirect(@Res() reply: Reply): void {
    const url = `/somewhere/${unique()}`;
    if (reply.raw) reply.redirect(url, 303);
    else reply.redirect(303, url);
  }

  @Post('refusal')
  refusal(): never {
    throw new HttpException({ reason: 'too poor', id: unique() }, 402);
  }

  @Post('removed-header')
  removedHeader(@Res({ passthrough: true }) reply: Reply): object {
    reply.removeHeader('X-Powered-By');
    reply.removeHeader('X-Default');
    return { id: unique() };
  }
}

/** Makes every error body different from every other. */
@Catch(HttpException)
class StampingFilter implements ExceptionFilter {
  static caught = 0;

  constructor(private readonly host: HttpAdapterHost) {}

  catch(exception: HttpException, host: ArgumentsHost): void {
    StampingFilter.caught += 1;
    const reply: unknown = host.switchToHttp().getResponse();
    const stamp = { count: StampingFilter.caught, at: process.hrtime.bigint().toString() };
    this.host.httpAdapter.setHeader(reply, 'X-Caught', stamp.at);
    this.host.httpAdapter.reply(reply, { stamp, error: exception.getResponse() }, exception.getStatus());
  }
}

const ANSWERS: readonly [what: string, path: string, status: number][] = [
  ['JSON with unusual member order and large numbers', 'json', 201],
  ['the value of an Observable', 'observable', 202],
  ['a Location set by @Header()', 'static-location', 201],
  ['a Location and two Links set through the response', 'location', 201],
  ['a status set through the response', 'status', 203],
  ['204', 'no-content', 204],
  ['no body', 'nothing', 201],
  ['text', 'text', 201],
  ['a Buffer', 'buffer', 201],
  ['a Buffer sent through the response', 'sent-buffer', 200],
  ['a StreamableFile with type, disposition and length', 'file', 201],
  ['a StreamableFile over a stream of unknown length', 'streamed-file', 201],
  ['a stream sent through the response', 'sent-stream', 201],
  ['JSON sent through the response', 'sent-json', 201],
  ['JSON sent after the handler returned', 'sent-late', 201],
  ['bytes written to the raw response', 'written', 201],
  ['a redirect of @Redirect() with a URL from the handler', 'redirect', 303],
  ['a redirect of @Redirect() alone', 'fixed-redirect', 307],
  ['a redirect sent through the response', 'sent-redirect', 303],
  ['an exception behind a filter that stamps it', 'refusal', 402],
  ['the absence of a default header', 'removed-header', 201],
];

describe.each(ADAPTERS)('a replay (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [AnswersController],
      providers: [{ provide: APP_FILTER, useClass: StampingFilter }],
      configure: (nest) => {
        if (adapter === 'express') {
          nest.use((_request: unknown, response: ServerResponse, next: () => void) => {
            response.setHeader('X-Default', 'set before the handler');
            next();
          });
        } else {
          const fastify = nest.getHttpAdapter().getInstance() as unknown as FastifyInstance;
          fastify.addHook('onRequest', async (_request, reply) => {
            reply.header('X-Default', 'set before the handler');
          });
        }
      },
    });
  });

  beforeEach(() => {
    runs = 0;
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it.each(ANSWERS)('repeats %s', async (_what, path, status) => {
    const [original, replay] = await sendTwice(`${app.url}/${path}`);
    expect(original.status).toBe(status);
    expectReplay(original, replay);
    expect(runs).toBe(1);
  });

  it('was told what the handler set', async () => {
    const send = async (path: string): Promise<Readonly<Record<string, unknown>>> =>
      (await sendTwice(`${app.url}/${path}`))[1].headers;
    expect(await send('static-location')).toMatchObject({
      location: '/things/7',
      'cache-control': 'no-store',
    });
    expect(await send('location')).toMatchObject({ link: ['</a>; rel="prev"', '</b>; rel="next"'] });
    expect(await send('file')).toMatchObject({
      'content-type': 'application/pdf',
      'content-disposition': 'attachment; filename="label.pdf"',
      'content-length': '5000',
    });
    expect(await send('written')).toMatchObject({ 'content-type': 'text/csv', 'x-line': ['one', 'two'] });
    expect(await send('redirect')).toMatchObject({ location: expect.stringMatching(/^\/somewhere\//) });
    expect(await send('fixed-redirect')).toMatchObject({ location: '/fixed' });
    expect(await send('json')).toMatchObject({ 'x-default': 'set before the handler' });
    expect(await send('removed-header')).not.toHaveProperty('x-default');
  });

  it('has the headers of @Header() from the record, so that a later release cannot change them', async () => {
    await sendTwice(`${app.url}/static-location`);
    const rows = await database.query<{ headers: string }>(
      `SELECT response_headers::text AS headers FROM idempotency_records WHERE endpoint = 'POST /static-location'`,
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const { headers } of rows) expect(headers).toContain('/things/7');
  });

  it('of an exception does not ask the filter again', async () => {
    const before = StampingFilter.caught;
    await sendTwice(`${app.url}/refusal`);
    expect(StampingFilter.caught - before).toBe(1);
  });
});
