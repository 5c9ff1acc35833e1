import { randomUUID } from 'node:crypto';
import type { Server } from 'node:http';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { ADAPTERS } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { startTcpProxy } from '../helpers/tcp-proxy.js';
import {
  CART,
  CART_ITEMS,
  CHECKOUT,
  CLIENT,
  ENDPOINTS,
  holdWallets,
  NO_TRACES,
  ORDER,
  ORDERS,
  OTHER_CLIENT,
  PAYOUT,
  PAYOUTS,
  PORTAL_ORDERS,
  PORTAL_PAYOUTS,
  resetRewards,
  RewardsClient,
  startRewards,
  traces,
  WALLET,
  type HeldWallets,
  type RunningRewards,
} from './rewards.fixture.js';
import { MILLISECOND, SECOND, UUID } from './sample.fixture.js';

const KEY_REQUIRED =
  '{"error":{"code":"IDEMPOTENCY_KEY_REQUIRED","message":"Idempotency-Key header is required for this operation","details":"Include a unique Idempotency-Key header (8-256 characters)"}}';
const KEY_TOO_SHORT =
  '{"error":{"code":"IDEMPOTENCY_KEY_TOO_SHORT","message":"Idempotency-Key must be at least 8 characters"}}';
const KEY_TOO_LONG =
  '{"error":{"code":"IDEMPOTENCY_KEY_TOO_LONG","message":"Idempotency-Key must be at most 256 characters"}}';
const KEY_REUSED =
  '{"error":"IdempotencyKeyReused","code":"E_IDEMPOTENCY_KEY_REUSED","message":"Idempotency-Key has already been used with a different request body"}';
const CART_EMPTY = '{"message":"The cart is empty","error":"Conflict","statusCode":409}';

/** Name, value and order of the fields, as a client sees them. */
function fieldsOf(value: unknown): [string, unknown][] {
  return Object.entries(value as object);
}

function orderFields(denomination: number, quantity: number, total: string): [string, unknown][] {
  return [
    ['id', expect.stringMatching(UUID)],
    ['product_id', 123],
    ['denomination', denomination],
    ['quantity', quantity],
    ['total', total],
    ['status', 'completed'],
    ['created_at', expect.stringMatching(MILLISECOND)],
  ];
}

function idempotencyHeaders({ headers }: HttpResponse): Record<string, unknown> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('idempotency-')));
}

/** The contract's three headers on what was answered first. */
function expectOriginal(original: HttpResponse, key: string): void {
  expect(idempotencyHeaders(original)).toEqual({
    'idempotency-key': key,
    'idempotency-created-at': expect.stringMatching(SECOND),
  });
}

function expectReplay(replay: HttpResponse, original: HttpResponse): void {
  expect({ status: replay.status, text: replay.text }).toEqual({
    status: original.status,
    text: original.text,
  });
  expect(original.headers['idempotency-replayed']).toBeUndefined();
  expect(idempotencyHeaders(replay)).toEqual({
    ...idempotencyHeaders(original),
    'idempotency-replayed': 'true',
  });
  expect(replay.headers['content-type']).toBe(original.headers['content-type']);
}

/** An answer of the published shape: no record was made or read for it. */
function expectError(answer: HttpResponse, status: number, text: string): void {
  expect({ status: answer.status, text: answer.text }).toEqual({ status, text });
  expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
  expect(answer.headers).not.toHaveProperty('idempotency-replayed');
  expect(answer.headers).not.toHaveProperty('idempotency-created-at');
}

/** A body that each endpoint takes. */
const VALID = Object.fromEntries(ENDPOINTS.map(({ path, body }) => [path, body]));

