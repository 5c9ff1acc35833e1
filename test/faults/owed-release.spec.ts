import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { BadRequestException, type ArgumentMetadata, type PipeTransform } from '@nestjs/common';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { deferred, eventually, type Deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectReplay, leaseRow, untilLapsed } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

/** The library tries to release about each second. */
const SOON = { timeoutMs: 30_000 };

/** Refuses the first request, once the gate is open: its handler never begins. */
class RefusesOnce implements PipeTransform {
  readonly entered = deferred();
  readonly gate: Deferred<void> = deferred();
  #hasRefused = false;

  async transform(value: unknown, { type }: ArgumentMetadata): Promise<unknown> {
    if (type !== 'body' || this.#hasRefused) return value;
    this.#hasRefused = true;
    this.entered.resolve();
    await this.gate.promise;
    throw new BadRequestException('out of stock');
  }
}

const OUTAGES: [how: string, goesAway: (proxy: TcpProxy) => void][] = [
  [
    'refuses',
    (proxy) => {
      proxy.refuse();
      proxy.cut();
    },
  ],
  ['is silent', (proxy) => proxy.pause()],
];

/** A lease ends while the database is away, before its owner could say that nothing happened. */
describe.each(ADAPTERS)('a release that the database did not hear of (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let pipe: RefusesOnce;
  let app: Application;
  let other: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  beforeEach(async () => {
    proxy = await startDatabaseProxy(database.url);
    pipe = new RefusesOnce();
    app = await startLeaseApplication({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      idempotency: { acquireTimeout: 500 },
      configure: (nest) => void nest.useGlobalPipes(pipe),
    });
    other = await startLeaseApplication({ adapter, database });
  });

  afterEach(async () => {
    for (const application of [app, other]) {
      application.reset();
      await application.close();
    }
    await proxy.close();
    await database.query('TRUNCATE orders, idempotency_records');
  });

  afterAll(() => database.drop());

  const send = (to: Application, route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${to.url}/${route}`, {}, { 'Idempotency-Key': key });

  const entered = ({ milestones }: Application): string[] =>
    milestones.filter((milestone) => milestone.startsWith('entered'));

  /** The pipe refuses a request while the database is away. Resolves when its lease has ended. */
  const refuseDuring = async (
    outage: (proxy: TcpProxy) => void,
    route: Route,
    key: string,
  ): Promise<HttpResponse> => {
    const answer = send(app, route, key);
    await pipe.entered.promise;
    expect(await leaseRow(database, key)).toMatchObject({ status: 'processing' });
    outage(proxy);
    pipe.gate.resolve();
    const refused = await answer;
    await untilLapsed(database, key);
    return refused;
  };

  /** What was under way when the database went away is lost. */
  const comeBack = (): void => {
    proxy.refuse(false);
    proxy.cut();
    proxy.resume();
  };

  describe.each(OUTAGES)('since it %s', (_how, outage) => {
    it('is made up for when the database comes back after the lease', async () => {
      const key = 'owed';
      expect((await refuseDuring(outage, 'refuse', key)).status).toBe(400);
      comeBack();
      await eventually(async () => expect(await leaseRow(database, key)).toBeUndefined(), SOON);
      expect(app.milestones).toEqual([]);
      expect((await send(app, 'refuse', key)).status).toBe(201);
      expect(entered(app)).toEqual([expect.stringMatching(/^entered 1/)]);
    });

    it('leaves the attempt before as it was', async () => {
      const key = 'second';
      other.acts(() => Promise.reject(new Error('the provider timed out')));
      expect((await send(other, 'rerun', key)).status).toBe(500);
      other.acts();
      expect((await refuseDuring(outage, 'rerun', key)).status).toBe(400);
      expect(await leaseRow(database, key)).toMatchObject({ attempt: 2 });
      comeBack();
      await eventually(
        async () => expect(await leaseRow(database, key)).toMatchObject({ attempt: 1, lapsed: true }),
        SOON,
      );
      expect((await send(other, 'rerun', key)).status).toBe(201);
      expect(entered(other).at(-1)).toMatch(/^entered 2/);
    });

    it('does no harm to a takeover in between', async () => {
      const key = 'overtaken';
      expect((await refuseDuring(outage, 'rerun', key)).status).toBe(400);
      other.block('end');
      const second = send(other, 'rerun', key);
      await eventually(() => other.milestones.includes('left'));
      const { owner_token } = (await leaseRow(database, key))!;
      comeBack();
      // The release that is owed is sent, and finds the lease of somebody else.
      const releasing = new Set<number>();
      let isAnswered = false;
      proxy.onClientData((chunk, { id }): undefined => {
        if (chunk.includes(key)) releasing.add(id);
      });
      proxy.onServerData((_chunk, { id }): undefined => {
        isAnswered ||= releasing.has(id);
      });
      await eventually(() => isAnswered, SOON);
      expect(await leaseRow(database, key)).toMatchObject({ status: 'processing', attempt: 2, owner_token });
      other.unblock('end');
      const answer = await second;
      expect(answer.status).toBe(201);
      expectReplay(await send(app, 'rerun', key), answer);
      expect(await leaseRow(database, key)).toMatchObject({ status: 'completed', attempt: 2 });
    });
  });

  it('is made up for where the process claims the key again meanwhile', async () => {
    const key = 'again';
    const [, refuses] = OUTAGES[0]!;
    expect((await refuseDuring(refuses, 'rerun', key)).status).toBe(400);
    comeBack();
    // It is taken over, or has been given back: either way the handler runs once, and its answer stays.
    const answer = await eventually(async () => {
      const retry = await send(app, 'rerun', key);
      return retry.status === 201 && retry;
    });
    expect(entered(app)).toHaveLength(1);
    expectReplay(await send(app, 'rerun', key), answer);
  });
});
