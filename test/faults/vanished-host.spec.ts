import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem } from '../helpers/leases.js';
import { createShop, shopState } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

/*
 * A host that vanishes sends nothing, not even that it is gone: its connections to the database stay open. The proxy between
 * the first instance and the database falls silent for that; the second instance has connections of its own.
 */
describe.each(ADAPTERS)('a host that vanished (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let first: Application;
  let second: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    second = await startLeaseApplication({ adapter, database });
  });

  beforeEach(async () => {
    second.milestones.length = 0;
    proxy = await startDatabaseProxy(database.url);
    const idempotency = { acquireTimeout: 500 };
    first = await startLeaseApplication({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      idempotency,
    });
  });

  afterEach(async () => {
    first.reset();
    await proxy.close();
    await first.close();
    await database.query('TRUNCATE orders, idempotency_records');
  });

  afterAll(async () => {
    await second.close();
    await database.drop();
  });

  const send = (url: string, route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${url}/${route}`, {}, { 'Idempotency-Key': key });

  /** Resolves when the first instance is at that place in its handler, and can no longer be heard. */
  const vanishAt = async (place: 'handler' | 'transaction', route: Route, key: string): Promise<void> => {
    first.block(place);
    // Answered only when the connections are closed at the end.
    send(first.url, route, key).catch(() => undefined);
    const beginning = place === 'handler' ? 'entered' : 'wrote';
    await eventually(() => first.milestones.some((milestone) => milestone.startsWith(beginning)));
    proxy.pause();
  };

  /** The first answer that is not that the request is in progress. */
  const untilFree = (route: Route, key: string): Promise<HttpResponse> =>
    eventually(
      async () => {
        const answer = await send(second.url, route, key);
        if (answer.status !== 409) return answer;
        expectProblem(answer, 409, 'IDEMPOTENCY_IN_PROGRESS');
        return false;
      },
      { timeoutMs: 20_000 },
    );

  it.each(['handler', 'transaction'] as const)(
    'frees its key within maxDuration in transaction mode (%s)',
    async (at) => {
      await vanishAt(at, 'brief-transaction', 'vanished');
      expectProblem(await send(second.url, 'brief-transaction', 'vanished'), 409, 'IDEMPOTENCY_IN_PROGRESS');
      const answer = await untilFree('brief-transaction', 'vanished');
      expect(answer.status).toBe(201);
      expect(answer.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    },
  );

  it('frees its key within its lease in lease mode', async () => {
    await vanishAt('handler', 'rerun', 'vanished');
    expectProblem(await send(second.url, 'rerun', 'vanished'), 409, 'IDEMPOTENCY_IN_PROGRESS');
    expect((await untilFree('rerun', 'vanished')).status).toBe(201);
    expect(second.milestones[0]).toMatch(/^entered 2/);
    await eventually(() => first.milestones.includes('aborted'));
  });

  it('frees its key in lease mode although a fenced transaction was open, once the server has ended that', async () => {
    await vanishAt('transaction', 'brief', 'vanished');
    expect((await untilFree('brief', 'vanished')).status).toBe(201);
    expect(await database.query('SELECT item FROM orders')).toEqual([{ item: 'attempt 2' }]);
  });
});
