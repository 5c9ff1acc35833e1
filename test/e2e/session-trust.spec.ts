import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { HttpException } from '@nestjs/common';
import { sharedClient } from 'nestjs-pg-idempotency';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectReplay } from '../helpers/leases.js';
import { createRole, type TestRole } from '../helpers/roles.js';
import { createShop, resetShop } from '../helpers/shop.js';

/** Which PostgreSQL stores in another encoding than it is sent in where somebody sets that. */
const CLIENT = 'Zoë →';
const ORDER = `INSERT INTO public.orders (item, price) VALUES ('book', 1)`;

/** What may be set for a session or for a transaction. `ROLE` stands for a role without rights on the records. */
const SETTINGS: readonly string[] = [
  `search_path = tenant`,
  `search_path = tenant, pg_catalog`,
  `search_path = ''`,
  `ROLE "ROLE"`,
  `SESSION AUTHORIZATION "ROLE"`,
  `row_security = off`,
  `standard_conforming_strings = off`,
  `client_encoding = 'LATIN1'`,
  `TimeZone = 'Asia/Kathmandu'`,
  `DateStyle = 'SQL, DMY'`,
  `DateStyle = 'German'`,
  `IntervalStyle = 'sql_standard'`,
  `extra_float_digits = -15`,
  `bytea_output = 'escape'`,
  `xmlbinary = 'hex'`,
  `array_nulls = off`,
  `transform_null_equals = on`,
  `client_min_messages = 'debug1'`,
  `client_min_messages = 'error'`,
  `lock_timeout = '1s'`,
  `idle_in_transaction_session_timeout = '1min'`,
  `default_transaction_isolation = 'serializable'`,
  `default_transaction_isolation = 'repeatable read'`,
  `default_transaction_deferrable = on`,
  `default_transaction_read_only = on`,
  `synchronous_commit = off`,
  `session_replication_role = replica`,
  `plan_cache_mode = force_generic_plan`,
  `enable_indexscan = off`,
];

/** What statements leave behind in a session besides. */
const STATEMENTS: readonly string[] = [
  'CREATE TEMP TABLE idempotency_records (LIKE public.idempotency_records INCLUDING ALL)',
  'CREATE TEMP TABLE idempotency_records (nothing int) ON COMMIT DROP',
  'DEALLOCATE ALL',
  'SELECT pg_advisory_lock(1), pg_advisory_unlock_all()',
  'SET CONSTRAINTS ALL DEFERRED',
  'DISCARD PLANS',
];

