import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createRole, type TestRole } from '../helpers/roles.js';
import { createShop } from '../helpers/shop.js';

/** The longest that handlers may take, of which the last are to be cut off. */
const ROUTES = {
  transaction: { maxDuration: '30s' },
  brief: { maxDuration: '1s' },
  lease: { mode: 'lease', maxDuration: '30s' },
} as const;

/** What an application has set for itself, and what may hold inside of a handler of at most 30 seconds. */
const OWN: readonly (readonly [own: string, inside: string])[] = [
  ['0', '30s'],
  ['20s', '20s'],
  ['29999ms', '29999ms'],
  ['30s', '30s'],
  ['45s', '30s'],
  ['1h', '30s'],
];

const TIMEOUTS = ['statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'];

const valuesOf = `SELECT name, setting::int AS milliseconds FROM pg_settings WHERE name = ANY ($1) ORDER BY name`;

interface Value {
  readonly name: string;
  readonly milliseconds: number;
}

const UNITS = { ms: 1, s: 1_000, h: 3_600_000 } as const;

function millisecondsOf(text: string): number {
  const [, amount, unit] = /^(\d+)(\w*)$/.exec(text)!;
  return Number(amount) * (unit ? UNITS[unit as keyof typeof UNITS] : 1);
}

describe.each(ONE_ADAPTER)('timeouts that an application has set for itself (%s)', (adapter) => {
  let database: TestDatabase;
  let login: TestRole;
  /** Of {@link TIMEOUTS}, those that the server knows. */
  let known: string[];

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    login = await createRole(database, 'login');
    await database.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO "${login.name}"`);
    await database.query(`GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "${login.name}"`);
    known = (await database.query<Value>(valuesOf, [TIMEOUTS])).map(({ name }) => name);
  });

  let app: Application | undefined;

  afterEach(async () => {
    await app?.clear();
    await app?.close();
    app = undefined;
    await database.query(`ALTER ROLE "${login.name}" RESET ALL`);
  });

  afterAll(async () => {
    await database.drop();
    await login.drop();
  });

  const start = async (): Promise<Application> => {
    app = await Application.start({ adapter, database, databaseUrl: login.url, poolSize: 2, routes: ROUTES });
    return app;
  };

  const startWith = async (own: string): Promise<Application> => {
    for (const name of known) await database.query(`ALTER ROLE "${login.name}" SET ${name} = '${own}'`);
    return start();
  };

  const look: Handler = ({ dataSource }) => dataSource.query(valuesOf, [known]);

  const all = (value: string): Value[] =>
    known
      .map((name) => ({ name, milliseconds: millisecondsOf(value) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));

  /** From PostgreSQL 17 on one bounds the whole transaction, and the others are left alone. */
  const bounded = (own: string, inside: string): Value[] => {
    const isOne = known.includes('transaction_timeout');
    return all(own).map((value) =>
      isOne && value.name !== 'transaction_timeout'
        ? value
        : { ...value, milliseconds: millisecondsOf(inside) },
    );
  };

  describe.each(OWN)('of %s', (own, inside) => {
    it(`are ${inside} inside of a handler of at most 30s, and its own again outside`, async () => {
      const started = await startWith(own);
      expect((await started.run(look, { route: 'transaction' })).json()).toEqual(bounded(own, inside));
      const fenced: Handler = ({ execution }) =>
        execution.transaction((manager) => manager.query<unknown>(valuesOf, [known]));
      expect((await started.run(fenced, { route: 'lease' })).json()).toEqual(bounded(own, inside));
      expect((await started.run(look, { route: 'lease' })).json()).toEqual(all(own));
      expect(await started.dataSource.query(valuesOf, [known])).toEqual(all(own));
    });
  });

  it('may be longer or shorter where the handler says so', async () => {
    const started = await startWith('20s');
    const script: Handler = async ({ dataSource }) => {
      await dataSource.query(`SET LOCAL statement_timeout = '10s'`);
      await dataSource.transaction((nested) => nested.query(`SET LOCAL statement_timeout = '5s'`));
      return dataSource.query('SHOW statement_timeout');
    };
    expect((await started.run(script, { route: 'transaction' })).json()).toEqual([
      { statement_timeout: '5s' },
    ]);
    expect(await started.dataSource.query(valuesOf, [known])).toEqual(all('20s'));
  });

  it.each(['transaction', 'lease'])('cancel a statement that takes longer (%s)', async (route) => {
    await database.query(`ALTER ROLE "${login.name}" SET statement_timeout = '2s'`);
    const started = await start();
    const script: Handler = async ({ execution }) => {
      const sleeping = execution.transaction((manager) => manager.query('SELECT pg_sleep(1000)'));
      const failed: unknown = await sleeping.catch((error: unknown) => error);
      return { code: (failed as { driverError?: { code?: string } }).driverError?.code };
    };
    const answer = await started.run(script, { route });
    expect({ status: answer.status, body: answer.json() }).toEqual({ status: 201, body: { code: '57014' } });
  });

  it('are not blamed on maxDuration', async () => {
    await database.query(`ALTER ROLE "${login.name}" SET statement_timeout = '2s'`);
    const started = await start();
    const answer = await started.run(({ dataSource }) => dataSource.query('SELECT pg_sleep(1000)'), {
      route: 'transaction',
    });
    expect(answer.status).toBe(500);
    expect(answer.text).not.toContain('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    expect(await started.state()).toMatchObject({ records: 0 });
  });

  it.each(['0', '1h'])('of %s leave it to maxDuration to end a handler', async (own) => {
    const started = await startWith(own);
    const answer = await started.run(({ dataSource }) => dataSource.query('SELECT pg_sleep(1000)'), {
      route: 'brief',
    });
    expect({ status: answer.status, body: answer.json() }).toMatchObject({ status: 503 });
    expect(await started.state()).toMatchObject({ records: 0 });
  });
});
