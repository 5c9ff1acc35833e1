import type { Server } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { UnprocessableEntityException } from '@nestjs/common';
import { currentExecution } from 'nestjs-pg-idempotency';
import { ADAPTERS, Application, type Handler, type Scene } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, Order } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import { countWire, type WireCount, type WireCounter } from '../helpers/wire-count.js';

/** BEGIN, two statements, COMMIT: what the handler costs by itself. */
const BARE = 4;
/** What a claim costs that finds a record. */
const CLAIM_AND_ROLLBACK = 2;

const ROUTES = {
  'no-errors': { response: { statuses: [200, 201] } },
  lease: { mode: 'lease' },
} as const;

const twoStatements = async ({ orders, manager }: Pick<Scene, 'orders' | 'manager'>): Promise<Order> => {
  await manager.query('UPDATE wallets SET balance = balance - 1');
  return orders.save({ item: 'book', price: 1 });
};
const bare: Handler = ({ dataSource }) =>
  dataSource.transaction((manager) => twoStatements({ manager, orders: manager.getRepository(Order) }));
const refusing: Handler = async (tools) => {
  await twoStatements(tools);
  throw new UnprocessableEntityException();
};
const fenced: Handler = (tools) => currentExecution()?.transaction(() => twoStatements(tools));
const nothing: Handler = () => ({});

/** An application, and what it says to the database. */
interface Process {
  readonly app: Application;
  readonly proxy: TcpProxy;
  readonly wire: WireCounter;
}

describe.each(ADAPTERS.flatMap((adapter) => [true, false].map((prepared) => ({ adapter, prepared }))))(
  'the cost of a request on $adapter, prepared: $prepared',
  ({ adapter, prepared }) => {
    let database: TestDatabase;
    let one: Process;
    let other: Process;

    const start = async (): Promise<Process> => {
      const proxy = await startDatabaseProxy(database.url);
      const wire = countWire(proxy);
      const idempotency = { preparedStatements: prepared };
      const databaseUrl = proxy.url(database.url);
      const app = await Application.start({ database, adapter, routes: ROUTES, databaseUrl, idempotency });
      return { app, proxy, wire };
    };

    /** What passes while that is done, and until everything is back. */
    const costOf = async (
      { app, wire }: Process,
      work: () => Promise<{ status: number }>,
      status = 201,
    ): Promise<WireCount> => {
      await app.idle();
      wire.take();
      expect((await work()).status).toBe(status);
      await app.idle();
      return wire.take();
    };

    beforeAll(async () => {
      database = await createTestDatabase();
      await createShop(database);
      [one, other] = [await start(), await start()];
      // A session each, so that none is opened while something is counted.
      for (const { app } of [one, other]) await app.run(nothing);
    });

    afterEach(() => one.app.clear());

    afterAll(async () => {
      for (const { app, proxy } of [one, other]) {
        await app.close();
        await proxy.close();
      }
      await database.drop();
    });

    it('of the bare handler is what it is compared with', async () => {
      const cost = await costOf(one, () => one.app.run(bare, { route: 'plain' }));
      expect(cost).toEqual({ roundTrips: BARE, commits: 1 });
    });

    it.each([
      ['that may store errors', 'run'],
      ['that stores none', 'no-errors'],
    ] as const)('in transaction mode is no more than the handler’s, on a route %s', async (_what, route) => {
      const cost = await costOf(one, () => one.app.run(twoStatements, { route }));
      expect(cost).toEqual({ roundTrips: BARE, commits: 1 });
    });

    it('of an error that is recorded takes one commit as well', async () => {
      const cost = await costOf(one, () => one.app.run(refusing), 422);
      expect(cost).toEqual({ roundTrips: BARE, commits: 1 });
    });

    it('of a replay in the process that completed the request is one round trip', async () => {
      const replay = (): Promise<{ status: number }> => one.app.run(twoStatements, { key: 'again' });
      await replay();
      expect(await costOf(one, replay)).toEqual({ roundTrips: 1, commits: 1 });
    });

    it('of a replay in another process is what a claim costs, and one round trip from then on', async () => {
      const run = ({ app }: Process): Promise<{ status: number }> => app.run(twoStatements, { key: 'again' });
      await run(one);
      expect(await costOf(other, () => run(other))).toEqual({ roundTrips: CLAIM_AND_ROLLBACK, commits: 0 });
      expect(await costOf(other, () => run(other))).toEqual({ roundTrips: 1, commits: 1 });
    });

    it('of a replay does not contain its ROLLBACK, which goes behind the answer', async () => {
      await one.app.run(twoStatements, { key: 'behind' });
      const answered = deferred();
      const stop = other.proxy.onClientData(async (chunk): Promise<undefined> => {
        if (chunk.includes('ROLLBACK\0')) await answered.promise;
      });
      const cost = await costOf(other, async () => {
        const answer = await other.app.run(twoStatements, { key: 'behind' });
        expect(answer.headers['idempotency-replayed']).toBe('true');
        answered.resolve();
        return answer;
      });
      stop();
      expect(cost.roundTrips).toBe(CLAIM_AND_ROLLBACK);
    });

    it('of a duplicate that waits in the process of the first is nothing', async () => {
      const [inside, go] = [deferred(), deferred()];
      const slow: Handler = async (tools) => {
        inside.resolve();
        await go.promise;
        return twoStatements(tools);
      };
      const waiting = 5;
      const together = await costOf(one, async () => {
        const first = one.app.run(slow, { key: 'together' });
        await inside.promise;
        const others = Array.from({ length: waiting }, () => one.app.run(slow, { key: 'together' }));
        const server = one.app.server;
        await eventually(() => countOf(server).then((count) => count > waiting));
        go.resolve();
        const replays = await Promise.all(others);
        expect(replays.map(({ headers }) => headers['idempotency-replayed'])).toEqual(
          Array(waiting).fill('true'),
        );
        return first;
      });
      expect(together).toEqual({ roundTrips: BARE, commits: 1 });
    });

    it('in lease mode is a claim and a completion, each of which commits by itself', async () => {
      const key = 'leased';
      const run = (): Promise<{ status: number }> => one.app.run(nothing, { route: 'lease', key });
      expect(await costOf(one, run)).toEqual({ roundTrips: 2, commits: 2 });
      expect(await costOf(one, run)).toEqual({ roundTrips: 1, commits: 1 });
    });

    it('of a fenced transaction is what it would be without the fence', async () => {
      const cost = await costOf(one, () => one.app.run(fenced, { route: 'lease' }));
      expect(cost).toEqual({ roundTrips: 2 + BARE, commits: 3 });
    });
  },
);

function countOf(server: Server): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  );
}
