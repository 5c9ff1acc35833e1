import type { Server } from 'node:http';
import { PassThrough, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  Controller,
  ForbiddenException,
  Injectable,
  Post,
  Res,
  StreamableFile,
  UseInterceptors,
  type CallHandler,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { from, switchMap, takeUntil, type Observable } from 'rxjs';
import { Repository } from 'typeorm';
import { ADAPTERS, startApp, type Adapter, type TestApp } from '../helpers/application.js';
import { deferred, eventually, type Deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, startRequest, type HttpRequestInFlight, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';

/** The part of Express' response and Fastify's reply that the handlers use. */
interface AnyResponse extends NodeJS.WritableStream {
  readonly raw?: NodeJS.WritableStream;
  send(body: unknown): unknown;
}

const CHUNKS = ['first,', 'second,', 'third'];
const WHOLE = CHUNKS.join('');

/** The moments of one test: the handler is inside, or its body has begun; and the client has gone. */
let moments: { inside: Deferred<void>; gone: Deferred<void> };
let cancel: Deferred<void>;

/** A body that pauses after its first chunk until the client has gone. */
function pausingBody(): Readable {
  return Readable.from(
    (async function* () {
      for (const [index, chunk] of CHUNKS.entries()) {
        if (index === 1) {
          moments.inside.resolve();
          await moments.gone.promise;
        }
        yield Buffer.from(chunk);
      }
    })(),
  );
}

function failingBody(chunksBefore: number, failure: Error = new Error('the source broke')): Readable {
  return Readable.from(
    (async function* () {
      yield* CHUNKS.slice(0, chunksBefore).map((chunk) => Buffer.from(chunk));
      // The first chunks are on their way when it fails.
      await new Promise((resolve) => setImmediate(resolve));
      throw failure;
    })(),
    { objectMode: false },
  );
}

/** How the next body fails; the retry's is sound. */
let nextBody: () => Readable = () => Readable.from(CHUNKS.map((chunk) => Buffer.from(chunk)));

/** Cancels the handler's Observable the first time. */
@Injectable()
class CancellingInterceptor implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    return next.handle().pipe(takeUntil(from(cancel.promise)));
  }
}

@Controller()
class BodiesController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post('value')
  @Idempotent()
  async value(): Promise<Order> {
    const order = await this.buy();
    moments.inside.resolve();
    await moments.gone.promise;
    return order;
  }

  @Post('res-value')
  @Idempotent()
  async resValue(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    moments.inside.resolve();
    await moments.gone.promise;
    response.send(WHOLE);
  }

  @Post('streamable')
  @Idempotent()
  async streamable(): Promise<StreamableFile> {
    await this.buy();
    return new StreamableFile(nextBody());
  }

  @Post('piped')
  @Idempotent()
  async piped(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    nextBody().pipe(response.raw ?? response);
  }

  @Post('awaited-pipeline')
  @Idempotent()
  async awaitedPipeline(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    await pipeline(nextBody(), response.raw ?? response);
  }

  @Post('sent-stream')
  @Idempotent()
  async sentStream(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    // Express has no such thing.
    if (response.raw) response.send(nextBody());
    else nextBody().pipe(response);
  }

  @Post('twice')
  @Idempotent()
  async twice(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    const raw = response.raw ?? response;
    raw.end('the first');
    await this.buy();
    raw.write('and more');
    raw.end('the second');
  }

  @Post('throws-late')
  @Idempotent()
  async throwsLate(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    (response.raw ?? response).end('done');
    if (failOnce()) throw new Error('after the end');
  }

  @Post('throws-half-way')
  @Idempotent()
  async throwsHalfWay(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    const raw = response.raw ?? response;
    raw.write('done');
    if (failOnce()) throw new ForbiddenException('in the middle');
    raw.end();
  }

  @Post('cancelled')
  @UseInterceptors(CancellingInterceptor)
  @Idempotent()
  async cancelled(): Promise<Order> {
    const order = await this.buy();
    moments.inside.resolve();
    await moments.gone.promise;
    return order;
  }

  @Post('observable')
  @Idempotent()
  observable(): Observable<Order> {
    return from(this.buy()).pipe(
      switchMap(async (order) => {
        moments.inside.resolve();
        await moments.gone.promise;
        return order;
      }),
    );
  }

  private buy(): Promise<Order> {
    return this.orders.save({ item: 'book', price: 10 });
  }
}

let failures = 0;
const failOnce = (): boolean => failures-- > 0;

