import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { PoolClient } from 'pg';
import { asAdmin } from '../helpers/admin.js';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { isCommit } from '../helpers/commit-faults.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectProblem } from '../helpers/leases.js';
import { RecordingLogger } from '../helpers/replay.js';
import { ReportingFilter } from '../helpers/reporting-filter.js';
import { createShop } from '../helpers/shop.js';
import { failureOf } from '../helpers/tasks.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const SECRET_KEY = 'key-that-nobody-may-log';
const SECRET_BODY = 'body-that-nobody-may-log';
const SECRET_VALUE = 'value-that-nobody-may-log';
const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';

const allowConnections = (database: TestDatabase, allow: boolean): Promise<unknown> =>
  asAdmin((admin) => admin.query(`ALTER DATABASE "${database.name}" ALLOW_CONNECTIONS ${allow}`));

const POOL_SIZE = 2;
/** Connections that a test keeps from the application. */
const taken: PoolClient[] = [];

interface Outage {
  /** Makes the store unavailable for the next request, or while its handler runs. */
  readonly happens: (scene: { database: TestDatabase; proxy: TcpProxy; app: Application }) => Promise<void>;
  readonly when: 'before' | 'meanwhile';
  /** What the driver calls it. */
  readonly code: RegExp;
}

const OUTAGES: Readonly<Record<string, Outage>> = {
  'connections are reset': {
    happens: async ({ proxy }) => {
      proxy.refuse();
      proxy.cut();
    },
    when: 'before',
    code: /ECONNRESET|ECONNREFUSED|EPIPE|Connection terminated/,
  },
  'the server accepts no connections': {
    happens: async ({ app, database }) => {
      await allowConnections(database, false);
      const pool = poolOf(app.dataSource);
      const clients = await Promise.all(Array.from({ length: pool.totalCount }, () => pool.connect()));
      for (const client of clients) client.release(true);
    },
    when: 'before',
    code: /55000/,
  },
  'the server is silent': {
    happens: async ({ proxy }) => proxy.pause(),
    when: 'before',
    code: /time|silent|terminated|no connection/i,
  },
  'no connection is free': {
    happens: async ({ app }) => {
      const pool = poolOf(app.dataSource);
      taken.push(...(await Promise.all(Array.from({ length: POOL_SIZE }, () => pool.connect()))));
    },
    when: 'before',
    code: /time|connection/i,
  },
  'the session is terminated': {
    happens: async ({ database }) => {
      await database.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND state = 'idle in transaction'`,
      );
    },
    when: 'meanwhile',
    code: /57P01|ECONNRESET|Connection terminated/,
  },
};

/** An error and those that it was made of, each once. */
function chainOf(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let at = error; at instanceof Error; at = at.cause ?? (at as { driverError?: unknown }).driverError) {
    expect(chain).not.toContain(at);
    chain.push(at);
  }
  return chain;
}

const libraryCode = (error: Error): string | undefined =>
  (error as { error?: { code?: string } }).error?.code;

describe.each(ONE_ADAPTER)('what is told of a store that is unavailable (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: Application;
  let filter: ReportingFilter;
  const logger = new RecordingLogger();

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.directUrl);
    app = await Application.start({
      adapter,
      database,
      databaseUrl: proxy.url(database.directUrl),
      poolSize: POOL_SIZE,
      routes: { lease: { mode: 'lease' } },
      idempotency: { acquireTimeout: 2_000 },
      configure: (nest) => {
        nest.useLogger(logger);
        filter = ReportingFilter.in(nest);
      },
    });
  });

  afterEach(async () => {
    await allowConnections(database, true);
    proxy.refuse(false);
    proxy.resume();
    for (const client of taken.splice(0)) client.release();
    filter.caught.length = logger.lines.length = 0;
    await app.idle();
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await proxy.close();
    await database.drop();
  });

  const handling =
    ({ happens, when }: Outage): Handler =>
    async ({ dataSource }) => {
      await dataSource.query('SELECT $1::text', [SECRET_VALUE]);
      if (when === 'meanwhile') await happens({ database, proxy, app });
      return dataSource.query('SELECT $1::text AS text', [SECRET_VALUE]);
    };

  const unavailable = (): string[] =>
    logger.lines.map((line) => line.map(String).join(' ')).filter((line) => line.includes(UNAVAILABLE));

  const expectNoSecrets = (text: string): void => {
    for (const secret of [SECRET_KEY, SECRET_BODY, SECRET_VALUE]) expect(text).not.toContain(secret);
  };

  const CASES = Object.keys(OUTAGES).flatMap((what) =>
    OUTAGES[what]!.when === 'before'
      ? [['run', what] as const, ['lease', what] as const]
      : [['run', what] as const],
  );

  it.each(CASES)('is one warning with the reason of the driver (%s): %s', async (route, what) => {
    const outage = OUTAGES[what]!;
    if (outage.when === 'before') await outage.happens({ database, proxy, app });
    app.acts(handling(outage));
    expectProblem(await app.send(route, SECRET_KEY, { item: SECRET_BODY }), 503, UNAVAILABLE);
    const warnings = unavailable();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(outage.code);
    expect(warnings[0]!.split(UNAVAILABLE)).toHaveLength(2);
    expectNoSecrets(logger.lines.map((line) => line.map(String).join(' ')).join('\n'));
  });

  it.each(CASES)('is one chain of causes that ends with the driver (%s): %s', async (mode, what) => {
    const outage = OUTAGES[what]!;
    if (outage.when === 'before') await outage.happens({ database, proxy, app });
    const task = { client: 'queue', endpoint: 'orders', key: SECRET_KEY, payload: SECRET_BODY };
    const failure = await failureOf(
      app.service.run({ ...task, ...(mode === 'lease' && { mode }) }, async () => {
        await app.dataSource.query('SELECT $1::text', [SECRET_VALUE]);
        if (outage.when === 'meanwhile') await outage.happens({ database, proxy, app });
        await app.dataSource.query('SELECT $1::text AS text', [SECRET_VALUE]);
      }),
    );
    const chain = chainOf(failure);
    expect(chain.map(libraryCode).filter((code) => code !== undefined)).toEqual([UNAVAILABLE]);
    const last = chain.at(-1)! as Error & { code?: string };
    expect(`${last.code} ${last.message}`).toMatch(outage.code);
    for (const { message } of chain) expectNoSecrets(message);
  });

  it.each(CASES)(
    'is one chain of causes for the filters of the application (%s): %s',
    async (route, what) => {
      const outage = OUTAGES[what]!;
      if (outage.when === 'before') await outage.happens({ database, proxy, app });
      app.acts(handling(outage));
      expectProblem(await app.send(route, SECRET_KEY, { item: SECRET_BODY }), 503, UNAVAILABLE);
      expect(filter.caught).toHaveLength(1);
      const chain = chainOf(filter.caught[0]);
      expect(chain.map(libraryCode).filter((code) => code !== undefined)).toEqual([UNAVAILABLE]);
      const last = chain.at(-1)! as Error & { code?: string };
      expect(`${last.code} ${last.message}`).toMatch(outage.code);
      for (const { message } of chain) expectNoSecrets(message);
    },
  );

  it('is one warning of its own where the answer to COMMIT is lost', async () => {
    const stop = proxy.onClientData((chunk) => (isCommit(chunk) ? 'cut-after' : 'forward'));
    const answer = await app.send('run', SECRET_KEY, { item: SECRET_BODY });
    stop();
    expectProblem(answer, 503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
    const lines = logger.lines.map((line) => line.map(String).join(' '));
    expect(lines.filter((line) => line.includes('IDEMPOTENCY_OUTCOME_UNKNOWN'))).toHaveLength(1);
    expectNoSecrets(lines.join('\n'));
  });
});
