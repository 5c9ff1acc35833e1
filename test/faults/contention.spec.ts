import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, type Application, type Scene } from '../helpers/application.js';
import { deferred, eventually, type Deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop, shopState, Wallet } from '../helpers/shop.js';

const CLIENTS = 6;
const REQUESTS = 5;

describe.each(ADAPTERS)('handlers that contend (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    await database.query('CREATE TABLE purses AS SELECT id, 0 AS turns FROM generate_series(1, 2) AS id');
    const routes = {
      serializable: { isolation: 'SERIALIZABLE' },
      'repeatable-read': { isolation: 'REPEATABLE READ' },
    } as const;
    app = await startLeaseApplication({ adapter, database, routes });
  });

  afterEach(async () => {
    await app.clear();
    await database.query('UPDATE purses SET turns = 0');
  });

  const turns = async (): Promise<unknown> => database.query('SELECT turns FROM purses');
  const bothAt = (count: number): unknown => [{ turns: count }, { turns: count }];

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, key: string, body: unknown = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, body, { 'Idempotency-Key': key });

  /** Reads first and writes then, which is what stricter isolation is for. */
  const takeOne = async ({ dataSource }: Scene, between: () => Promise<unknown>): Promise<unknown> => {
    const { balance } = await dataSource.manager.findOneByOrFail(Wallet, { id: 1 });
    await between();
    await dataSource.manager.update(Wallet, { id: 1 }, { balance: balance - 1 });
    return { balance: balance - 1 };
  };

  it.each(['serializable', 'repeatable-read'])(
    'give way with 40001, which frees the key (%s)',
    async (route) => {
      const [one, two] = [deferred(), deferred()];
      const read: Deferred<void>[] = [one, two];
      app.acts((props) =>
        takeOne(props, async () => {
          read.shift()?.resolve();
          await Promise.all([one.promise, two.promise]);
        }),
      );
      const answers = await Promise.all([send(route, 'a'), send(route, 'b')]);
      const loser = answers.find(({ status }) => status !== 201)!;
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
      expectProblem(loser, 503, 'IDEMPOTENCY_TRANSACTION_CONFLICT');
      expect(loser.headers['retry-after']).toBe('1');
      expect(await shopState(database)).toMatchObject({ balance: 999, records: 1 });
      const key = loser === answers[0] ? 'a' : 'b';
      expect((await send(route, key)).json()).toEqual({ balance: 998 });
      expect(await shopState(database)).toMatchObject({ balance: 998, records: 2 });
    },
  );

  it('are retried until every one has had its effect once', async () => {
    let conflicts = 0;
    app.acts((props) => takeOne(props, () => Promise.resolve()));
    const client = async (name: number): Promise<void> => {
      for (let count = 0; count < REQUESTS; count++) {
        const key = `client-${name}-${count}`;
        const answer = await eventually(async () => {
          const attempt = await send('serializable', key);
          if (attempt.status === 201) return attempt;
          expectProblem(attempt, 503, 'IDEMPOTENCY_TRANSACTION_CONFLICT');
          conflicts++;
          return false;
        });
        expectReplay(await send('serializable', key), answer);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
    expect(conflicts).toBeGreaterThan(0);
    expect(await shopState(database)).toMatchObject({
      balance: 1000 - CLIENTS * REQUESTS,
      records: CLIENTS * REQUESTS,
    });
  });

  /** Two handlers take the purses in opposite order, and meet in the middle. */
  const deadlock = (enter: (props: Scene, work: () => Promise<void>) => Promise<unknown>): void => {
    const [one, two] = [deferred(), deferred()];
    const holding = [one, two];
    app.acts((props) =>
      enter(props, async () => {
        const order = props.body['backwards'] === true ? [2, 1] : [1, 2];
        const take = async (id: number | undefined): Promise<unknown> =>
          props.dataSource.query('UPDATE purses SET turns = turns + 1 WHERE id = $1', [id]);
        await take(order[0]);
        holding.shift()?.resolve();
        await Promise.all([one.promise, two.promise]);
        await take(order[1]);
      }),
    );
  };

  const rivals = async (route: string): Promise<{ loser: HttpResponse; backwards: boolean }> => {
    const answers = await Promise.all([
      send(route, 'deadlock-false', { backwards: false }),
      send(route, 'deadlock-true', { backwards: true }),
    ]);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    const loser = answers.findIndex(({ status }) => status !== 201);
    return { loser: answers[loser]!, backwards: loser === 1 };
  };

  it('give way with 40P01, which frees the key', async () => {
    deadlock((_, work) => work());
    const { loser, backwards } = await rivals('transaction');
    expectProblem(loser, 503, 'IDEMPOTENCY_TRANSACTION_CONFLICT');
    expect(loser.headers['retry-after']).toBe('1');
    expect(await turns()).toEqual(bothAt(1));
    expect(await shopState(database)).toMatchObject({ records: 1 });
    expect((await send('transaction', `deadlock-${backwards}`, { backwards })).status).toBe(201);
    expect(await turns()).toEqual(bothAt(2));
    expect(await shopState(database)).toMatchObject({ records: 2 });
  });

  it('leave an unknown outcome in lease mode, and say so', async () => {
    deadlock(({ execution }, work) => execution.transaction(work));
    const { loser, backwards } = await rivals('rerun');
    expectProblem(loser, 503, 'IDEMPOTENCY_TRANSACTION_CONFLICT');
    expect((loser.json() as { detail: string }).detail).toContain('It is not known whether it took effect');
    expect(await leaseRow(database, `deadlock-${backwards}`)).toMatchObject({
      status: 'processing',
      lapsed: true,
    });
    expect((await send('rerun', `deadlock-${backwards}`, { backwards })).status).toBe(201);
    expect(await turns()).toEqual(bothAt(2));
    expect(await shopState(database)).toMatchObject({ records: 2 });
  });
});
