import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { afterCommit, outside } from 'nestjs-pg-idempotency';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { lockNumber } from '../../lib/core/identity.js';
import { ADAPTERS, type Application, type Scene } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { LEASE, startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';

/** The adapters do not differ where the database decides: each level is tried on one of them at least. */
const CASES = [
  ...ADAPTERS.map((adapter) => [adapter, 'read committed'] as const),
  ['express', 'repeatable read'] as const,
  ['fastify', 'serializable'] as const,
];

describe.each(CASES)('fenced transactions (%s, %s)', (adapter, isolation) => {
  let database: TestDatabase;
  let app: Application;
  const clients: Client[] = [];

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    // On the database, and not when the application connects: behind PgBouncer only what every session has can be relied on.
    await database.query(
      `ALTER DATABASE "${database.name}" SET default_transaction_isolation = '${isolation}'`,
    );
    app = await startLeaseApplication({ adapter, database });
  });

  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()));
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (key: string, route: Route = 'refuse'): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  const items = async (): Promise<string[]> =>
    (await database.query<{ item: string }>('SELECT item FROM orders ORDER BY id')).map(({ item }) => item);

  const connected = async (): Promise<Client> => {
    const client = new Client({ connectionString: database.url });
    clients.push(client);
    await client.connect();
    return client;
  };

  const untilInside = (): Promise<unknown> => eventually(() => app.milestones.includes('wrote'));

  it(`runs at ${isolation}`, async () => {
    app.acts(({ execution }) =>
      execution.transaction((manager) => manager.query('SHOW transaction_isolation')),
    );
    expect((await send('level')).json()).toEqual([{ transaction_isolation: isolation }]);
  });

  it('does not keep the lease from being extended', async () => {
    app.block('transaction');
    const answer = send('extended');
    await untilInside();
    const begun = (await leaseRow(database, 'extended'))!.locked_until!;
    await eventually(async () => {
      const { locked_until: lockedUntil } = (await leaseRow(database, 'extended'))!;
      return lockedUntil!.getTime() > begun.getTime() + 2 * LEASE;
    });
    expect(await openTransactions(database)).toHaveLength(1);
    app.unblock('transaction');
    expect((await answer).status).toBe(201);
  });

  it('does not keep duplicates waiting', async () => {
    app.block('transaction');
    const answer = send('asked-for');
    await untilInside();
    const other = await startLeaseApplication({ adapter, database });
    const duplicate = await postJson(`${other.url}/refuse`, {}, { 'Idempotency-Key': 'asked-for' });
    expectProblem(duplicate, 409, 'IDEMPOTENCY_IN_PROGRESS');
    expect(await openTransactions(database)).toHaveLength(1);
    app.unblock('transaction');
    expect((await answer).status).toBe(201);
    await other.close();
  });

  it('sees a takeover that was under way when it began', async () => {
    // The lock number and the lock are what a takeover holds while it runs.
    const rival = await connected();
    app.block('handler');
    const answer = send('overtaken');
    await eventually(() => app.milestones.length > 0);
    const { rows } = await rival.query<{ client: string; endpoint: string; key: string }>(
      'SELECT client, endpoint, key FROM idempotency_records',
    );
    await rival.query('BEGIN');
    await rival.query('SELECT pg_advisory_xact_lock($1::bigint)', [
      lockNumber('"public"."idempotency_records"', rows[0]!),
    ]);
    app.unblock('handler');
    await eventually(async () => (await waiting(database, 'advisory')).length === 1);
    await rival.query('UPDATE idempotency_records SET owner_token = gen_random_uuid(), attempt = 2');
    await rival.query('COMMIT');
    expectProblem(await answer, 503, 'IDEMPOTENCY_LEASE_LOST');
    expect(await items()).toEqual([]);
    expect(await leaseRow(database, 'overtaken')).toMatchObject({ status: 'processing', attempt: 2 });
  });

  it('commits whatever happens to the lease once it holds the fence', async () => {
    app.block('transaction');
    const answer = send('holding', 'rerun');
    await untilInside();
    await database.query(
      `UPDATE idempotency_records SET locked_until = clock_timestamp() - interval '1 second'`,
    );
    const rival = await startLeaseApplication({ adapter, database });
    expectProblem(
      await postJson(`${rival.url}/rerun`, {}, { 'Idempotency-Key': 'holding' }),
      409,
      'IDEMPOTENCY_IN_PROGRESS',
    );
    app.unblock('transaction');
    const first = await answer;
    expect(first.status).toBe(201);
    expectReplay(await postJson(`${rival.url}/rerun`, {}, { 'Idempotency-Key': 'holding' }), first);
    expect(rival.milestones).toEqual([]);
    await rival.close();
  });

  it('is undone when its work throws, and the handler may go on', async () => {
    app.acts(async ({ execution, orders }: Scene) => {
      const failed = execution.transaction(async () => {
        await orders.save({ item: 'undone', price: 1 });
        throw new Error('no');
      });
      await expect(failed).rejects.toThrow('no');
      return execution.transaction(() => orders.save({ item: 'kept', price: 1 }));
    });
    expect((await send('undone')).status).toBe(201);
    expect(await items()).toEqual(['kept']);
  });

  it('does not exclude another one of the same owner', async () => {
    app.acts(async ({ execution, orders }: Scene) => {
      const [one, two] = [deferred(), deferred()];
      const both = (item: string, own: typeof one, other: typeof one): Promise<unknown> =>
        execution.transaction(async () => {
          await orders.insert({ item, price: 1 });
          own.resolve();
          await other.promise;
        });
      await Promise.all([both('one', one, two), both('two', two, one)]);
      return {};
    });
    expect((await send('both')).status).toBe(201);
    expect((await items()).sort()).toEqual(['one', 'two']);
  });

  it('takes in another one that is begun inside it, which undoes only its own when it fails', async () => {
    app.acts(async ({ execution, orders }: Scene) => {
      await execution.transaction(async () => {
        await orders.insert({ item: 'outer', price: 1 });
        await execution.transaction(() => orders.insert({ item: 'inner', price: 1 }));
        const failed = execution.transaction(async () => {
          await orders.insert({ item: 'undone', price: 1 });
          throw new Error('no');
        });
        await expect(failed).rejects.toThrow('no');
        // None of it is there for others before the outer one commits.
        expect(await outside(() => orders.count())).toBe(0);
      });
      return {};
    });
    expect((await send('nested')).status).toBe(201);
    expect(await items()).toEqual(['outer', 'inner']);
  });

  it('takes in what goes through the DataSource, nested transactions and work for after its COMMIT', async () => {
    const seen: unknown[] = [];
    app.acts(async ({ execution, orders }: Scene) => {
      await execution.transaction(async (manager) => {
        const dataSource = app.nest.get(DataSource);
        await manager.insert('orders', { item: 'manager', price: 1 });
        await dataSource.transaction((nested) => nested.insert('orders', { item: 'nested', price: 1 }));
        afterCommit(async () => void seen.push(await outside(() => orders.count())));
        seen.push(await outside(() => orders.count()));
      });
      await eventually(() => seen.length === 2);
      return { attempt: execution.attempt };
    });
    expect((await send('ambient')).json()).toEqual({ attempt: 1 });
    expect(seen).toEqual([0, 2]);
  });

  it('is refused once the handler has ended', async () => {
    let late: Promise<unknown> | undefined;
    const ended = deferred();
    app.acts(({ execution, orders }: Scene) => {
      late = ended.promise.then(() => execution.transaction(() => orders.save({ item: 'late', price: 1 })));
      return Promise.resolve({});
    });
    expect((await send('late')).status).toBe(201);
    ended.resolve();
    await expect(late).rejects.toThrow('IDEMPOTENCY_LEASE_LOST');
    expect(await items()).toEqual([]);
  });

  it('says that there is no manager outside of it', async () => {
    app.acts(({ execution }: Scene) => Promise.resolve(execution.manager));
    expect((await send('manager')).status).toBe(500);
    app.acts(async ({ execution }: Scene) => {
      expect(() => execution.manager).toThrow('execution.transaction(work)');
      return Promise.resolve({});
    });
    expect((await send('manager-2')).status).toBe(201);
  });

  it('records its answer although an extension is under way', async () => {
    const locker = await connected();
    app.block('end');
    const answer = send('crossing');
    await eventually(() => app.milestones.includes('left'));
    await locker.query('BEGIN');
    await locker.query('SELECT FROM idempotency_records FOR UPDATE');
    // The extension waits for the row, then the completion behind it.
    await eventually(async () => (await waiting(database, 'transactionid')).length === 1);
    app.unblock('end');
    await eventually(async () => (await waiting(database, undefined)).length === 2);
    await locker.query('COMMIT');
    const first = await answer;
    expect(first.status).toBe(201);
    expectReplay(await send('crossing'), first);
  });
});

async function openTransactions(database: TestDatabase): Promise<unknown[]> {
  return database.query(
    `SELECT pid FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle in transaction'`,
  );
}

/** Backends of this database that wait for a lock. */
async function waiting(database: TestDatabase, event: string | undefined): Promise<unknown[]> {
  return database.query(
    `SELECT pid FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock' AND ($1::text IS NULL OR wait_event = $1)`,
    [event],
  );
}
