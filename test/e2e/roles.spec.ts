import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectProblem, expectReplay } from '../helpers/leases.js';
import { createRole, type TestRole } from '../helpers/roles.js';
import { createShop, shopState } from '../helpers/shop.js';

const ORDER = `INSERT INTO public.orders (item, price) VALUES ('book', 1)`;

/** How a handler becomes another role; `ROLE` stands for its name. */
const BECOME: Readonly<Record<string, string>> = {
  'SET LOCAL ROLE': `SET LOCAL ROLE "ROLE"`,
  'SET ROLE': `SET ROLE "ROLE"`,
  "set_config('role', …, true)": `SELECT set_config('role', 'ROLE', true)`,
  "set_config('role', …, false)": `SELECT set_config('role', 'ROLE', false)`,
  'a function in SQL': 'SELECT become_tenant()',
  'a function in PL/pgSQL': 'SELECT become_tenant_too()',
  'a block': `DO $$ BEGIN SET LOCAL ROLE "ROLE"; END $$`,
};

/** What an INSERT is done as and with, as a trigger sees it. */
interface Seen {
  readonly who: string;
  readonly role: string;
  readonly path: string;
  readonly tenant: string;
  readonly zone: string;
}

describe.each(ONE_ADAPTER)('handlers that take on a role (%s)', (adapter) => {
  let database: TestDatabase;
  /** As which the application logs in: no superuser, and an owner of nothing. */
  let login: TestRole;
  let tenant: TestRole;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    login = await createRole(database, 'application');
    tenant = await createRole(database, 'tenant');
    const statements = [
      `GRANT "${tenant.name}" TO "${login.name}"`,
      `GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_records TO "${login.name}"`,
      `CREATE TABLE seen (who text, role text, path text, tenant text, zone text)`,
      `GRANT INSERT ON orders, seen TO "${login.name}", "${tenant.name}"`,
      `GRANT SELECT ON orders TO "${tenant.name}"`,
      `GRANT USAGE ON SEQUENCE orders_id_seq TO "${login.name}", "${tenant.name}"`,
      `CREATE FUNCTION become_tenant() RETURNS text LANGUAGE sql AS $$ SELECT set_config('role', '${tenant.name}', true) $$`,
      `CREATE FUNCTION become_tenant_too() RETURNS void LANGUAGE plpgsql AS $$
       BEGIN EXECUTE 'SET LOCAL ROLE "${tenant.name}"'; END $$`,
      `ALTER TABLE orders ENABLE ROW LEVEL SECURITY`,
      `CREATE POLICY own ON orders TO "${tenant.name}" USING (item = current_setting('app.tenant', true))`,
      `CREATE POLICY any_of_them ON orders TO "${login.name}" USING (true)`,
      `CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         INSERT INTO public.seen
         VALUES (current_user, current_setting('role'), current_setting('search_path'),
                 current_setting('app.tenant', true), current_setting('TimeZone'));
         RETURN NULL;
       END $$`,
      `CREATE CONSTRAINT TRIGGER look AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION look()`,
    ];
    for (const statement of statements) await database.query(statement);
    app = await Application.start({
      adapter,
      database,
      databaseUrl: login.url,
      poolSize: 1,
      routes: { lease: { mode: 'lease' }, 'only-201': { response: { statuses: [201] } } },
    });
  });

  afterEach(async () => {
    await app.clear();
    await database.query('TRUNCATE seen');
    await app.dataSource.query('RESET ROLE');
    await app.dataSource.query('RESET ALL');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
    await tenant.drop();
    await login.drop();
  });

  const named = (text: string): string =>
    text.replace('ROLE"', `${tenant.name}"`).replace(`'ROLE'`, `'${tenant.name}'`);
  const seen = (): Promise<Seen[]> => database.query<Seen>('SELECT * FROM seen');

  const ordering =
    (become: string): Handler =>
    async ({ dataSource }) => {
      await dataSource.query(`SELECT set_config('app.tenant', 'book', true)`);
      await dataSource.query(`SET LOCAL search_path = public, pg_temp`);
      await dataSource.query(`SET LOCAL TimeZone = 'Asia/Kathmandu'`);
      await dataSource.query(named(become));
      await dataSource.query(ORDER);
      return dataSource.query(`SELECT item, current_user::text = session_user::text AS same FROM orders`);
    };

  describe.each(['run', 'only-201'])('on the route %s', (route) => {
    it.each(Object.keys(BECOME))('are recorded and replayed: %s', async (how) => {
      const first = await app.run(ordering(BECOME[how]!), { key: 'role', route });
      expect({ status: first.status, text: first.text }).toEqual({
        status: 201,
        text: JSON.stringify([{ item: 'book', same: false }]),
      });
      expectReplay(await app.run(() => 'must not run', { key: 'role', route }), first);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it.each(Object.keys(BECOME))('have their role and settings again at COMMIT: %s', async (how) => {
      expect((await app.run(ordering(BECOME[how]!), { key: 'commit', route })).status).toBe(201);
      const expected = { who: tenant.name, role: tenant.name, path: 'public, pg_temp', tenant: 'book' };
      expect(await seen()).toEqual([{ ...expected, zone: 'Asia/Kathmandu' }]);
    });
  });

  it.each(Object.keys(BECOME))('leave the next request its own: %s', async (how) => {
    await app.run(ordering(BECOME[how]!), { key: 'before' });
    const next: Handler = async ({ dataSource }) => {
      // What is left in the session is left, and the policy of the role with it.
      await dataSource.query(`SELECT set_config('app.tenant', 'book', true)`);
      return dataSource.query(ORDER);
    };
    const after = await app.run(next, { key: 'after' });
    expect(after.status).toBe(201);
    expectReplay(await app.run(() => 'must not run', { key: 'after' }), after);
    const page = await app.service.list();
    expect(page.records.map(({ key }) => key)).toEqual(['after', 'before']);
    expect(await app.service.release(page.records[1]!)).toBe('done');
  });

  it.each(Object.keys(BECOME))('are recorded in a fenced transaction of lease mode: %s', async (how) => {
    const script: Handler = (scene) => scene.execution.transaction(async () => ordering(BECOME[how]!)(scene));
    const first = await app.run(script, { key: 'fenced', route: 'lease' });
    expect(first.status).toBe(201);
    expectReplay(await app.run(() => 'must not run', { key: 'fenced', route: 'lease' }), first);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    expect(await seen()).toMatchObject([{ who: tenant.name, role: tenant.name, zone: 'Asia/Kathmandu' }]);
  });

  it('undo the role with a nested transaction that fails', async () => {
    const script: Handler = async ({ dataSource }) => {
      const nested = dataSource.transaction(async (manager) => {
        await manager.query(named(BECOME['SET LOCAL ROLE']!));
        await manager.query('SELECT FROM wallets');
      });
      await expect(nested).rejects.toMatchObject({ driverError: { code: '42501' } });
      await dataSource.query(ORDER);
      return {};
    };
    expect((await app.run(script, { key: 'nested' })).status).toBe(201);
    expect(await seen()).toMatchObject([{ who: login.name, role: 'none' }]);
  });

  it('are undone as ever when a constraint refuses at COMMIT', async () => {
    await database.query(`REVOKE INSERT ON seen FROM "${tenant.name}"`);
    const answer = await app.run(ordering(BECOME['SET LOCAL ROLE']!), { key: 'refused' });
    expectProblem(answer, 500, 'IDEMPOTENCY_COMMIT_REFUSED');
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    await database.query(`GRANT INSERT ON seen TO "${tenant.name}"`);
    expect((await app.run(ordering(BECOME['SET LOCAL ROLE']!), { key: 'refused' })).status).toBe(201);
  });
});

