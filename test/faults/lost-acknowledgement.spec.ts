import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow, untilLapsed } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';
import { startDatabaseProxy, type ProxiedConnection, type TcpProxy } from '../helpers/tcp-proxy.js';

/** What the statements that lease mode sends by themselves are told apart by. */
const CLAIM = 'inserted AS (';
const TAKE_OVER = 'attempt = CASE WHEN expires_at';
const COMPLETE = 'AS completed';

describe.each(ADAPTERS)('statements of lease mode whose answer is lost (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  beforeEach(async () => {
    proxy = await startDatabaseProxy(database.url);
    const idempotency = { acquireTimeout: 500 };
    app = await startLeaseApplication({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      idempotency,
    });
  });

  afterEach(async () => {
    app.reset();
    await app.close();
    await proxy.close();
    await database.query('TRUNCATE orders, idempotency_records');
  });

  afterAll(() => database.drop());

  const send = (route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  const orders = async (): Promise<number> => (await database.query('SELECT FROM orders')).length;

  /** The server carries out the next such statement, and its answer never arrives: the connection breaks, or is silent. */
  const loseAnswer = (
    statement: string,
    how: 'cut-before' | 'drop',
    then: () => void = () => undefined,
  ): (() => number) => {
    let struck = 0;
    const asking = new Set<ProxiedConnection>();
    proxy.onClientData((chunk, connection) => {
      if (struck === 0 && chunk.includes(statement)) asking.add(connection);
    });
    proxy.onServerData((chunk, connection) => {
      // Whether parsed, described or answered: all of it belongs to the one statement that the connection has sent.
      if (!asking.has(connection)) return 'forward';
      struck++;
      then();
      return how;
    });
    return () => struck;
  };

  const entered = (): string[] => app.milestones.filter((milestone) => milestone.startsWith('entered'));

  describe.each(['cut-before', 'drop'] as const)('(%s)', (how) => {
    it('a claim recognises its own token when it is tried again', async () => {
      const struck = loseAnswer(CLAIM, how);
      const first = await send('refuse', 'claim');
      expect(struck()).toBeGreaterThan(0);
      expect(first.status).toBe(201);
      expect(entered()).toHaveLength(1);
      expect(entered()[0]).toMatch(/^entered 1/);
      expectReplay(await send('refuse', 'claim'), first);
      expect(await orders()).toBe(1);
    });

    it('a takeover recognises its own token when it is tried again', async () => {
      app.acts(() => Promise.reject(new Error('the provider timed out')));
      expect((await send('rerun', 'takeover')).status).toBe(500);
      app.acts();
      const struck = loseAnswer(TAKE_OVER, how);
      const second = await send('rerun', 'takeover');
      expect(struck()).toBeGreaterThan(0);
      expect(second.status).toBe(201);
      expect(entered().map((milestone) => milestone.slice(0, 9))).toEqual(['entered 1', 'entered 2']);
      expectReplay(await send('rerun', 'takeover'), second);
    });

    it('a completion recognises its own token when it is tried again', async () => {
      const struck = loseAnswer(COMPLETE, how);
      const first = await send('rerun', 'completion');
      expect(struck()).toBeGreaterThan(0);
      expect(first.status).toBe(201);
      expect(await leaseRow(database, 'completion')).toMatchObject({ status: 'completed', attempt: 1 });
      expectReplay(await send('rerun', 'completion'), first);
      expect(await orders()).toBe(1);
    });
  });

  it.each(['claim', 'takeover'])(
    'a %s that nobody heard of is taken back once the database is there again',
    async (what) => {
      if (what === 'takeover') {
        app.acts(() => Promise.reject(new Error('the provider timed out')));
        expect((await send('rerun', 'unheard')).status).toBe(500);
        app.acts();
      }
      app.milestones.length = 0;
      const struck = loseAnswer(what === 'claim' ? CLAIM : TAKE_OVER, 'cut-before', () => proxy.refuse());
      expectProblem(await send('rerun', 'unheard'), 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      expect(struck()).toBeGreaterThan(0);
      expect(await leaseRow(database, 'unheard')).toMatchObject({ attempt: what === 'claim' ? 1 : 2 });
      proxy.refuse(false);
      await eventually(async () => {
        const row = await leaseRow(database, 'unheard');
        if (what === 'claim') expect(row).toBeUndefined();
        else expect(row).toMatchObject({ attempt: 1, lapsed: true, owner_token: null });
      });
      expect(app.milestones).toEqual([]);
      expect((await send('rerun', 'unheard')).status).toBe(201);
      expect(entered()[0]).toMatch(what === 'claim' ? /^entered 1/ : /^entered 2/);
    },
  );

  it('a takeover of an expired record that nobody heard of leaves nothing behind', async () => {
    expect((await send('rerun', 'expired')).status).toBe(201);
    await database.query(`UPDATE idempotency_records SET expires_at = now() - interval '1 s'`);
    app.milestones.length = 0;
    const struck = loseAnswer(TAKE_OVER, 'cut-before', () => proxy.refuse());
    expectProblem(await send('rerun', 'expired'), 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
    expect(struck()).toBeGreaterThan(0);
    expect(await leaseRow(database, 'expired')).toMatchObject({ status: 'processing', attempt: 1 });
    proxy.refuse(false);
    await eventually(async () => expect(await leaseRow(database, 'expired')).toBeUndefined());
    expect(app.milestones).toEqual([]);
    expect((await send('refuse', 'expired')).status).toBe(201);
  });

  it('a claim that never arrived is tried again', async () => {
    const disarm = proxy.onClientData((chunk) => {
      if (!chunk.includes(CLAIM)) return 'forward';
      disarm();
      return 'cut-before';
    });
    expect((await send('refuse', 'unsent')).status).toBe(201);
    expect(entered()).toHaveLength(1);
  });

  it('a completion is tried again for as long as the lease holds', async () => {
    let cuts = 0;
    proxy.onClientData((chunk) => (chunk.includes(COMPLETE) && ++cuts <= 5 ? 'cut-before' : 'forward'));
    const first = await send('long', 'outlived');
    expect(cuts).toBe(6);
    expect(first.status).toBe(201);
    expectReplay(await send('long', 'outlived'), first);
  });

  it.each(['refuses', 'is silent'])(
    'leaves an unknown outcome when the database %s for good',
    async (how) => {
      app.block('end');
      const answer = send('refuse', 'gone');
      await eventually(() => app.milestones.includes('left'));
      if (how === 'refuses') {
        proxy.refuse();
        proxy.cut();
      } else {
        proxy.pause();
      }
      app.unblock('end');
      const first = await answer;
      expectProblem(first, 503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
      expect(first.headers['retry-after']).toBe('1');
      expect((first.json() as { detail: string }).detail).toContain('was carried out');
      await untilLapsed(database, 'gone');
      const other = await startLeaseApplication({ adapter, database });
      const retry = await postJson(`${other.url}/refuse`, {}, { 'Idempotency-Key': 'gone' });
      expectProblem(retry, 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
      expect(await orders()).toBe(1);
      await other.close();
      proxy.refuse(false);
      proxy.cut();
      proxy.resume();
    },
  );
});
