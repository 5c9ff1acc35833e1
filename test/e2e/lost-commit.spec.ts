import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, Post } from '@nestjs/common';
import { InjectDataSource, InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { DataSource, Repository } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { cutBeforeCommit, loseCommitAnswer, isClaim } from '../helpers/commit-faults.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState, Wallet } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

interface Purchase {
  readonly item: string;
  readonly price: number;
}

/** What the next handler does between its writes and its end. */
let meanwhile: (dataSource: DataSource) => Promise<unknown> = async () => undefined;

@Controller('orders')
class OrdersController {
  constructor(
    @InjectRepository(Wallet) private readonly wallets: Repository<Wallet>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectDataSource() private readonly dataSource: DataSource,
  ) {}

  @Post()
  @Idempotent()
  async create(@Body() { item, price }: Purchase): Promise<Order> {
    if (price > 0) await this.wallets.decrement({ id: 1 }, 'balance', price);
    const order = await this.orders.save({ item, price });
    await meanwhile(this.dataSource);
    return order;
  }
}

const UNTOUCHED = { balance: 1000, orders: 0, records: 0 };
const ONE_EFFECT = { balance: 990, orders: 1, records: 1 };
const ACQUIRE_TIMEOUT = 300;
const POOL_SIZE = 3;

describe.each(ADAPTERS)('a database that fails (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    await database.query(`
      CREATE TABLE items (name text PRIMARY KEY);
      INSERT INTO items VALUES ('book');
      ALTER TABLE orders ADD CONSTRAINT orders_item FOREIGN KEY (item) REFERENCES items DEFERRABLE INITIALLY DEFERRED`);
    proxy = await startDatabaseProxy(database.url);
    app = await startApp({
      adapter,
      databaseUrl: proxy.url(database.url),
      controllers: [OrdersController],
      idempotency: { acquireTimeout: ACQUIRE_TIMEOUT },
      poolSize: POOL_SIZE,
    });
  });

  afterEach(async () => {
    meanwhile = async () => undefined;
    await endSleepers(database);
    await resetShop(database);
  });

  afterAll(async () => {
    await app.close();
    await proxy.close();
    await database.drop();
  });

  const order = (key: string, purchase: Purchase = { item: 'book', price: 10 }): Promise<HttpResponse> =>
    postJson(`${app.url}/orders`, purchase, { 'Idempotency-Key': key });

  /** As a client retries: the server, or a busy pooler, may still have to notice that the first connection is gone. */
  const retryUntilAnswered = (key: string): Promise<HttpResponse> =>
    eventually(async () => {
      const answer = await order(key);
      return [409, 503].includes(answer.status) ? false : answer;
    });

  const expectRetryRuns = async (key: string): Promise<void> => {
    const retry = await retryUntilAnswered(key);
    expect(retry.status).toBe(201);
    expect(retry.headers['idempotency-replayed']).toBeUndefined();
    expect(await shopState(database)).toEqual(ONE_EFFECT);
  };

  describe('at COMMIT', () => {
    it('says that the outcome is unknown when COMMIT did not arrive, and the retry runs', async () => {
      const fault = cutBeforeCommit(proxy);
      const first = await order('cut-before');
      await fault.struck;
      expectProblem(first, 503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
      expect(await shopState(database)).toEqual(UNTOUCHED);
      await expectRetryRuns('cut-before');
    });

    it('says that the outcome is unknown when the answer was lost, and the retry replays', async () => {
      const fault = loseCommitAnswer(proxy);
      const first = await order('cut-after');
      await fault.struck;
      expectProblem(first, 503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
      expect(await shopState(database)).toEqual(ONE_EFFECT);
      const retry = await retryUntilAnswered('cut-after');
      expect(retry.status).toBe(201);
      expect(retry.json()).toMatchObject({ item: 'book', price: 10 });
      expect(retry.headers['idempotency-replayed']).toBe('true');
      expect(await shopState(database)).toEqual(ONE_EFFECT);
    });

    it('refuses for good what a deferred constraint refuses, and keeps nothing', async () => {
      const first = await order('deferred', { item: 'unicorn', price: 10 });
      expectProblem(first, 500, 'IDEMPOTENCY_COMMIT_REFUSED');
      expect(await shopState(database)).toEqual(UNTOUCHED);
      const again = await order('deferred', { item: 'unicorn', price: 10 });
      expectProblem(again, 500, 'IDEMPOTENCY_COMMIT_REFUSED');
      await expectRetryRuns('deferred');
    });

    it('refuses for good what a deferred trigger refuses with an error of its own', async () => {
      await database.query(`
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
        CREATE CONSTRAINT TRIGGER not_today AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION refuse()`);
      const first = await order('trigger');
      await database.query('DROP TRIGGER not_today ON orders; DROP FUNCTION refuse()');
      expectProblem(first, 500, 'IDEMPOTENCY_COMMIT_REFUSED');
      expect(await shopState(database)).toEqual(UNTOUCHED);
      await expectRetryRuns('trigger');
    });
  });

  describe('before COMMIT', () => {
    it('releases when the connection breaks while the handler computes', async () => {
      meanwhile = once(async () => {
        proxy.cut();
        await eventually(() => proxy.connections().length === 0);
      });
      const first = await order('cut-idle');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      await expectRetryRuns('cut-idle');
    });

    it('releases when the connection breaks under a statement of the handler', async () => {
      meanwhile = once(async (dataSource) => {
        const waiting = dataSource.query('SELECT pg_sleep(1000)');
        await eventually(async () => (await sleepers(database)).length === 1);
        proxy.cut();
        await waiting;
      });
      const first = await order('cut-busy');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      // Nothing tells the server that its client is gone, until the statement ends.
      await endSleepers(database);
      await expectRetryRuns('cut-busy');
    });

    it('releases when an operator terminates the backend under a statement of the handler', async () => {
      meanwhile = once(async (dataSource) => {
        const waiting = dataSource.query('SELECT pg_sleep(1000)');
        await eventually(async () => (await sleepers(database)).length === 1);
        await endSleepers(database);
        await waiting;
      });
      const first = await order('terminated-busy');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      await expectRetryRuns('terminated-busy');
    });

    it('releases when an operator terminates the backend while the handler computes', async () => {
      meanwhile = once(async (dataSource) => {
        const [{ pid }] = await dataSource.query<[{ pid: number }]>('SELECT pg_backend_pid() AS pid');
        await database.query('SELECT pg_terminate_backend($1, 10000)', [pid]);
      });
      const first = await order('terminated-idle');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      await expectRetryRuns('terminated-idle');
    });

    it('never runs the handler when the connection breaks during the claim', async () => {
      let ran = false;
      meanwhile = async () => void (ran = true);
      const disarm = proxy.onClientData((chunk) => {
        if (!isClaim(chunk)) return 'forward';
        disarm();
        return 'cut-before';
      });
      const first = await order('cut-claim');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      expect(ran).toBe(false);
      await expectRetryRuns('cut-claim');
    });

    it('never runs the handler when the answer to the claim is lost', async () => {
      let ran = false;
      meanwhile = async () => void (ran = true);
      let claimed = false;
      const stop = proxy.onClientData((chunk) => {
        // As a text, or as the name under which it is prepared.
        claimed ||= chunk.includes('xact_lock') || chunk.includes('idempotency_lock');
        return 'forward';
      });
      const disarm = proxy.onServerData(() => {
        if (!claimed) return 'forward';
        stop();
        disarm();
        return 'cut-before';
      });
      const first = await order('lost-claim');
      expectProblem(first, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      expect(ran).toBe(false);
      await expectRetryRuns('lost-claim');
    });
  });

  describe('out of reach', () => {
    it('answers 503 while no connection of the pool is free, and holds nobody up afterwards', async () => {
      const [gate, inside] = [deferred(), deferred()];
      let running = 0;
      meanwhile = async () => {
        if (++running === POOL_SIZE) inside.resolve();
        await gate.promise;
      };
      // Free of charge, because a price would lock the wallet until the first of them commits.
      const holders = ['one', 'two', 'three'].map((key) => order(key, { item: 'book', price: 0 }));
      await inside.promise;
      const refused = await order('no-connection');
      expectProblem(refused, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      gate.resolve();
      expect((await Promise.all(holders)).map(({ status }) => status)).toEqual([201, 201, 201]);
      expect((await retryUntilAnswered('no-connection')).status).toBe(201);
    });

    it('answers 503 while the database is down, and recovers by itself', async () => {
      proxy.refuse();
      proxy.cut();
      await eventually(() => proxy.connections().length === 0);
      const answers = await Promise.all(['down-1', 'down-2', 'down-3', 'down-4'].map((key) => order(key)));
      for (const answer of answers) expectProblem(answer, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      proxy.refuse(false);
      await expectRetryRuns('down-1');
    });
  });
});

function expectProblem(answer: HttpResponse, status: number, code: string): void {
  expect({ status: answer.status, body: answer.json() }).toMatchObject({ status, body: { status, code } });
  expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/);
  expect(answer.headers['retry-after']).toBe(status === 503 ? '1' : undefined);
  expect(answer.headers['idempotency-replayed']).toBeUndefined();
}

/** Only the first handler is struck; the retry runs undisturbed. */
function once(work: typeof meanwhile): typeof meanwhile {
  return async (dataSource) => {
    meanwhile = async () => undefined;
    await work(dataSource);
  };
}

async function sleepers(database: TestDatabase): Promise<{ pid: number }[]> {
  return database.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event = 'PgSleep' AND state = 'active'`,
  );
}

async function endSleepers(database: TestDatabase): Promise<void> {
  for (const { pid } of await sleepers(database)) {
    await database.query('SELECT pg_terminate_backend($1, 10000)', [pid]);
  }
}
