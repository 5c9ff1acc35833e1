import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { OnApplicationShutdown } from '@nestjs/common';
import { afterCommit } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { ADAPTERS, Application, saveOrder } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { startRequest, type HttpResponse } from '../helpers/http.js';
import { createShop, resetShop, shopState } from '../helpers/shop.js';

const ROUTES = {
  slow: { whenInProgress: { wait: '20s' } },
  lease: { mode: 'lease', lease: '5s', whenInProgress: { wait: '20s' } },
} as const;

describe.each(ADAPTERS)('shutdown (%s)', (adapter) => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  afterEach(() => resetShop(database));
  afterAll(() => database.drop());

  const start = (): Promise<Application> =>
    Application.start({ adapter, database, routes: ROUTES, poolSize: 2 });

  const leases = (): Promise<unknown[]> =>
    database.query('SELECT status, locked_until, response_status FROM idempotency_records');

  it.each(['slow', 'lease'])('sends away who waits, and records what runs (%s)', async (route) => {
    const app = await start();
    const handler = app.hold();
    const first = app.send(route, 'closing');
    await handler.entered;
    const { answers } = await app.sendAndArrive(10, route, 'closing');

    const closing = app.close();
    for (const answer of await answers) expectShuttingDown(answer);
    handler.end();
    const original = await first;
    expect(original.status).toBe(201);
    await closing;
    expect(app.eventsOf('executed')).toHaveLength(1);
    expect(app.scenes).toHaveLength(1);
    expect(await leases()).toEqual([{ status: 'completed', locked_until: null, response_status: 201 }]);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });

    const successor = await start();
    const replay = await successor.send(route, 'closing');
    expect(replay.text).toBe(original.text);
    expect(replay.headers['idempotency-replayed']).toBe('true');
    await successor.close();
  });

  it.each(['slow', 'lease'])('sends away who waits for a request of another instance (%s)', async (route) => {
    const [one, two] = await Promise.all([start(), start()]);
    const handler = one.hold();
    const first = one.send(route, 'elsewhere');
    await handler.entered;
    const { answers } = await two.sendAndArrive(5, route, 'elsewhere');
    const closing = two.close();
    for (const answer of await answers) expectShuttingDown(answer);
    await closing;
    handler.end();
    expect((await first).status).toBe(201);
    await one.close();
  });

  it.each(['slow', 'lease'])('refuses what comes while a request still runs (%s)', async (route) => {
    const app = await start();
    const handler = app.hold();
    const first = app.send(route, 'last');
    await handler.entered;
    const { answers } = await app.sendAndArrive(1, route, 'last');
    const closing = app.close();
    await answers;
    expectShuttingDown(await app.send(route, 'last'));
    expectShuttingDown(await app.send(route, 'another'));
    handler.end();
    expect((await first).status).toBe(201);
    await closing;
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it.each(['slow', 'lease'])(
    'leaves nothing behind of a request that fails meanwhile (%s)',
    async (route) => {
      const app = await start();
      const handler = app.hold();
      const first = app.send(route, 'failing');
      await handler.entered;
      const closing = app.close();
      handler.end(() => {
        throw new Error('the provider timed out');
      });
      expect((await first).status).toBe(500);
      await closing;
      // In lease mode the outcome is unknown, and nobody has to wait for the lease to run out.
      const rows = await database.query<{ free: boolean }>(
        'SELECT locked_until <= clock_timestamp() AND owner_token IS NULL AS free FROM idempotency_records',
      );
      expect(rows).toEqual(route === 'lease' ? [{ free: true }] : []);
    },
  );

  it.each(['slow', 'lease'])('finishes a request whose client has gone (%s)', async (route) => {
    const app = await start();
    const handler = app.hold();
    const request = startRequest(`${app.url}/${route}`, {
      method: 'POST',
      headers: { 'Idempotency-Key': 'gone', 'Content-Type': 'application/json' },
      body: '{"item":"book"}',
    });
    await handler.entered;
    request.destroy();
    await expect(request.response).rejects.toThrow();
    const dataSource = app.nest.get(DataSource);
    const closing = app.close();
    const left = deferred<boolean>();
    handler.end(async (scene) => {
      const order = await saveOrder(scene);
      left.resolve(dataSource.isInitialized);
      return order;
    });
    expect(await left.promise).toBe(true);
    await closing;
    expect(dataSource.isInitialized).toBe(false);
    expect(await leases()).toEqual([{ status: 'completed', locked_until: null, response_status: 201 }]);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it.each(['slow', 'lease'])(
    'does what waited for the commit while the DataSource is open (%s)',
    async (route) => {
      const app = await start();
      const dataSource = app.nest.get(DataSource);
      const gate = deferred();
      const handler = app.hold();
      const first = app.send(route, 'after-commit');
      await handler.entered;
      let closed = false;
      const closing = app.close().then(() => (closed = true));
      handler.end((scene) => {
        afterCommit(async () => {
          await gate.promise;
          await dataSource.query("INSERT INTO orders (item, price) VALUES ('after commit', 1)");
        });
        return saveOrder(scene);
      });
      expect((await first).status).toBe(201);
      expect(closed).toBe(false);
      gate.resolve();
      await closing;
      expect(await database.query('SELECT item FROM orders ORDER BY id')).toEqual([
        { item: 'book' },
        { item: 'after commit' },
      ]);
    },
  );

  it('leaves neither a connection nor a transaction behind', async () => {
    const app = await start();
    const handler = app.hold();
    const first = app.send('slow', 'nothing-left');
    await handler.entered;
    const closing = app.close();
    handler.end();
    await Promise.all([first, closing]);
    await eventually(async () => {
      const [row] = await database.query<{ count: number }>(
        `SELECT count(*)::int AS count FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'`,
      );
      return row!.count === 0;
    });
  });

  it('leaves the DataSource open for the shutdown hooks of the application', async () => {
    const seen: string[] = [];
    class Witness implements OnApplicationShutdown {
      constructor(private readonly dataSource: DataSource) {}
      async onApplicationShutdown(): Promise<void> {
        const [{ count }] = await this.dataSource.query<[{ count: number }]>(
          'SELECT count(*)::int AS count FROM idempotency_records',
        );
        seen.push(`records: ${count}`);
      }
    }
    const app = await Application.start({
      adapter,
      database,
      routes: ROUTES,
      providers: [
        { provide: Witness, inject: [DataSource], useFactory: (source: DataSource) => new Witness(source) },
      ],
    });
    const handler = app.hold();
    const first = app.send('slow', 'hooks');
    await handler.entered;
    const closing = app.close();
    handler.end();
    await Promise.all([first, closing]);
    expect(seen).toEqual(['records: 1']);
  });
});

function expectShuttingDown(answer: HttpResponse): void {
  expect({ status: answer.status, body: answer.json() }).toMatchObject({
    status: 503,
    body: { status: 503, code: 'IDEMPOTENCY_SHUTTING_DOWN' },
  });
  expect(answer.headers['retry-after']).toBe('1');
}
