import { once, type EventEmitter } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished as finishedWith, Readable, type Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Catch, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import onHeaders from 'on-headers';
import { deferred, eventually } from '../helpers/conditions.js';
import { CARRIERS, WriterServer, type Desk, type Writer } from '../helpers/writers.js';

/** Middleware of the test, around every handler. */
let around: (request: AnyRequest, response: AnyRaw) => void;

/** Of HTTP/1 or HTTP/2. */
type AnyRequest = IncomingMessage & { readonly stream?: EventEmitter };
/** A response whose methods the test may replace. */
type AnyRaw = Desk['raw'];

type AnyApp = NestExpressApplication & NestFastifyApplication;

describe.each(CARRIERS)('a held response (%s)', (carrier) => {
  let server: WriterServer;
  let keys = 0;
  let key: string;

  beforeAll(async () => {
    server = await WriterServer.start(carrier, {
      configure: (app: AnyApp) => {
        if (carrier === 'express') {
          app.use((request: AnyRequest, response: AnyRaw, next: () => void) => {
            around(request, response);
            next();
          });
        } else {
          const fastify = (app as NestFastifyApplication).getHttpAdapter().getInstance();
          fastify.addHook('onRequest', async (request, reply) => around(request.raw, reply.raw as AnyRaw));
          fastify.addHook('onSend', async (_request, _reply, payload) => {
            await new Promise((resolve) => setImmediate(resolve));
            return payload;
          });
        }
      },
    });
  });

  beforeEach(() => {
    key = `key-${++keys}`;
    around = () => undefined;
  });

  afterAll(async () => server.close());

  /** Of one handler: without the library, the first time, and a retry. */
  const compared = async (writer: Writer, routes = ['plain', 'run']) => {
    server.writes(writer);
    const [plain, route] = routes;
    const alone = await server.post(plain!, key);
    const before = await server.orders();
    const first = await server.post(route!, key);
    const retry = await server.post(route!, key);
    return { alone, first, retry, orders: (await server.orders()) - before };
  };

  const seen = (answer: Awaited<ReturnType<WriterServer['post']>>): unknown =>
    answer && { status: answer.status, body: answer.body.toString(), type: answer.headers['content-type'] };

  const expectSame = async (writer: Writer, routes?: string[]): Promise<void> => {
    const { alone, first, retry, orders } = await compared(writer, routes);
    expect(alone?.status).toBe(201);
    expect(seen(first)).toEqual(seen(alone));
    expect(seen(retry)).toEqual(seen(alone));
    expect(retry?.headers['idempotency-replayed']).toBe('true');
    expect(orders).toBe(1);
  };

  describe.each(['run', 'lease'])('of a handler that waits for it (%s)', (route) => {
    const WAITS: Record<string, (raw: Writable) => Promise<unknown>> = {
      'until it is finished': (raw) => finished(raw),
      'until it is closed': (raw) => once(raw, 'close'),
      'until a callback says so': (raw) => new Promise((resolve) => finishedWith(raw, resolve)),
      'until end has called back': (raw) => new Promise((resolve) => raw.once('finish', resolve)),
    };

    it.each(Object.keys(WAITS))('%s', async (name) => {
      await expectSame(
        async ({ raw, response }) => {
          const waited = WAITS[name]!(raw);
          if (carrier === 'express') response.status(201).json({ ok: true });
          else response.code(201).send({ ok: true });
          await waited;
        },
        ['plain', route],
      );
    });

    it('because it returns what sends a stream', async () => {
      await expectSame(
        ({ raw, response }) => {
          const source = Readable.from(['one,', 'two'], { objectMode: false });
          if (carrier !== 'express') return response.code(201).type('text/plain').send(source);
          response.status(201).type('text/plain');
          source.pipe(raw);
          return finished(raw);
        },
        ['plain', route],
      );
    });

    it('because it returns what sends a value', async () => {
      await expectSame(
        ({ response }) =>
          carrier === 'express'
            ? response.status(201).json({ ok: true })
            : response.code(201).send({ ok: true }),
        ['plain', route],
      );
    });
  });

  describe('that cannot be sent', () => {
    it('because what wraps it throws behind its end', async () => {
      around = (_request, response) => {
        const { end } = response;
        response.end = function (this: unknown, ...args: unknown[]) {
          Reflect.apply(end, this, args);
          throw new Error('the audit failed');
        };
      };
      server.writes(({ raw }) => raw.writeHead(201).end('all of it'));
      const answer = await server.post('run', key);
      expect([answer?.status, answer?.body.toString()]).toEqual([201, 'all of it']);
      const retry = await server.post('run', key);
      expect(retry?.body.toString()).toBe('all of it');
    });

    it('because what wraps it throws before', async () => {
      around = (_request, response) => {
        response.end = () => {
          throw new Error('the audit failed');
        };
      };
      server.writes(({ raw }) => raw.writeHead(201).end('all of it'));
      const answer = await server.post('run', key);
      expect(answer?.status).toBe(500);
      expect(JSON.parse(answer!.body.toString())).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_NOT_SENT' });
      const again = await server.post('run', key);
      expect(JSON.parse(again!.body.toString())).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_NOT_SENT' });
      around = () => undefined;
      const retry = await server.post('run', key);
      expect([retry?.status, retry?.body.toString()]).toEqual([201, 'all of it']);
    });

    it('because what wraps it sends half of it and throws', async () => {
      around = (_request, response) => {
        response.end = function (this: AnyRaw) {
          this.write('half');
          throw new Error('the audit failed');
        };
      };
      server.writes(({ raw }) => raw.writeHead(201).end('all of it'));
      expect(await server.post('run', key)).toBeUndefined();
      around = () => undefined;
      const retry = await server.post('run', key);
      expect(retry?.body.toString()).toBe('all of it');
    });

    if (carrier !== 'http2') {
      it('because its length is strict, and wrong', async () => {
        const { alone, first } = await compared(({ raw }) => {
          raw.strictContentLength = true;
          raw.setHeader('Content-Length', '3');
          raw.statusCode = 201;
          raw.end('four');
        });
        // Without the library the head is out by then; with it nothing is, and the error is answered.
        expect(alone?.status).not.toBe(201);
        expect(first?.status).toBe(500);
      });
    }

    it('with the status of a filter that is none', async () => {
      @Catch(RangeError)
      class NoStatusFilter implements ExceptionFilter {
        catch(_error: unknown, host: ArgumentsHost): void {
          const response = host.switchToHttp().getResponse<AnyRaw & { raw?: AnyRaw }>();
          const raw = response.raw ?? response;
          raw.statusCode = 1_000;
          raw.end('none');
        }
      }
      const own = await WriterServer.start(carrier, {
        configure: (app: AnyApp) => void app.useGlobalFilters(new NoStatusFilter()),
      });
      try {
        own.writes(() => {
          throw new RangeError('refused');
        });
        const alone = await own.post('plain', key);
        const first = await own.post('run', key);
        expect(first?.status).toBe(alone?.status);
        expect(first?.status).toBe(500);
        expect(await own.orders()).toBe(1);
      } finally {
        await own.close();
      }
    });
  });

  describe('that is written without end', () => {
    const endless = (): Readable => {
      const chunk = Buffer.alloc(65_536, 'x');
      return new Readable({
        read() {
          while (this.push(chunk));
        },
      });
    };

    const WRITERS: Record<string, Writer> = {
      'by a source that never pauses': ({ raw }) => {
        const source = endless();
        source.pipe(raw);
        return once(source, 'close');
      },
      'by a source that nobody waits for': ({ raw }) => void endless().pipe(raw),
      'by a loop that waits for it to drain': async ({ raw }) => {
        for (;;) if (!raw.write('x'.repeat(65_536))) await once(raw, 'drain');
      },
      'by a loop that writes as long as it may': async ({ raw }) => {
        for (;;) {
          while (raw.write('x'.repeat(1_024)));
          await once(raw, 'drain');
        }
      },
    };

    it.each(Object.keys(WRITERS))('%s', async (name) => {
      server.writes(WRITERS[name]!);
      const before = await server.orders();
      const answer = await server.post('run', key);
      expect(answer?.status).toBe(500);
      expect(JSON.parse(answer!.body.toString())).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_TOO_LARGE' });
      expect(await server.orders()).toBe(before);
    });

    it('with its source destroyed', async () => {
      const source = endless();
      server.writes(({ raw }) => void source.pipe(raw));
      await server.post('run', key);
      expect(source.destroyed).toBe(true);
    });
  });

  describe.each(['run', 'lease'])('whose client goes away (%s)', (route) => {
    let folder: string;
    let file: string;
    const LARGE = 'a line of a receipt\n'.repeat(20_000);

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'receipts-'));
      file = join(folder, 'receipt.txt');
      await writeFile(file, LARGE);
    });

    afterAll(async () => rm(folder, { recursive: true }));

    const SENDERS: Record<string, Writer> = {
      'while it streams': ({ raw, response }) => {
        const source = Readable.from([LARGE], { objectMode: false });
        if (carrier !== 'express') return response.code(201).send(source);
        raw.statusCode = 201;
        return source.pipe(raw);
      },
      ...(carrier === 'express' && {
        'before a file is sent': ({ response }) =>
          new Promise<void>((resolve) => response.status(201).sendFile(file, () => resolve())),
        'before a file is sent that nobody waits for': ({ response }) => response.status(201).sendFile(file),
        'before a file is downloaded': ({ response }) =>
          new Promise<void>((resolve) => response.status(201).download(file, () => resolve())),
      }),
    };

    it.each(Object.keys(SENDERS))('%s: the retry gets all of it', async (name) => {
      const [inside, gone] = [deferred(), deferred()];
      const before = await server.orders();
      server.writes(async (desk) => {
        inside.resolve();
        await gone.promise;
        return SENDERS[name]!(desk);
      });
      const departed = deferred();
      around = (request) => {
        const connection = request.stream ?? request.socket;
        connection.once('close', departed.resolve);
      };
      const client = server.start(route, key);
      await inside.promise;
      client.leave();
      await departed.promise;
      gone.resolve();
      const retry = await eventually(async () => {
        const answer = await server.post(route, key);
        return answer?.status === 409 ? false : answer;
      });
      expect([retry?.status, retry?.headers['idempotency-replayed']]).toEqual([201, 'true']);
      expect(retry?.body.toString() === LARGE).toBe(true);
      expect((await server.orders()) - before).toBe(1);
    });
  });

  describe('whose headers were there before', () => {
    it('is replayed as it was, whatever a retry asks for', async () => {
      around = (request, response) => {
        response.setHeader('Content-Language', String(request.headers['accept-language']).slice(0, 2));
        response.setHeader('Content-Type', 'application/xml');
        response.setHeader('X-Of-The-Exchange', String(request.headers['accept-language']));
      };
      server.writes(({ raw }) => {
        raw.setHeader('Content-Language', 'de');
        raw.setHeader('Content-Type', 'application/xml');
        raw.statusCode = 201;
        raw.end('<quittung/>');
      });
      const first = await server.post('run', key, { 'accept-language': 'de' });
      const retry = await server.post('run', key, { 'accept-language': 'en' });
      expect(first?.headers['content-language']).toBe('de');
      expect(retry?.headers['content-language']).toBe('de');
      expect(retry?.headers['content-type']).toBe(first?.headers['content-type']);
      expect(retry?.headers['x-of-the-exchange']).toBe('en');
    });
  });

  describe('that somebody else ends while the handler runs', () => {
    /** A time limit of the application. It goes off when the handler is inside. */
    const limited = (): { entered: () => void; limit: Promise<void> } => {
      const entered = deferred();
      around = (_request, response) => {
        void entered.promise.then(() => {
          response.statusCode = 503;
          response.setHeader('Content-Type', 'text/plain');
          response.end('too late');
        });
      };
      return { entered: entered.resolve, limit: entered.promise };
    };

    it.each(['plain-returned', 'returned', 'lease-returned'])(
      'is sent at once, and what the handler did is undone (%s)',
      async (route) => {
        const { entered } = limited();
        const never = deferred();
        server.writes(async () => {
          entered();
          await never.promise;
          return { ok: true };
        });
        const before = await server.orders();
        const answer = await server.post(route, key);
        expect([answer?.status, answer?.body.toString()]).toEqual([503, 'too late']);
        if (route === 'returned') expect(await server.orders()).toBe(before);
        around = () => undefined;
        server.writes(() => ({ again: true }));
        const retry = await server.post(route, key);
        never.resolve();
        if (route === 'lease-returned') {
          expect(JSON.parse(retry!.body.toString())).toMatchObject({
            code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED',
          });
        } else expect([retry?.status, retry?.body.toString()]).toEqual([201, '{"again":true}']);
      },
    );

    it('is the handler’s own where that ends it, and returns', async () => {
      server.writes(({ raw }) => {
        raw.statusCode = 404;
        raw.end('none');
        return undefined;
      });
      const before = await server.orders();
      const first = await server.post('run', key);
      const retry = await server.post('run', key);
      expect([first?.status, retry?.status, retry?.headers['idempotency-replayed']]).toEqual([
        404,
        404,
        'true',
      ]);
      expect((await server.orders()) - before).toBe(1);
    });

    it('never goes out over a rollback where it is a success', async () => {
      const entered = deferred();
      around = (_request, response) => {
        void entered.promise.then(() => {
          response.statusCode = 202;
          response.end('in progress');
        });
      };
      server.writes(async ({ raw }) => {
        entered.resolve();
        await eventually(() => raw.writableEnded);
        throw new Error('it failed');
      });
      const before = await server.orders();
      const answer = await server.post('returned', key);
      expect(answer?.status).toBe(500);
      expect(await server.orders()).toBe(before);
    });
  });

  describe('that says more than headers and a body', () => {
    it('is replayed with its trailers', async () => {
      const { alone, first, retry } = await compared(({ raw }) => {
        raw.writeHead(201, { Trailer: 'X-Sum' });
        raw.write('body');
        raw.addTrailers({ 'X-Sum': '7' });
        raw.end();
      });
      expect(alone?.trailers).toEqual({ 'x-sum': '7' });
      for (const answer of [first, retry]) {
        expect([answer?.trailers, answer?.headers['trailer'], answer?.body.toString()]).toEqual([
          alone?.trailers,
          alone?.headers['trailer'],
          'body',
        ]);
      }
    });

    it('is replayed with trailers that nothing announced', async () => {
      const { alone, first, retry } = await compared(({ raw }) => {
        raw.statusCode = 201;
        raw.write('body');
        raw.addTrailers({ 'X-Sum': '7' });
        raw.end();
      });
      expect([first?.trailers, retry?.trailers]).toEqual([alone?.trailers, alone?.trailers]);
      expect(alone?.trailers).toEqual({ 'x-sum': '7' });
    });

    if (carrier !== 'express') {
      it('is replayed with the trailers of a reply', async () => {
        const { alone, first, retry } = await compared(({ response }) => {
          response.trailer('x-sum', async () => '7');
          return response.code(201).send('body');
        });
        expect([first?.trailers, retry?.trailers]).toEqual([alone?.trailers, alone?.trailers]);
        expect(first?.body.toString()).toBe('body');
      });
    }

    if (carrier !== 'http2') {
      it('is replayed with its reason', async () => {
        const { alone, first, retry } = await compared(({ raw }) => {
          raw.writeHead(201, 'Paid').end('body');
        });
        expect([alone?.reason, first?.reason, retry?.reason]).toEqual(['Paid', 'Paid', 'Paid']);
      });
    }

    it('has nothing of it leave before it is committed', async () => {
      const informed: number[] = [];
      const [inside, go] = [deferred(), deferred()];
      server.writes(async ({ raw }) => {
        const processing = raw['writeProcessing'] as (() => void) | undefined;
        processing?.call(raw);
        raw.writeEarlyHints({ link: '</style.css>; rel=preload' });
        inside.resolve();
        await go.promise;
        raw.writeHead(201).end('body');
      });
      const informs = server.informs('run', key, informed);
      await inside.promise;
      go.resolve();
      expect((await informs)?.status).toBe(201);
      expect(informed).toEqual([]);
    });

    it('has the headers of those who listen for them', async () => {
      const { alone, first, retry } = await compared(({ raw }) => {
        if (carrier === 'http2') {
          const { writeHead } = raw;
          raw.writeHead = function (this: typeof raw, ...args: unknown[]) {
            this.setHeader('X-Late', 'set');
            return Reflect.apply(writeHead, this, args) as typeof raw;
          };
        } else {
          onHeaders(raw, function (this: typeof raw) {
            this.setHeader('X-Late', 'set');
          });
        }
        raw.statusCode = 201;
        raw.end('body');
      });
      expect(alone?.headers['x-late']).toBe('set');
      expect([first?.headers['x-late'], retry?.headers['x-late']]).toEqual(['set', 'set']);
    });
  });

  it.each<[string, (raw: AnyRaw) => void]>([
    ['end with an object', (raw) => void Reflect.apply(raw.end, raw, [{}])],
    ['a number', (raw) => void Reflect.apply(raw.write, raw, [42])],
    ['null', (raw) => void Reflect.apply(raw.write, raw, [null])],
  ])('refuses what node refuses, and what the handler did is undone: %s', async (_what, write) => {
    server.writes(({ raw }) => {
      raw.statusCode = 201;
      write(raw);
      raw.end();
    });
    const alone = await server.post('plain', key);
    const before = await server.orders();
    const first = await server.post('run', key);
    // HTTP/2 has sent the head by then.
    if (carrier !== 'http2') expect(alone?.status).toBe(500);
    expect(first?.status).toBe(500);
    expect(await server.orders()).toBe(before);
  });

  describe('that was answered in place of its handler', () => {
    it('lets nothing that the handler still does end the process', async () => {
      const complaints: unknown[] = [];
      const complain = (error: unknown): void => void complaints.push(error);
      process.on('uncaughtException', complain).on('unhandledRejection', complain);
      const [late, done] = [deferred(), deferred()];
      server.writes(({ raw, response }) => {
        void late.promise.then(() => {
          // As from a timer, whose errors nobody catches.
          process.nextTick(() => {
            raw.setHeader('X-Late', '1');
            raw.write('late');
            if (carrier === 'express') response.json({ late: true });
            raw.end('late', () => done.resolve());
          });
        });
      });
      try {
        const answer = await server.post('short', key);
        expect(answer?.status).toBe(503);
        late.resolve();
        await done.promise;
        await new Promise((resolve) => setImmediate(resolve));
        expect(complaints).toEqual([]);
      } finally {
        process.off('uncaughtException', complain).off('unhandledRejection', complain);
      }
    });
  });

  it('drains also where what wraps it keeps who waits for that', async () => {
    const parked: unknown[] = [];
    around = (_request, response) => {
      const { on } = response;
      response.on = function (this: AnyRaw, event: string, listener: () => void) {
        if (event === 'drain') parked.push(listener);
        else Reflect.apply(on, this, [event, listener]);
        return this;
      } as typeof on;
    };
    server.writes(({ raw }) => {
      raw.statusCode = 201;
      Readable.from(Array(30).fill('x'.repeat(10_000)), { objectMode: false }).pipe(raw);
    });
    const answer = await server.post('run', key);
    expect([answer?.status, answer?.body.length]).toEqual([201, 300_000]);
    expect(parked).toEqual([]);
  });

  it('goes on with a source that was taken off it, whatever becomes of that', async () => {
    await expectSame(async ({ raw }) => {
      raw.statusCode = 201;
      raw.setHeader('Content-Type', 'text/plain');
      const source = new Readable({ read: () => undefined });
      source.pipe(raw, { end: false });
      source.push('part ');
      await eventually(() => raw.headersSent);
      source.unpipe(raw);
      source.destroy();
      await new Promise((resolve) => setImmediate(resolve));
      raw.end('rest');
    });
  });

  if (carrier === 'http2') {
    it('tells those who came before both of its ends, when its client has left', async () => {
      const heard: string[] = [];
      const [inside, gone] = [deferred(), deferred()];
      around = (request, response) => {
        for (const event of ['finish', 'close']) response.on(event, () => heard.push(event));
        request.stream?.once('close', gone.resolve);
      };
      server.writes(async ({ raw }) => {
        inside.resolve();
        await gone.promise;
        raw.writeHead(201).end('body');
      });
      const client = server.start('run', key);
      await inside.promise;
      client.leave();
      await eventually(() => heard.length === 2);
      expect(heard).toEqual(['finish', 'close']);
    });
  }

  if (carrier !== 'http2') {
    it('refuses a reason that is none, as node does, and nothing is done', async () => {
      server.writes(({ raw }) => {
        raw.statusCode = 201;
        raw.statusMessage = 'Bezahlt: 5 €';
        raw.end('done');
      });
      const before = await server.orders();
      const answer = await server.post('run', key);
      expect([answer?.status, answer?.reason]).toEqual([500, 'Internal Server Error']);
      expect(await server.orders()).toBe(before);
    });

    it('announces no trailers where there is no body', async () => {
      server.writes(({ raw }) => void raw.writeHead(204, { Trailer: 'X-Sum' }).end());
      for (const replayed of [undefined, 'true']) {
        const { status, headers } = (await server.post('run', key))!;
        expect([status, headers['trailer'], headers['idempotency-replayed']]).toEqual([
          204,
          undefined,
          replayed,
        ]);
      }
    });

    it('takes listeners off the connection that were there before', async () => {
      const listener = (): void => undefined;
      const counts: number[] = [];
      around = (request) => {
        request.socket.on('close', listener);
        counts.push(request.socket.listeners('close').filter((each) => each === listener).length);
      };
      server.writes(({ raw }) => {
        raw.req.socket.off('close', listener);
        raw.writeHead(201).end('body');
      });
      for (const each of ['one', 'two', 'three']) await server.post('run', key + each);
      expect(Math.max(...counts)).toBe(1);
    });

    it('has no trailers for a client of HTTP/1.0', async () => {
      server.writes(({ raw }) => {
        raw.statusCode = 201;
        raw.write('body');
        raw.addTrailers({ 'X-Sum': '7' });
        raw.end();
      });
      for (const connection of [1, 2]) {
        const text = await server.raw(
          `POST /run HTTP/1.0\r\nIdempotency-Key: ${key}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`,
        );
        expect([connection, text]).toEqual([
          connection,
          expect.stringMatching(/^HTTP\/1\.1 201 [^]*\r\n\r\nbody$/),
        ]);
      }
    });
  } else {
    it('has no body where HTTP/2 takes none', async () => {
      const { alone, first, retry } = await compared(({ raw }) => {
        raw.statusCode = 205;
        raw.end('c');
      });
      for (const answer of [alone, first, retry])
        expect([answer?.status, answer?.body.length]).toEqual([205, 0]);
    });
  }
});
