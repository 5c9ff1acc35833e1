import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, HttpException, Post } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Client } from 'pg';
import { Repository } from 'typeorm';
import { statementsFor } from '../../lib/store/sql.js';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const TTL = 3_600_000;
/** The SQLSTATE of a statement that waited for a lock until lock_timeout. */
const LOCK_NOT_AVAILABLE = '55P03';
let meanwhile: () => Promise<void> = async () => undefined;

@Controller('orders')
class OrdersController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post()
  @Idempotent({ ttl: TTL })
  async create(@Body() { item }: { item: string }): Promise<Order> {
    await meanwhile();
    const order = await this.orders.save({ item, price: 10 });
    if (item === 'refused') throw new HttpException('refused', 402);
    return order;
  }
}

describe.each(ADAPTERS)('expired records (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: TestApp;
  let lockTimeouts = 0;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    proxy.onServerData((chunk) => {
      if (chunk.includes(LOCK_NOT_AVAILABLE)) lockTimeouts += 1;
      return 'forward';
    });
    app = await startApp({
      adapter,
      databaseUrl: proxy.url(database.url),
      controllers: [OrdersController],
      // So that a 409 is the answer of a claim and not of the time that a duplicate waits.
      idempotency: { whenInProgress: 'reject' },
    });
  });

  afterEach(async () => {
    meanwhile = async () => undefined;
    await resetShop(database);
  });

  afterAll(async () => {
    await app.close();
    await proxy.close();
    await database.drop();
  });

  const order = (key: string, item = 'book'): Promise<HttpResponse> =>
    postJson(`${app.url}/orders`, { item }, { 'Idempotency-Key': key });

  /** Moves every record into the past, so that nobody has to wait. */
  const expireAll = (): Promise<unknown> =>
    database.query(
      `UPDATE idempotency_records
          SET created_at = created_at - interval '1 day', completed_at = completed_at - interval '1 day',
              expires_at = clock_timestamp() - interval '1 second'`,
    );

  const record = async (): Promise<Record<string, unknown>> => {
    const [row] = await database.query(
      `SELECT status, response_status, convert_from(response_body, 'UTF8') AS body,
              extract(epoch FROM expires_at - completed_at) * 1000 AS kept,
              created_at > clock_timestamp() - interval '1 hour' AS is_new
         FROM idempotency_records`,
    );
    return row!;
  };

  it('are replayed until they expire, counted from completion', async () => {
    await order('key');
    expect(await record()).toMatchObject({ status: 'completed' });
    expect(Math.round(Number((await record())['kept']))).toBe(TTL);
    await database.query(
      "UPDATE idempotency_records SET expires_at = clock_timestamp() + interval '1 minute', created_at = '2020-01-02 03:04:05Z'",
    );
    const replay = await order('key');
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(replay.headers['idempotency-created-at']).toBe('2020-01-02T03:04:05Z');
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('let the key run afresh, once, with a new time of creation', async () => {
    const first = await order('key');
    await expireAll();
    const before = Date.now();
    const second = await order('key');
    const third = await order('key');
    expect(second.headers['idempotency-replayed']).toBeUndefined();
    expect(second.text).not.toBe(first.text);
    expect(Date.parse(String(second.headers['idempotency-created-at']))).toBeGreaterThan(before - 60_000);
    expect(third.headers['idempotency-replayed']).toBe('true');
    expect(third.text).toBe(second.text);
    expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
    expect(await record()).toMatchObject({ status: 'completed', is_new: true });
  });

  it('let the key run afresh with another body', async () => {
    await order('key', 'book');
    expect((await order('key', 'pen')).status).toBe(422);
    await expireAll();
    const second = await order('key', 'pen');
    expect(second.json()).toMatchObject({ item: 'pen' });
    expect((await order('key', 'pen')).text).toBe(second.text);
    expect((await order('key', 'book')).status).toBe(422);
    expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
  });

  it('that recorded an error let the key run afresh', async () => {
    expect((await order('key', 'refused')).status).toBe(402);
    expect(await record()).toMatchObject({ status: 'failed', response_status: 402 });
    await expireAll();
    expect((await order('key', 'book')).status).toBe(201);
    expect(await record()).toMatchObject({ status: 'completed', response_status: 201, is_new: true });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('come back as they were when the new attempt fails', async () => {
    await order('key');
    await expireAll();
    meanwhile = async () => {
      throw new Error('not this time');
    };
    expect((await order('key', 'pen')).status).toBe(500);
    expect(await record()).toMatchObject({ status: 'completed', is_new: false });
    meanwhile = async () => undefined;
    expect((await order('key', 'pen')).json()).toMatchObject({ item: 'pen' });
    expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
  });

  it('run once for many requests at once', async () => {
    await order('key');
    await expireAll();
    const answers = await Promise.all(Array.from({ length: 20 }, () => order('key')));
    const originals = answers.filter(
      ({ status, headers }) => status === 201 && !headers['idempotency-replayed'],
    );
    expect(originals).toHaveLength(1);
    for (const { status, text } of answers) {
      expect([201, 409]).toContain(status);
      if (status === 201) expect(text).toBe(originals[0]!.text);
    }
    expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
  });

  it('are in progress for others while the new attempt runs', async () => {
    await order('key');
    await expireAll();
    const [inside, gate] = [deferred(), deferred()];
    meanwhile = async () => {
      inside.resolve();
      await gate.promise;
    };
    const running = order('key');
    await inside.promise;
    expect((await order('key')).status).toBe(409);
    gate.resolve();
    expect((await running).status).toBe(201);
  });

  describe('that a purge is deleting', () => {
    let purge: Client;

    beforeAll(async () => {
      purge = new Client({ connectionString: database.url });
      await purge.connect();
    });

    afterEach(() => purge.query('ROLLBACK'));
    afterAll(() => purge.end());

    /** Holds every lock of a purge that has deleted everything expired, for as long as the test likes. */
    const beginPurge = async (): Promise<number | undefined> => {
      await purge.query('BEGIN');
      const { purge: statement } = statementsFor({
        schema: 'public',
        name: 'idempotency_records',
        isPartitioned: false,
        serverVersion: 180_000,
      });
      const { rows } = await purge.query<{ records: string }>(statement, [1000, '0']);
      return Number(rows[0]?.records);
    };

    /** Resolves when a request waits for the purge's transaction to end. */
    const untilWaiting = (): Promise<unknown> =>
      eventually(async () => {
        const rows = await database.query(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        return rows.length > 0;
      });

    it('make nobody wait: neither replays nor claims of other keys', async () => {
      await order('expired');
      await expireAll();
      const live = await order('live');
      expect(await beginPurge()).toBe(1);

      // The purge ends only after these have answered, so that an answer proves that nobody waited for it.
      const [replay, fresh] = [await order('live'), await order('fresh')];
      expect(replay.text).toBe(live.text);
      expect(replay.headers['idempotency-replayed']).toBe('true');
      expect(fresh.status).toBe(201);
      // A claim that waited for the purge and gave up would show here.
      expect(lockTimeouts).toBe(0);
    });

    it.each(['COMMIT', 'ROLLBACK'])('run, and their record waits for the purge’s own %s', async (end) => {
      await order('expired');
      await expireAll();
      expect(await beginPurge()).toBe(1);
      const running = order('expired');
      await untilWaiting();
      await purge.query(end);
      const answer = await running;
      expect(answer.status).toBe(201);
      expect(answer.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
      expect((await order('expired')).text).toBe(answer.text);
    });

    it('may be deleted while a new attempt runs, whose record is another', async () => {
      await order('expired');
      await expireAll();
      const [inside, gate] = [deferred(), deferred()];
      meanwhile = async () => {
        inside.resolve();
        await gate.promise;
      };
      const running = order('expired');
      await inside.promise;
      expect(await beginPurge()).toBe(1);
      await purge.query('COMMIT');
      gate.resolve();
      expect((await running).status).toBe(201);
      expect(await beginPurge()).toBe(0);
      await purge.query('COMMIT');
      expect((await order('expired')).headers['idempotency-replayed']).toBe('true');
    });
  });
});