describe.each(ADAPTERS)('rewards API on %s', (adapter) => {
  let database: TestDatabase;
  let rewards: RunningRewards;
  let client: RewardsClient;
  let key: string;
  let wallets: HeldWallets | undefined;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    rewards = await startRewards(adapter, database.url);
    client = rewards.client;
  });

  beforeEach(async () => {
    await resetRewards(database);
    key = `key-${randomUUID()}`;
  });

  afterEach(async () => {
    await wallets?.release();
    wallets = undefined;
  });

  afterAll(async () => {
    await rewards.app.close();
    await database.drop();
  });

  describe('endpoints', () => {
    it.each([ORDERS, PORTAL_ORDERS])('POST %s creates an order, deducts the wallet', async (path) => {
      const response = await client.post(path, ORDER, key);
      expect(response.status).toBe(201);
      expect(fieldsOf(response.json())).toEqual(orderFields(100, 5, '500.00'));
      expect((await client.get(WALLET)).text).toBe('{"balance":"9500.00","currency":"USD"}');
      expect((await client.get(path)).json()).toEqual([response.json()]);
    });

    it.each([PAYOUTS, PORTAL_PAYOUTS])('POST %s creates a withdrawal, deducts the wallet', async (path) => {
      const response = await client.post(path, PAYOUT, key);
      expect(response.status).toBe(201);
      expect(fieldsOf(response.json())).toEqual([
        ['id', expect.stringMatching(UUID)],
        ['amount', '25.00'],
        ['status', 'completed'],
        ['created_at', expect.stringMatching(MILLISECOND)],
      ]);
      expect((await client.get(WALLET)).text).toBe('{"balance":"9975.00","currency":"USD"}');
    });

    it(`POST ${CHECKOUT} turns the cart into orders`, async () => {
      const response = await client.post(CHECKOUT, {}, key);
      expect(response.status).toBe(201);
      const { orders } = response.json() as { orders: object[] };
      expect(fieldsOf(response.json())).toEqual([
        ['orders', orders],
        ['total', '100.00'],
      ]);
      expect(orders.map(fieldsOf)).toEqual([orderFields(25, 2, '50.00'), orderFields(50, 1, '50.00')]);
      expect((await client.get(WALLET)).text).toBe('{"balance":"9900.00","currency":"USD"}');
      const listed = (await client.get(ORDERS)).json();
      expect(listed).toHaveLength(2);
      expect(listed).toEqual(expect.arrayContaining(orders));
    });

    it('GET shows a client its own orders and wallet only, the newest order first', async () => {
      const first = await client.post(ORDERS, ORDER, key);
      const second = await client.post(PORTAL_ORDERS, { ...ORDER, quantity: 1 }, `${key}-2`);
      for (const path of [ORDERS, PORTAL_ORDERS]) {
        expect((await client.get(path)).json()).toEqual([second.json(), first.json()]);
      }
      const other = client.as(OTHER_CLIENT);
      expect((await other.get(ORDERS)).text).toBe('[]');
      expect((await other.get(WALLET)).text).toBe('{"balance":"10000.00","currency":"USD"}');
    });
  });

  describe('authentication', () => {
    it.each([
      ['unknown key', { ...CLIENT, 'X-API-Key': 'sk_live_unknown' }],
      ['wrong secret', { ...CLIENT, 'X-API-Secret': 'wrong' }],
      ['secret of another client', { ...CLIENT, 'X-API-Secret': OTHER_CLIENT['X-API-Secret'] }],
      ['no secret', { 'X-API-Key': CLIENT['X-API-Key'] }],
      ['no credentials', {}],
    ])('%s: 401', async (_, credentials) => {
      const original = await client.post(ORDERS, ORDER, key);
      const after = await traces(database);
      const stranger = client.as(credentials);
      for (const path of [ORDERS, PORTAL_ORDERS, WALLET, CART]) {
        expect((await stranger.get(path)).status).toBe(401);
      }
      // Under a key that a client has used, too: a stranger is told nothing.
      for (const { path, body } of ENDPOINTS) {
        const refused = await stranger.post(path, body, key);
        expect(refused.status).toBe(401);
        expect(refused.headers).not.toHaveProperty('idempotency-replayed');
      }
      expect(await traces(database)).toEqual(after);
      expectReplay(await client.post(ORDERS, ORDER, key), original);
    });
  });

  describe.each(ENDPOINTS)('POST $path', ({ path, body, other, tooDear, effect }) => {
    it('needs a key', async () => {
      const refused = await client.post(path, body);
      expectError(refused, 400, KEY_REQUIRED);
      expect(refused.headers).not.toHaveProperty('idempotency-key');
      expect(await traces(database)).toEqual(NO_TRACES);
    });

    it('takes keys of 8 to 256 characters', async () => {
      for (const short of ['', '1234567'])
        expectError(await client.post(path, body, short), 400, KEY_TOO_SHORT);
      expectError(await client.post(path, body, 'k'.repeat(257)), 400, KEY_TOO_LONG);
      expect(await traces(database)).toEqual(NO_TRACES);
      for (const taken of ['12345678', 'k'.repeat(256)]) {
        const answer = await client.post(path, body, taken);
        expect(answer.status).toBe(201);
        expectOriginal(answer, taken);
      }
    });

    it('takes effect once, and answers every retry as the original', async () => {
      const before = Date.now();
      const original = await client.post(path, body, key);
      expect(original.status).toBe(201);
      expectOriginal(original, key);
      const createdAt = Date.parse(String(original.headers['idempotency-created-at']));
      // It is cut to the second.
      expect(createdAt).toBeGreaterThan(before - 1_000);
      expect(createdAt).toBeLessThanOrEqual(Date.now());

      expectReplay(await client.post(path, body, key), original);
      expectReplay(await client.post(path, body, key), original);
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
    });

    it('keeps a key for 24 hours, after which it is fresh again', async () => {
      const original = await client.post(path, body, key);
      const [record] = await database.query<{ seconds: number }>(
        'SELECT extract(epoch FROM expires_at - completed_at)::float8 AS seconds FROM idempotency_records',
      );
      // Both are read off the clock, one microsecond apart at times.
      expect(record?.seconds).toBeCloseTo(86_400, 2);

      await database.query(
        `UPDATE idempotency_records SET expires_at = clock_timestamp() + interval '1 minute'`,
      );
      expectReplay(await client.post(path, body, key), original);
      await database.query('UPDATE idempotency_records SET expires_at = clock_timestamp()');
      const fresh = await client.post(path, body, key);
      expect(fresh.status).toBe(201);
      expectOriginal(fresh, key);
      expect(fresh.text).not.toBe(original.text);
      const { orders, payouts } = effect;
      expect(await traces(database)).toMatchObject({ orders: 2 * orders, payouts: 2 * payouts, records: 1 });
    });

    it('refuses another body under the same key, and does not run it', async () => {
      const original = await client.post(path, body, key);
      const reused = await client.post(path, other, key);
      expectError(reused, 422, KEY_REUSED);
      expect(reused.headers['idempotency-key']).toBe(key);
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
      expectReplay(await client.post(path, body, key), original);
    });

    it('keeps clients apart', async () => {
      const original = await client.post(path, body, key);
      const others = await client.as(OTHER_CLIENT).post(path, body, key);
      expect(others.status).toBe(201);
      expectOriginal(others, key);
      expect(others.text).not.toBe(original.text);
      expectReplay(await client.post(path, body, key), original);
      expectReplay(await client.as(OTHER_CLIENT).post(path, body, key), others);
      expect((await traces(database)).balance).toBe(effect.balance);
    });

    it('answers 402 when the wallet holds too little, writes nothing and replays that', async () => {
      const original = await client.post(path, tooDear, key);
      expect(original.status).toBe(402);
      expect(original.json()).toMatchObject({ statusCode: 402 });
      expectOriginal(original, key);
      expect(await traces(database)).toEqual({ ...NO_TRACES, records: 1 });

      await database.query(`UPDATE wallets SET balance = '20000.00'`);
      expectReplay(await client.post(path, tooDear, key), original);
      expect(await traces(database)).toEqual({ ...NO_TRACES, balance: '20000.00', records: 1 });
      expect((await client.post(path, tooDear, `${key}-2`)).status).toBe(201);
    });

    it('after a timeout, when it was completed: the retry is replayed', async () => {
      const { hostname, port } = new URL(rewards.url);
      const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
      proxy.onServerData(() => 'cut-before');
      try {
        const unheard = new RewardsClient(`http://127.0.0.1:${proxy.port}`).post(path, body, key);
        await expect(unheard).rejects.toThrow();
      } finally {
        await proxy.close();
      }
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
      const retry = await client.post(path, body, key);
      expect(retry.status).toBe(201);
      expect(retry.headers['idempotency-replayed']).toBe('true');
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
    });

    it('when it was not completed: a 5xx, nothing took effect, and the retry runs normally', async () => {
      wallets = await holdWallets(database);
      const failing = client.startPost(path, body, key);
      await wallets.awaited();
      await wallets.breakWaiting();
      const failed = await failing.response;
      expect(failed.status).toBeGreaterThanOrEqual(500);
      expect(failed.headers).not.toHaveProperty('idempotency-created-at');
      expect(await traces(database)).toEqual(NO_TRACES);
      await wallets.release();

      const retry = await client.post(path, body, key);
      expect(retry.status).toBe(201);
      expectOriginal(retry, key);
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
    });

    it('answers a duplicate of a request still running with its result, not with 409', async () => {
      wallets = await holdWallets(database);
      const original = client.startPost(path, body, key);
      await wallets.awaited();
      const server = rewards.app.getHttpServer() as Server;
      let arrived = 0;
      const count = (): void => {
        arrived++;
      };
      server.on('request', count);
      const duplicates = Array.from({ length: 3 }, () => client.post(path, body, key));
      await eventually(() => arrived === duplicates.length);
      server.off('request', count);
      await wallets.release();
      for (const duplicate of duplicates) expectReplay(await duplicate, await original.response);
      expect(await traces(database)).toEqual({ ...effect, records: 1 });
    });
  });

  it('the same key on another endpoint is another key', async () => {
    const originals: HttpResponse[] = [];
    for (const { path, body } of ENDPOINTS) {
      const original = await client.post(path, body, key);
      expect(original.status).toBe(201);
      expectOriginal(original, key);
      originals.push(original);
    }
    for (const [index, { path, body }] of ENDPOINTS.entries()) {
      expectReplay(await client.post(path, body, key), originals[index]!);
    }
    expect(await traces(database)).toEqual({ orders: 4, payouts: 2, balance: '8850.00', records: 5 });
  });

  it.each([ORDERS, PORTAL_ORDERS, WALLET, CART])('GET %s needs no key, and heeds none', async (path) => {
    for (const headers of [{}, { 'Idempotency-Key': key }]) {
      const response = await client.get(path, headers);
      expect(response.status).toBe(200);
      expect(idempotencyHeaders(response)).toEqual({});
    }
    expect(await traces(database)).toEqual(NO_TRACES);
  });

  describe('cart', () => {
    const contents = async (): Promise<unknown> => (await client.get(CART)).json();

    it('is there at first, and is replaced without a key', async () => {
      expect(await contents()).toEqual({ items: CART_ITEMS });
      const items = [ORDER];
      for (let time = 0; time < 2; time++) {
        const replaced = await client.put(CART, { items });
        expect(replaced.status).toBe(200);
        expect(idempotencyHeaders(replaced)).toEqual({});
        expect(await contents()).toEqual({ items });
      }
      expect((await client.as(OTHER_CLIENT).get(CART)).json()).toEqual({ items: CART_ITEMS });
    });

    it('is empty once it is ordered, and the retry is answered with its orders all the same', async () => {
      const original = await client.post(CHECKOUT, {}, key);
      expect(await contents()).toEqual({ items: [] });
      expectReplay(await client.post(CHECKOUT, {}, key), original);
      expect(await traces(database)).toEqual({ orders: 2, payouts: 0, balance: '9900.00', records: 1 });
    });

    it('needs no body to be ordered', async () => {
      const headers = { ...CLIENT, 'Idempotency-Key': key };
      const checkout = (): Promise<HttpResponse> =>
        sendRequest(`${rewards.url}${CHECKOUT}`, { method: 'POST', headers });
      const original = await checkout();
      expect(original.status).toBe(201);
      expectReplay(await checkout(), original);
      expect(await traces(database)).toMatchObject({ orders: 2, balance: '9900.00' });
    });

    it('is ordered as a whole or not at all: one item too dear', async () => {
      // The first could be paid.
      const items = [...CART_ITEMS, { ...ORDER, quantity: 100 }];
      await client.put(CART, { items });
      const original = await client.post(CHECKOUT, {}, key);
      expect(original.status).toBe(402);
      expect(await contents()).toEqual({ items });
      expect(await traces(database)).toEqual({ ...NO_TRACES, records: 1 });

      await database.query(`UPDATE wallets SET balance = '20000.00'`);
      expectReplay(await client.post(CHECKOUT, {}, key), original);
      expect(await contents()).toEqual({ items });
      expect((await client.post(CHECKOUT, {}, `${key}-2`)).status).toBe(201);
      expect(await contents()).toEqual({ items: [] });
      expect(await traces(database)).toMatchObject({ orders: 3, balance: '9900.00' });
    });

    it('is ordered once when two come at once under different keys', async () => {
      wallets = await holdWallets(database);
      const first = client.startPost(CHECKOUT, {}, key);
      await wallets.awaited();
      const second = client.startPost(CHECKOUT, {}, `${key}-2`);
      await wallets.blocked('DELETE FROM "cart_items"');
      await wallets.release();
      expect((await first.response).status).toBe(201);
      const late = await second.response;
      expect({ status: late.status, text: late.text }).toEqual({ status: 409, text: CART_EMPTY });
      expect(await traces(database)).toEqual({ orders: 2, payouts: 0, balance: '9900.00', records: 2 });
      // A refusal like any other: the client takes every 4xx for final.
      expectReplay(await client.post(CHECKOUT, {}, `${key}-2`), late);
    });

    it('that could not be ordered, because it broke off, is as it was', async () => {
      wallets = await holdWallets(database);
      const failing = client.startPost(CHECKOUT, {}, key);
      await wallets.awaited();
      await wallets.breakWaiting();
      expect((await failing.response).status).toBeGreaterThanOrEqual(500);
      expect(await contents()).toEqual({ items: CART_ITEMS });
    });

    it.each([
      ['the same thing twice', 400, [ORDER, { ...ORDER, quantity: 1 }]],
      ['nothing that could be ordered', 400, [null]],
      ['a product that there is not', 404, [{ ...ORDER, product_id: 124 }]],
      ['a denomination that there is not', 400, [{ ...ORDER, denomination: 26 }]],
    ])('takes no %s: %i', async (_, status, items) => {
      expect((await client.put(CART, { items })).status).toBe(status);
      expect(await contents()).toEqual({ items: CART_ITEMS });
    });
  });

  describe('other refusals', () => {
    it.each([
      ['an unknown product', 404, { ...ORDER, product_id: 124 }],
      ['a denomination the product does not come in', 400, { ...ORDER, denomination: 30 }],
    ])('answers %s with %i, and replays it', async (_, status, body) => {
      const original = await client.post(ORDERS, body, key);
      expect(original.status).toBe(status);
      expectReplay(await client.post(ORDERS, body, key), original);
      expect(await traces(database)).toEqual({ ...NO_TRACES, records: 1 });
    });

    it.each([
      [ORDERS, { ...ORDER, quantity: 0 }],
      [ORDERS, { ...ORDER, quantity: 1001 }],
      [ORDERS, { ...ORDER, quantity: 1.5 }],
      [ORDERS, { ...ORDER, quantity: '5' }],
      [ORDERS, { ...ORDER, product_id: 2_147_483_648 }],
      [ORDERS, { ...ORDER, denomination: null }],
      [ORDERS, { ...ORDER, discount: 1 }],
      [ORDERS, { product_id: 123 }],
      [ORDERS, [ORDER]],
      [ORDERS, {}],
      [PAYOUTS, { amount: 25 }],
      [PAYOUTS, { amount: '0.00' }],
      [PAYOUTS, { amount: '-1.00' }],
      [PAYOUTS, { amount: '1.001' }],
      [PAYOUTS, { amount: '1e3' }],
      [PAYOUTS, { amount: '007.00' }],
      [PAYOUTS, { amount: ' 1.00\n' }],
      [PAYOUTS, { amount: '12345678901.00' }],
      [PAYOUTS, { ...PAYOUT, currency: 'EUR' }],
      [PAYOUTS, {}],
      [CHECKOUT, { items: [{ ...ORDER, quantity: 0 }] }],
      [CHECKOUT, { items: {} }],
    ])('answers invalid %s %j with 400, and the key is still free', async (path, body) => {
      expect((await client.post(path, body, key)).status).toBe(400);
      expect(await traces(database)).toEqual(NO_TRACES);
      const corrected = await client.post(path, VALID[path], key);
      expect(corrected.status).toBe(201);
      expect(corrected.headers).not.toHaveProperty('idempotency-replayed');
    });
  });

  describe('money', () => {
    it('is exact where floating point is not', async () => {
      await database.query(`UPDATE wallets SET balance = '0.30'`);
      for (const amount of ['0.10', '0.20']) {
        expect((await client.post(PAYOUTS, { amount }, `${key}-${amount}`)).status).toBe(201);
      }
      expect((await client.get(WALLET)).text).toBe('{"balance":"0.00","currency":"USD"}');
      expect((await client.post(PAYOUTS, { amount: '0.01' }, key)).status).toBe(402);
    });

    it('is exact at the largest amounts', async () => {
      await database.query(`UPDATE wallets SET balance = '9999999999.99'`);
      const payout = await client.post(PAYOUTS, { amount: '9999999999.98' }, key);
      expect(payout.json()).toMatchObject({ amount: '9999999999.98' });
      expect((await client.get(WALLET)).text).toBe('{"balance":"0.01","currency":"USD"}');
    });

    it.each([
      ['25', '25.00', '9975.00'],
      ['0.5', '0.50', '9999.50'],
      ['1234.56', '1234.56', '8765.44'],
    ])('shows %s as %s', async (amount, shown, balance) => {
      const payout = await client.post(PAYOUTS, { amount }, key);
      expect(payout.json()).toMatchObject({ amount: shown });
      expect((await client.get(WALLET)).json()).toEqual({ balance, currency: 'USD' });
    });

    it('never goes below zero, however many spend it at once', async () => {
      await database.query(`UPDATE wallets SET balance = '70.00'`);
      const attempts = Array.from({ length: 8 }, (_, index) =>
        client.post(PAYOUTS, PAYOUT, `${key}-${index}`),
      );
      const statuses = (await Promise.all(attempts)).map((response) => response.status);
      expect(statuses.filter((status) => status === 201)).toHaveLength(2);
      expect(statuses.filter((status) => status === 402)).toHaveLength(6);
      expect(await traces(database)).toMatchObject({ payouts: 2, balance: '20.00' });
    });
  });

  describe('database', () => {
    it('keeps what is there when the application starts again', async () => {
      const original = await client.post(ORDERS, ORDER, key);
      const restarted = await startRewards(adapter, database.url);
      try {
        expectReplay(await restarted.client.post(ORDERS, ORDER, key), original);
        expect((await restarted.client.get(WALLET)).json()).toEqual({
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
