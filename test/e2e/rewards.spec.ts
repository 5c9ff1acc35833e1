import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import {
  CLIENT,
  ENDPOINTS,
  NO_TRACES,
  ORDER,
  OTHER_CLIENT,
  PAYOUT,
  resetRewards,
  startRewards,
  traces,
  type RewardsClient,
  type RunningRewards,
} from './rewards.fixture.js';

const KEY_REQUIRED =
  '{"error":{"code":"IDEMPOTENCY_KEY_REQUIRED","message":"Idempotency-Key header is required for this operation","details":"Include a unique Idempotency-Key header (8-256 characters)"}}';
const KEY_TOO_SHORT =
  '{"error":{"code":"IDEMPOTENCY_KEY_TOO_SHORT","message":"Idempotency-Key must be at least 8 characters"}}';
const KEY_REUSED =
  '{"error":"IdempotencyKeyReused","code":"E_IDEMPOTENCY_KEY_REUSED","message":"Idempotency-Key has already been used with a different request body"}';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const SECOND = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const MILLISECOND = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** Name, value and order of the fields, as a client sees them. */
function fieldsOf(response: HttpResponse): [string, unknown][] {
  return Object.entries(response.json() as object);
}

function expectReplay(replay: HttpResponse, original: HttpResponse): void {
  expect(replay.status).toBe(original.status);
  expect(replay.text).toBe(original.text);
  expect(original.headers['idempotency-replayed']).toBeUndefined();
  expect(replay.headers['idempotency-replayed']).toBe('true');
  for (const name of ['idempotency-key', 'idempotency-created-at', 'content-type'] as const) {
    expect(original.headers[name]).toEqual(expect.any(String));
    expect(replay.headers[name]).toBe(original.headers[name]);
  }
}