describe('a login role without rights on the table', () => {
  let database: TestDatabase;
  let login: TestRole;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    login = await createRole(database, 'reader');
  });

  afterAll(async () => {
    await database.drop();
    await login.drop();
  });

  const RIGHTS = ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] as const;
  const start = (): Promise<Application> =>
    Application.start({ adapter: 'none', database, databaseUrl: login.url });

  it.each([
    ['nothing', []],
    ['SELECT', ['SELECT']],
    ...RIGHTS.map((missing) => [`all but ${missing}`, RIGHTS.filter((right) => right !== missing)] as const),
  ])('is refused at boot, which names the GRANT: it has %s', async (_, rights) => {
    await database.query(`REVOKE ALL ON idempotency_records FROM "${login.name}"`);
    if (rights.length > 0)
      await database.query(`GRANT ${rights.join(', ')} ON idempotency_records TO "${login.name}"`);
    const refused = await start().then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refused).toMatchObject({ name: 'IdempotencyUsageError', code: 'IDEMPOTENCY_TABLE_FORBIDDEN' });
    const { message } = refused as Error;
    expect(message).toMatch(/GRANT .*SELECT.*INSERT.*UPDATE.*DELETE.* ON /s);
    expect(message).toContain('idempotency_records');
    expect(message).toContain(login.name);
  });

  it('may start with what the GRANT says, in whatever way it has it', async () => {
    await database.query(`REVOKE ALL ON idempotency_records FROM "${login.name}"`);
    const group = await createRole(database, 'group');
    await database.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_records TO "${group.name}"`);
    await database.query(`GRANT "${group.name}" TO "${login.name}"`);
    const app = await start();
    expect(await app.service.list()).toMatchObject({ records: [] });
    await app.close();
    await database.query(`DROP OWNED BY "${group.name}"`);
    await group.drop();
  });
});
