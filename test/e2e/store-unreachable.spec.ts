import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { createShop, resetShop, shopState } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const ACQUIRE_TIMEOUT = 500;
/** One wait for a connection and one for an answer are stated; the rest is room for a slow machine. */
const BOUND = 2 * ACQUIRE_TIMEOUT + 2_000;

describe.each(ADAPTERS)('a store that cannot be reached (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    app = await Application.start({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      poolSize: 2,
      routes: { transaction: {}, lease: { mode: 'lease' } },
      idempotency: { acquireTimeout: ACQUIRE_TIMEOUT },
    });
  });

  afterEach(async () => {
    proxy.refuse(false);
    proxy.resume();
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await proxy.close();
    await database.drop();
  });

  const expectUnavailable = async (route: string, key: string): Promise<void> => {
    const startedAt = performance.now();
    const answer = await app.send(route, key);
    expect({ status: answer.status, body: answer.json() }).toMatchObject({
      status: 503,
      body: { status: 503, code: 'IDEMPOTENCY_STORE_UNAVAILABLE' },
    });
    expect(answer.headers['retry-after']).toBe('1');
    expect(performance.now() - startedAt).toBeLessThan(BOUND);
  };

  /** By the same application. */
  const expectService = async (route: string, key: string): Promise<void> => {
    const answer = await eventually<HttpResponse | false>(async () => {
      const sent = await app.send(route, key);
      return sent.status === 503 || sent.status === 409 ? false : sent;
    });
    expect(answer).toMatchObject({ status: 201 });
    expect((await app.send(route, key)).headers['idempotency-replayed']).toBe('true');
    expect(app.scenes).toHaveLength(1);
    expect(await shopState(database)).toMatchObject({ orders: 1 });
  };

  it.each(['transaction', 'lease'])(
    'is answered 503 while it refuses, and serves again after (%s)',
    async (route) => {
      proxy.refuse();
      proxy.cut();
      await expectUnavailable(route, 'refused');
      await expectUnavailable(route, 'refused');
      expect(app.scenes).toHaveLength(0);
      proxy.refuse(false);
      await expectService(route, 'refused');
    },
  );

  it.each(['transaction', 'lease'])(
    'is answered 503 while it is silent, and serves again after (%s)',
    async (route) => {
      await app.send(route, 'warm');
      app.reset();
      await resetShop(database);
      proxy.pause();
      await expectUnavailable(route, 'silent');
      await expectUnavailable(route, 'silent');
      expect(app.scenes).toHaveLength(0);
      proxy.resume();
      await expectService(route, keyAfterSilence(route, 'silent'));
    },
  );

  it.each(['transaction', 'lease'])('holds nobody up who waits for the first of them (%s)', async (route) => {
    proxy.pause();
    const startedAt = performance.now();
    const { answers } = await app.sendAndArrive(20, route, 'together');
    expect(new Set((await answers).map(({ status }) => status))).toEqual(new Set([503]));
    expect(performance.now() - startedAt).toBeLessThan(2 * BOUND);
    proxy.resume();
    await expectService(route, keyAfterSilence(route, 'together'));
  });
});

/** In lease mode a claim that the server gets after all, when nobody asks for it any more, holds its key for a lease. */
function keyAfterSilence(route: string, key: string): string {
  return route === 'lease' ? `${key}-afterwards` : key;
}