describe.each(['express', 'fastify'] as const)('rewards API on %s', (adapter) => {
  let database: TestDatabase;
  let rewards: RunningRewards;
  let client: RewardsClient;
  let key: string;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    rewards = await startRewards(adapter, database.url);
    client = rewards.client;
  });

  beforeEach(async () => {
    await resetRewards(database);
    key = `key-${randomUUID()}`;
  });

  afterAll(async () => {
    await rewards.app.close();
    await database.drop();
  });

  describe('effects and answers', () => {
    it('creates an order and deducts the wallet', async () => {
      const response = await client.post('orders', ORDER, key);
      expect(response.status).toBe(201);
      expect(fieldsOf(response)).toEqual([
        ['id', expect.stringMatching(UUID)],
        ['product_id', 123],
        ['denomination', 100],
        ['quantity', 5],
        ['total', '500.00'],
        ['status', 'completed'],
        ['created_at', expect.stringMatching(MILLISECOND)],
      ]);
      expect((await client.get('wallet')).text).toBe('{"balance":"9500.00","currency":"USD"}');
      expect((await client.get('orders')).json()).toEqual([response.json()]);
    });

    it('creates a payout and deducts the wallet', async () => {
      const response = await client.post('payouts', PAYOUT, key);
      expect(response.status).toBe(201);
      expect(fieldsOf(response)).toEqual([
        ['id', expect.stringMatching(UUID)],
        ['amount', '25.00'],
        ['status', 'completed'],
        ['created_at', expect.stringMatching(MILLISECOND)],
      ]);
      expect((await client.get('wallet')).text).toBe('{"balance":"9975.00","currency":"USD"}');
    });

    it('shows a client its own orders and wallet only, the newest order first', async () => {
      const first = await client.post('orders', ORDER, key);
      const second = await client.post('orders', { ...ORDER, quantity: 1 }, `${key}-2`);
      expect((await client.get('orders')).json()).toEqual([second.json(), first.json()]);

      const other = client.as(OTHER_CLIENT);
      expect((await other.get('orders')).text).toBe('[]');
      expect((await other.get('wallet')).text).toBe('{"balance":"10000.00","currency":"USD"}');
    });

    it.each([
      ['unknown key', { ...CLIENT, 'X-API-Key': 'sk_live_unknown' }],
      ['wrong secret', { ...CLIENT, 'X-API-Secret': 'wrong' }],
      ['secret of another client', { ...CLIENT, 'X-API-Secret': OTHER_CLIENT['X-API-Secret'] }],
      ['no secret', { 'X-API-Key': CLIENT['X-API-Key'] }],
      ['no credentials', {}],
    ])('answers 401 for %s', async (_, credentials) => {
      const stranger = client.as(credentials);
      for (const resource of ['orders', 'wallet']) {
        expect((await stranger.get(resource)).status).toBe(401);
      }
      for (const [resource, body] of ENDPOINTS) {
        expect((await stranger.post(resource, body, key)).status).toBe(401);
      }
      expect(await traces(database)).toEqual(NO_TRACES);
    });
  });

  describe('key', () => {
    it.each(ENDPOINTS)('is required on %s', async (resource, body) => {
      const response = await client.post(resource, body);
      expect(response.status).toBe(400);
      expect(response.text).toBe(KEY_REQUIRED);
      expect(response.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(response.headers).not.toHaveProperty('idempotency-key');
      expect(await traces(database)).toEqual(NO_TRACES);
    });

    it.each(ENDPOINTS)('has at least 8 characters on %s', async (resource, body) => {
      const response = await client.post(resource, body, '1234567');
      expect(response.status).toBe(400);
      expect(response.text).toBe(KEY_TOO_SHORT);
      expect(response.headers['content-type']).toBe('application/json; charset=utf-8');
      expect((await client.post(resource, body, '')).text).toBe(KEY_TOO_SHORT);
      expect(await traces(database)).toEqual(NO_TRACES);
      expect((await client.post(resource, body, '12345678')).status).toBe(201);
    });

    it.each(ENDPOINTS)('has at most 256 characters on %s', async (resource, body) => {
      const response = await client.post(resource, body, 'k'.repeat(257));
      expect(response.status).toBe(400);
      expect(response.json()).toEqual({
        error: {
          code: 'IDEMPOTENCY_KEY_TOO_LONG',
          message: 'Idempotency-Key must be at most 256 characters',
        },
      });
      expect(await traces(database)).toEqual(NO_TRACES);
      expect((await client.post(resource, body, 'k'.repeat(256))).status).toBe(201);
    });

    it('is not needed by GET', async () => {
      for (const resource of ['orders', 'wallet']) {
        const response = await client.get(resource);
        expect(response.status).toBe(200);
        expect(Object.keys(response.headers).filter((name) => name.startsWith('idempotency-'))).toEqual([]);
      }
    });
  });

  describe('replay', () => {
    it.each(ENDPOINTS)('answers a retry on %s as the original', async (resource, body) => {
      const before = Date.now();
      const original = await client.post(resource, body, key);
      const after = await traces(database);
      expect(original.headers['idempotency-key']).toBe(key);
      expect(original.headers['idempotency-created-at']).toMatch(SECOND);
      const createdAt = Date.parse(String(original.headers['idempotency-created-at']));
      expect(createdAt).toBeGreaterThan(before - 1_000);
      expect(createdAt).toBeLessThanOrEqual(Date.now());

      expectReplay(await client.post(resource, body, key), original);
      expectReplay(await client.post(resource, body, key), original);
      expect(await traces(database)).toEqual(after);
    });

    it.each(ENDPOINTS)('lasts 24 hours on %s, after which the key is fresh', async (resource, body) => {
      const original = await client.post(resource, body, key);
      const [record] = await database.query<{ seconds: number }>(
        'SELECT extract(epoch FROM expires_at - completed_at)::float8 AS seconds FROM idempotency_records',
      );
      // Both are read off the clock, one microsecond apart at times.
      expect(record?.seconds).toBeCloseTo(86_400, 2);

      await database.query(`UPDATE idempotency_records SET expires_at = clock_timestamp()`);
      const fresh = await client.post(resource, body, key);
      expect(fresh.status).toBe(201);
      expect(fresh.headers).not.toHaveProperty('idempotency-replayed');
      expect(fresh.text).not.toBe(original.text);
      expect(await traces(database)).toMatchObject({ [resource]: 2 });
    });
  });

  describe('scope', () => {
    it.each([
      ['orders', ORDER, { ...ORDER, quantity: 6 }],
      ['payouts', PAYOUT, { amount: '26.00' }],
    ])('refuses another body under the same key on %s', async (resource, body, otherBody) => {
      const original = await client.post(resource, body, key);
      const after = await traces(database);
      const reused = await client.post(resource, otherBody, key);
      expect(reused.status).toBe(422);
      expect(reused.text).toBe(KEY_REUSED);
      expect(reused.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(reused.headers).not.toHaveProperty('idempotency-replayed');
      expect(await traces(database)).toEqual(after);
      expectReplay(await client.post(resource, body, key), original);
    });

    it.each(ENDPOINTS)('keeps clients apart on %s', async (resource, body) => {
      const original = await client.post(resource, body, key);
      const others = await client.as(OTHER_CLIENT).post(resource, body, key);
      expect(others.status).toBe(201);
      expect(others.headers).not.toHaveProperty('idempotency-replayed');
      expect(others.text).not.toBe(original.text);
      expectReplay(await client.post(resource, body, key), original);
      expectReplay(await client.as(OTHER_CLIENT).post(resource, body, key), others);
    });

    it('keeps endpoints apart', async () => {
      const order = await client.post('orders', ORDER, key);
      const payout = await client.post('payouts', PAYOUT, key);
      expect([order.status, payout.status]).toEqual([201, 201]);
      expect(payout.headers).not.toHaveProperty('idempotency-replayed');
      expectReplay(await client.post('orders', ORDER, key), order);
      expectReplay(await client.post('payouts', PAYOUT, key), payout);
      expect(await traces(database)).toEqual({ orders: 1, payouts: 1, balance: '9475.00', records: 2 });
    });
  });

  describe('refusals', () => {
    it.each([
      ['orders', { ...ORDER, quantity: 101 }],
      ['payouts', { amount: '10000.01' }],
    ])('answers %s beyond the wallet with 402, writes nothing and replays it', async (resource, body) => {
      const original = await client.post(resource, body, key);
      expect(original.status).toBe(402);
      expect(original.json()).toMatchObject({ statusCode: 402 });
      expect(await traces(database)).toEqual({ ...NO_TRACES, records: 1 });

      await database.query(`UPDATE wallets SET balance = '20000.00'`);
      expectReplay(await client.post(resource, body, key), original);
      expect(await traces(database)).toEqual({ orders: 0, payouts: 0, balance: '20000.00', records: 1 });
      expect((await client.post(resource, body, `${key}-2`)).status).toBe(201);
    });

    it.each([
      ['an unknown product', 404, { ...ORDER, product_id: 124 }],
      ['a denomination the product does not come in', 400, { ...ORDER, denomination: 30 }],
    ])('answers %s with %i, and replays it', async (_, status, body) => {
      const original = await client.post('orders', body, key);
      expect(original.status).toBe(status);
      expectReplay(await client.post('orders', body, key), original);
      expect(await traces(database)).toEqual({ ...NO_TRACES, records: 1 });
    });

    it.each([
      ['orders', { ...ORDER, quantity: 0 }],
      ['orders', { ...ORDER, quantity: 1001 }],
      ['orders', { ...ORDER, quantity: 1.5 }],
      ['orders', { ...ORDER, quantity: '5' }],
      ['orders', { ...ORDER, product_id: 2_147_483_648 }],
      ['orders', { ...ORDER, denomination: null }],
      ['orders', { ...ORDER, discount: 1 }],
      ['orders', { product_id: 123 }],
      ['orders', [ORDER]],
      ['orders', {}],
      ['payouts', { amount: 25 }],
      ['payouts', { amount: '0.00' }],
      ['payouts', { amount: '-1.00' }],
      ['payouts', { amount: '1.001' }],
      ['payouts', { amount: '1e3' }],
      ['payouts', { amount: '007.00' }],
      ['payouts', { amount: ' 1.00\n' }],
      ['payouts', { amount: '12345678901.00' }],
      ['payouts', { ...PAYOUT, currency: 'EUR' }],
      ['payouts', {}],
    ])('answers invalid %s %j with 400, and the key is still free', async (resource, body) => {
      expect((await client.post(resource, body, key)).status).toBe(400);
      expect(await traces(database)).toEqual(NO_TRACES);
      const corrected = await client.post(resource, resource === 'orders' ? ORDER : PAYOUT, key);
      expect(corrected.status).toBe(201);
      expect(corrected.headers).not.toHaveProperty('idempotency-replayed');
    });
  });

  describe('money', () => {
    it('is exact where floating point is not', async () => {
      await database.query(`UPDATE wallets SET balance = '0.30'`);
      for (const amount of ['0.10', '0.20']) {
        expect((await client.post('payouts', { amount }, `${key}-${amount}`)).status).toBe(201);
      }
      expect((await client.get('wallet')).text).toBe('{"balance":"0.00","currency":"USD"}');
      expect((await client.post('payouts', { amount: '0.01' }, key)).status).toBe(402);
    });

    it('is exact at the largest amounts', async () => {
      await database.query(`UPDATE wallets SET balance = '9999999999.99'`);
      const payout = await client.post('payouts', { amount: '9999999999.98' }, key);
      expect(payout.json()).toMatchObject({ amount: '9999999999.98' });
      expect((await client.get('wallet')).text).toBe('{"balance":"0.01","currency":"USD"}');
    });

    it.each([
      ['25', '25.00', '9975.00'],
      ['0.5', '0.50', '9999.50'],
      ['1234.56', '1234.56', '8765.44'],
    ])('shows %s as %s', async (amount, shown, balance) => {
      const payout = await client.post('payouts', { amount }, key);
      expect(payout.json()).toMatchObject({ amount: shown });
      expect((await client.get('wallet')).json()).toEqual({ balance, currency: 'USD' });
    });

    it('never goes below zero, however many spend it at once', async () => {
      await database.query(`UPDATE wallets SET balance = '70.00'`);
      const attempts = Array.from({ length: 8 }, (_, index) =>
        client.post('payouts', PAYOUT, `${key}-${index}`),
      );
      const statuses = (await Promise.all(attempts)).map((response) => response.status);
      expect(statuses.filter((status) => status === 201)).toHaveLength(2);
      expect(statuses.filter((status) => status === 402)).toHaveLength(6);
      expect(await traces(database)).toMatchObject({ payouts: 2, balance: '20.00' });
    });
  });

  describe('database', () => {
    it('keeps what is there when the application starts again', async () => {
      const original = await client.post('orders', ORDER, key);
      const restarted = await startRewards(adapter, database.url);
      try {
        expectReplay(await restarted.client.post('orders', ORDER, key), original);
        expect((await restarted.client.get('wallet')).json()).toEqual({
          balance: '9500.00',
          currency: 'USD',
        });
      } finally {
        await restarted.app.close();
      }
    });

    it('is what the entities say, and the table of records is not touched by generated migrations', async () => {
      const changes = await rewards.app.get(DataSource).driver.createSchemaBuilder().log();
      expect(changes.upQueries.map(({ query }) => query)).toEqual([]);
    });

    it('holds no secret', async () => {
      const rows = await database.query<{ row: string }>('SELECT c::text AS row FROM api_clients AS c');
      expect(rows).toHaveLength(2);
      for (const { row } of rows) {
        for (const { 'X-API-Secret': secret } of [CLIENT, OTHER_CLIENT]) {
          expect(row).not.toContain(secret);
          expect(row).not.toContain(Buffer.from(secret).toString('hex'));
        }
      }
    });
  });
});