describe.each(ONE_ADAPTER)('what handlers leave in their session (%s)', (adapter) => {
  let database: TestDatabase;
  let role: TestRole;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    role = await createRole(database, 'tenant');
    await database.query(`GRANT INSERT ON orders TO "${role.name}"`);
    await database.query(`GRANT USAGE ON SEQUENCE orders_id_seq TO "${role.name}"`);
    // A schema with decoys, which are found first where somebody believes names.
    await database.query('CREATE SCHEMA tenant');
    await database.query(
      'CREATE TABLE tenant.idempotency_records (LIKE public.idempotency_records INCLUDING ALL)',
    );
    await database.query(
      `CREATE FUNCTION tenant.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '-infinity' $$`,
    );
    await database.query(
      `CREATE FUNCTION tenant.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$`,
    );
    await database.query(`GRANT USAGE ON SCHEMA tenant TO PUBLIC`);
    app = await Application.start({
      adapter,
      database,
      // Past PgBouncer, and one session: what a handler leaves is there for the next.
      databaseUrl: database.directUrl,
      poolSize: 1,
      routes: { lease: { mode: 'lease' } },
      idempotency: { client: sharedClient(CLIENT) },
    });
  });

  afterEach(async () => {
    await app.idle();
    // A new session.
    (await poolOf(app.dataSource).connect()).release(true);
    app.reset();
    await resetShop(database);
    await database.query('TRUNCATE tenant.idempotency_records');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
    await role.drop();
  });

  const records = (table = 'public.idempotency_records'): Promise<unknown[]> =>
    database.query(`SELECT client, key, status FROM ${table} ORDER BY key`);

  /** One order for a key, whatever is left in the session, and then the same for another key in that session. */
  const expectOneEach = async (leave: string, route: string): Promise<void> => {
    // In lease mode handlers have a transaction only where they begin it.
    const write = route === 'lease' ? `BEGIN READ WRITE; ${ORDER}; COMMIT` : ORDER;
    const order: Handler = async ({ dataSource }) => {
      await dataSource.query(leave);
      await dataSource.query(write);
      return { text: 'a\\b', who: 'Zoë' };
    };
    for (const [index, key] of ['first', 'second'].entries()) {
      const again: Handler = index === 0 ? order : ({ dataSource }) => dataSource.query(write);
      const first = await app.run(again, { key, route });
      expect({ status: first.status, text: first.text }).toMatchObject({ status: 201 });
      expectReplay(await app.run(() => 'must not run', { key, route }), first);
    }
    expect(await database.query('SELECT item FROM orders')).toHaveLength(2);
    expect(await records()).toEqual([
      { client: CLIENT, key: 'first', status: 'completed' },
      { client: CLIENT, key: 'second', status: 'completed' },
    ]);
    expect(await records('tenant.idempotency_records')).toEqual([]);
  };

  /** The service works in the same session. */
  const expectService = async (route: string): Promise<void> => {
    const identity = { client: CLIENT, endpoint: `POST /${route}`, key: 'first' };
    const page = await app.service.list({ client: CLIENT });
    expect(page.records.map(({ key, state }) => [key, state])).toEqual([
      ['first', 'completed'],
      ['second', 'completed'],
    ]);
    const found = await app.service.find(identity);
    expect(found?.response?.body.toString()).toBe(JSON.stringify({ text: 'a\\b', who: 'Zoë' }));
    expect(found!.expiresAt.getTime()).toBeGreaterThan(found!.createdAt.getTime());
    expect(await app.service.release(identity)).toBe('done');
    expect(await records()).toHaveLength(1);
  };

  const named = (text: string): string => text.replace('ROLE"', `${role.name}"`);

  describe.each(['run', 'lease'])('for the session (%s)', (route) => {
    it.each(SETTINGS)('SET %s', async (setting) => {
      await expectOneEach(`SET ${named(setting)}`, route);
      await expectService(route);
    });

    it.each(STATEMENTS)('%s', async (statement) => {
      await expectOneEach(statement, route);
      await expectService(route);
    });
  });

  describe('for the transaction', () => {
    it.each(SETTINGS)('SET LOCAL %s', async (setting) => {
      await expectOneEach(`SET LOCAL ${named(setting)}`, 'run');
      await expectService('run');
    });

    it.each(SETTINGS)('SET LOCAL %s, where the handler throws what is recorded', async (setting) => {
      const script: Handler = async ({ dataSource }) => {
        await dataSource.query(`SET LOCAL ${named(setting)}`);
        throw new HttpException('refused', 402);
      };
      const first = await app.run(script, { key: 'refused' });
      expect(first.status).toBe(402);
      expectReplay(await app.run(script, { key: 'refused' }), first);
      expect(await records()).toEqual([{ client: CLIENT, key: 'refused', status: 'failed' }]);
    });
  });

  it('is read again by what the handler does next, and by what is done for it at COMMIT', async () => {
    const script: Handler = async ({ dataSource }) => {
      await dataSource.query(`SET LOCAL TimeZone = 'Asia/Kathmandu'`);
      await dataSource.query(`SELECT set_config('app.tenant', 'seven', true)`);
      await dataSource.transaction((nested) => nested.query('SET LOCAL search_path = tenant'));
      return dataSource.query(
        `SELECT current_setting('TimeZone') AS zone, current_setting('app.tenant') AS tenant, current_schema() AS schema`,
      );
    };
    const answer = await app.run(script, { key: 'seen' });
    expect(answer.json()).toEqual([{ zone: 'Asia/Kathmandu', tenant: 'seven', schema: 'tenant' }]);
  });
});
