import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Post, Res, StreamableFile } from '@nestjs/common';
import { InjectDataSource, InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { DataSource, Repository } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { isClaim, isCommit } from '../helpers/commit-faults.js';
import { deferred, eventually, type Deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

/** The part of Express' response and Fastify's reply that the handlers use. */
interface AnyResponse extends NodeJS.WritableStream {
  readonly raw?: NodeJS.WritableStream;
}

const MAX_SIZE = 1000;
const MAX_DURATION = 250;

/** Bytes of the next body. */
let size = 0;
/** Chunks that were asked of a body without end. */
let produced = 0;
/** What a hanging handler waits for. */
let work: (dataSource: DataSource) => Promise<unknown>;

function* endless(): Generator<Buffer> {
  for (;;) {
    produced += 1;
    yield Buffer.alloc(1024, 'x');
  }
}

@Controller()
class LimitsController {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectDataSource() private readonly dataSource: DataSource,
  ) {}

  @Post('json')
  @Idempotent({ response: { maxSize: MAX_SIZE } })
  async json(): Promise<{ text: string }> {
    await this.buy();
    return { text: 'x'.repeat(size - '{"text":""}'.length) };
  }

  @Post('buffer')
  @Idempotent({ response: { maxSize: MAX_SIZE } })
  async buffer(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    (response.raw ?? response).end(Buffer.alloc(size, 'x'));
  }

  @Post('writes')
  @Idempotent({ response: { maxSize: MAX_SIZE } })
  async writes(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    const raw = response.raw ?? response;
    for (let written = 0; written < size; written += 10) raw.write('x'.repeat(Math.min(10, size - written)));
    raw.end();
  }

  @Post('streamable')
  @Idempotent({ response: { maxSize: MAX_SIZE } })
  async streamable(): Promise<StreamableFile> {
    await this.buy();
    return new StreamableFile(
      Readable.from(
        Array.from({ length: size / 10 }, () => Buffer.alloc(10, 'x')),
        { objectMode: false },
      ),
    );
  }

  @Post('endless')
  @Idempotent({ response: { maxSize: MAX_SIZE } })
  async endless(): Promise<StreamableFile> {
    await this.buy();
    return new StreamableFile(Readable.from(endless(), { objectMode: false }));
  }

  @Post('hang')
  @Idempotent({ maxDuration: MAX_DURATION })
  async hang(): Promise<Order> {
    const order = await this.buy();
    entered = true;
    await work(this.dataSource);
    return order;
  }

  @Post('never-ends')
  @Idempotent({ maxDuration: MAX_DURATION })
  async neverEnds(@Res() response: AnyResponse): Promise<void> {
    await this.buy();
    const raw = response.raw ?? response;
    raw.write('half');
    entered = true;
    await work(this.dataSource);
    if (!hangs) raw.end(' and half');
  }

  private buy(): Promise<Order> {
    return this.orders.save({ item: 'book', price: 10 });
  }
}

let hangs = false;
/** Whether a handler has come as far as its work. */
let entered = false;

describe.each(ADAPTERS)('limits (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: TestApp;
  /** The same application on another host, which reaches the database by another way. */
  let neighbour: TestApp;
  let gates: Deferred<void>[];

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    const start = (databaseUrl: string): Promise<TestApp> =>
      startApp({ adapter, databaseUrl, controllers: [LimitsController] });
    [app, neighbour] = await Promise.all([start(proxy.url(database.url)), start(database.url)]);
    gates = [];
  });

  afterEach(async () => {
    for (const gate of gates.splice(0)) gate.resolve();
    work = async () => undefined;
    hangs = false;
    entered = false;
    await resetShop(database);
  });

  afterAll(async () => {
    await Promise.all([app.close(), neighbour.close()]);
    await proxy.close();
    await database.drop();
  });

  const post = (path: string, host: TestApp = app): Promise<HttpResponse> =>
    postJson(`${host.url}/${path}`, {}, { 'Idempotency-Key': 'key' });

  /** On a busy machine the limit may strike before a request has come that far. Then the client comes back. */
  const postUntil = (isReached: () => boolean, path = 'hang'): Promise<HttpResponse> =>
    eventually(async () => {
      const answer = await post(path);
      return isReached() && answer;
    });

  const gate = (): Promise<void> => {
    const closed = deferred();
    gates.push(closed);
    return closed.promise;
  };

  describe('on the size of a response', () => {
    it.each(['json', 'buffer', 'writes', 'streamable'])('holds for %s to the byte', async (path) => {
      size = path === 'streamable' ? MAX_SIZE + 10 : MAX_SIZE + 1;
      const tooLarge = await post(path);
      expect(tooLarge.status).toBe(500);
      expect(tooLarge.headers['content-type']).toMatch(/^application\/problem\+json/);
      expect(tooLarge.headers['retry-after']).toBeUndefined();
      expect(tooLarge.json()).toMatchObject({
        code: 'IDEMPOTENCY_RESPONSE_TOO_LARGE',
        detail: expect.stringContaining('response.maxSize'),
      });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });

      size = MAX_SIZE;
      const fits = await post(path);
      const replay = await post(path);
      for (const answer of [fits, replay]) {
        expect(answer.status).toBe(201);
        expect(answer.body).toHaveLength(MAX_SIZE);
      }
      expect(replay.headers['idempotency-replayed']).toBe('true');
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('ends a body without end soon after the limit', async () => {
      produced = 0;
      const answer = await post('endless');
      expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_TOO_LARGE' });
      // What a stream reads ahead, and not what it could produce.
      expect(produced).toBeLessThan(200);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });
  });

  describe('on the duration of a handler', () => {
    const expectEnded = async (path: string): Promise<void> => {
      const answer = await postUntil(() => entered, path);
      expect({ status: answer.status, body: answer.json() }).toMatchObject({
        status: 503,
        body: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED', detail: expect.stringContaining('maxDuration') },
      });
      expect(answer.headers['retry-after']).toBe('1');
      // A pooler in between ends the session of a client that it has lost a moment later.
      await eventually(async () => (await openTransactions(database)) === 0);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      await expectRuns(path);
    };

    const expectRuns = async (path: string): Promise<void> => {
      work = async () => undefined;
      hangs = false;
      // A busy machine may take longer than the limit once more, and then the client comes back once more.
      const retry = await eventually(async () => {
        const answer = await post(path);
        return answer.status === 503 ? false : answer;
      });
      expect(retry.status).toBe(201);
      expect(retry.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    };

    it('ends one that waits for something else', async () => {
      work = gate;
      await expectEnded('hang');
    });

    it('ends one in the middle of a statement', async () => {
      work = (dataSource) => dataSource.query('SELECT pg_sleep(1000)');
      await expectEnded('hang');
    });

    it('ends one that sends statement after statement', async () => {
      work = async (dataSource) => {
        for (let count = 0; count < 10_000; count++) await dataSource.query('SELECT pg_sleep(0.005)');
      };
      await expectEnded('hang');
    });

    it('ends one that swallows the end of its statement', async () => {
      work = async (dataSource) => {
        await dataSource.query('SELECT pg_sleep(1000)').catch(() => undefined);
        await gate();
      };
      await expectEnded('hang');
    });

    it('ends one that returned without ending its response', async () => {
      hangs = true;
      await expectEnded('never-ends');
    });

    it('ends one that hangs with half its response written', async () => {
      hangs = true;
      work = gate;
      await expectEnded('never-ends');
    });

    it('refuses what the handler does afterwards', async () => {
      const [late, outcome] = [deferred(), deferred<unknown>()];
      work = async (dataSource) => {
        await late.promise;
        outcome.resolve(
          await dataSource
            .query("INSERT INTO orders (item, price) VALUES ('late', 1)")
            .catch((error: unknown) => error),
        );
      };
      const answer = await postUntil(() => entered);
      expect(answer.status).toBe(503);
      late.resolve();
      expect(await outcome.promise).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });

    it('answers although the database went silent while the handler ran', async () => {
      work = async () => {
        proxy.pause();
        await gate();
      };
      const answer = await postUntil(() => entered);
      expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' });
      proxy.resume();
      await eventually(async () => (await openTransactions(database)) === 0);
      await expectRuns('hang');
    });

    it('answers although the database went silent at the claim', async () => {
      const paused = proxy.onClientData((chunk) => {
        if (!isClaim(chunk)) return 'forward';
        paused();
        proxy.pause();
        return 'forward';
      });
      const answer = await post('hang');
      expect(answer.status).toBe(503);
      expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_STORE_UNAVAILABLE' });
      proxy.resume();
      await eventually(async () => (await openTransactions(database)) === 0);
      await expectRuns('hang');
    });

    it('answers although the database went silent at COMMIT', async () => {
      let isSilent = false;
      const paused = proxy.onClientData((chunk) => {
        if (!isCommit(chunk)) return 'forward';
        paused();
        proxy.pause();
        isSilent = true;
        return 'forward';
      });
      const answer = await postUntil(() => isSilent);
      expect(answer.status).toBe(503);
      expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNKNOWN' });
      proxy.resume();
      const retry = await eventually(async () => {
        const again = await post('hang');
        return again.status === 201 && again;
      });
      expect(retry.json()).toMatchObject({ item: 'book' });
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });
  });

  it.each([
    ['idle', () => gate()],
    ['in a statement', (dataSource: DataSource) => dataSource.query('SELECT pg_sleep(1000)')],
  ])('frees the key of a host that vanished (%s)', async (_state, hanging) => {
    work = hanging;
    let pending = post('hang');
    let isOver = false;
    await eventually(async () => {
      if (isOver) pending = post('hang');
      isOver = false;
      void pending.then(() => (isOver = true));
      return entered && (await busyBackends(database)) > 0;
    });
    // From here on the server hears nothing of that host, not even that its socket was closed.
    proxy.pause();
    work = async () => undefined;
    const answer = await eventually(async () => {
      const attempt = await post('hang', neighbour);
      return [409, 503].includes(attempt.status) ? false : attempt;
    });
    expect(answer.status).toBe(201);
    expect(answer.headers['idempotency-replayed']).toBeUndefined();
    proxy.resume();
    expect((await pending).status).toBe(503);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });
});

async function busyBackends(database: TestDatabase): Promise<number> {
  const [{ count }] = (await database.query(
    `SELECT count(*)::int AS count FROM pg_stat_activity
      WHERE datname = current_database() AND (wait_event = 'PgSleep' OR state = 'idle in transaction')`,
  )) as [{ count: number }];
  return count;
}

async function openTransactions(database: TestDatabase): Promise<number> {
  const [{ count }] = (await database.query(
    `SELECT count(*)::int AS count FROM pg_stat_activity
      WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'`,
  )) as [{ count: number }];
  return count;
}