describe.each(ADAPTERS)('a response that is interrupted (%s)', (adapter: Adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startApp({ adapter, databaseUrl: database.url, controllers: [BodiesController] });
  });

  afterEach(async () => {
    expect(await openTransactions(database)).toEqual([]);
    await resetShop(database);
    nextBody = () => Readable.from(CHUNKS.map((chunk) => Buffer.from(chunk)));
    failures = 0;
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const post = (path: string): Promise<HttpResponse> =>
    postJson(`${app.url}/${path}`, {}, { 'Idempotency-Key': 'key' });

  /** Sends a request and breaks it off as soon as the handler, or its body, has come half-way. */
  const postAndLeave = async (path: string): Promise<void> => {
    moments = { inside: deferred(), gone: deferred() };
    const server = app.app.getHttpServer() as Server;
    const connections = promisify(server.getConnections.bind(server));
    const request: HttpRequestInFlight = startRequest(`${app.url}/${path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': 'key' },
      body: '{}',
    });
    await moments.inside.promise;
    request.destroy();
    await eventually(async () => (await connections()) === 0);
    moments.gone.resolve();
    await eventually(async () => (await openTransactions(database)).length === 0);
  };

  describe('by a client that goes away', () => {
    it.each(['value', 'res-value'])('before the handler ends: the effect commits (%s)', async (path) => {
      await postAndLeave(path);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
      const retry = await post(path);
      expect(retry.status).toBe(201);
      expect(retry.headers['idempotency-replayed']).toBe('true');
      if (path === 'value') expect(retry.json()).toMatchObject({ item: 'book', price: 10 });
      else expect(retry.text).toBe(WHOLE);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it.each(['streamable', 'piped', 'awaited-pipeline', 'sent-stream'])(
      'in the middle of a body: the effect commits, and the retry gets all of it (%s)',
      async (path) => {
        nextBody = pausingBody;
        await postAndLeave(path);
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
        const retry = await post(path);
        expect(retry.status).toBe(201);
        expect(retry.headers['idempotency-replayed']).toBe('true');
        expect(retry.text).toBe(WHOLE);
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
      },
    );

    it('while a handler’s Observable runs: all or nothing, and the retry answers', async () => {
      await postAndLeave('observable');
      const { orders, records } = await shopState(database);
      expect([orders, records]).toEqual([records, orders]);
      const retry = await post('observable');
      expect(retry.status).toBe(201);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });
  });

  describe('by a source that fails', () => {
    const expectNothingKept = async (path: string, first: HttpResponse): Promise<void> => {
      expect(first.status).toBeGreaterThanOrEqual(500);
      expect(first.text).not.toContain(CHUNKS[0]);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      nextBody = () => Readable.from(CHUNKS.map((chunk) => Buffer.from(chunk)));
      const retry = await post(path);
      expect({ status: retry.status, text: retry.text }).toEqual({ status: 201, text: WHOLE });
      expect(retry.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    };

    describe.each(['streamable', 'piped', 'awaited-pipeline', 'sent-stream'])('%s', (path) => {
      it.each([0, 1, 2])('after %d chunks: nothing is kept, and the next attempt runs', async (chunks) => {
        nextBody = () => failingBody(chunks);
        await expectNothingKept(path, await post(path));
      });

      it('without an error, by closing early: nothing is kept, and the next attempt runs', async () => {
        nextBody = () => {
          const body = new PassThrough();
          body.write(CHUNKS[0]);
          setImmediate(() => body.destroy());
          return body;
        };
        await expectNothingKept(path, await post(path));
      });
    });

    it('with an error that looks like an answer of the handler: it is not recorded', async () => {
      nextBody = () => failingBody(1, Object.assign(new Error('NoSuchKey'), { statusCode: 404 }));
      const first = await post('streamable');
      expect(first.status).toBeGreaterThanOrEqual(400);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });
  });

  describe('by its own handler', () => {
    it('that writes again after the end: one transaction, and the first response', async () => {
      const first = await post('twice');
      const retry = await post('twice');
      for (const answer of [first, retry]) expect(answer.text).toBe('the first');
      expect(retry.headers['idempotency-replayed']).toBe('true');
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
      const [{ transactions }] = (await database.query(
        'SELECT count(DISTINCT xmin::text)::int AS transactions FROM orders',
      )) as [{ transactions: number }];
      expect(transactions).toBe(1);
    });

    it.each([
      ['after the end', 'throws-late'],
      ['with half of it written', 'throws-half-way'],
    ])('that throws %s: nothing is kept, and the next attempt runs', async (_when, path) => {
      failures = 1;
      const first = await post(path);
      expect(first.status).toBe(500);
      expect(first.json()).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_FAILED' });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      const retry = await post(path);
      expect({ status: retry.status, text: retry.text }).toEqual({ status: 201, text: 'done' });
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('whose Observable is cancelled: nothing is kept, and the next attempt runs', async () => {
      moments = { inside: deferred(), gone: deferred() };
      cancel = deferred();
      const pending = post('cancelled');
      await moments.inside.promise;
      cancel.resolve();
      const first = await pending;
      expect(first.status).toBe(500);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      moments.gone.resolve();
      cancel = deferred();
      const retry = await post('cancelled');
      expect(retry.status).toBe(201);
      expect(retry.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });
  });
});

async function openTransactions(database: TestDatabase): Promise<{ query: string }[]> {
  return database.query<{ query: string }>(
    `SELECT query FROM pg_stat_activity
      WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'`,
  );
}
