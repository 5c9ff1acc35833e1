import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, Application, type Handler } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { expectProblem } from '../helpers/leases.js';
import { RecordingLogger } from '../helpers/replay.js';
import { createRole, type TestRole } from '../helpers/roles.js';
import { createShop, shopState } from '../helpers/shop.js';

const SECRET_KEY = 'key-that-nobody-may-log';
const SECRET_BODY = 'body-that-nobody-may-log';
const ALL = 'SELECT, INSERT, UPDATE, DELETE';

/** What breaks while the application runs, how it is put right, and what the log says of it. */
interface Breakage {
  readonly breaks: string;
  readonly mends: string;
  readonly sqlState: string;
  readonly remedy: RegExp;
}

const BREAKAGES: Readonly<Record<string, Breakage>> = {
  'the table is renamed': {
    breaks: 'ALTER TABLE idempotency_records RENAME TO elsewhere',
    mends: 'ALTER TABLE elsewhere RENAME TO idempotency_records',
    sqlState: '42P01',
    remedy: /migrations|search_path|schema/i,
  },
  'the table is dropped, and made anew': {
    breaks: 'CREATE TABLE template (LIKE idempotency_records INCLUDING ALL); DROP TABLE idempotency_records',
    mends: `ALTER TABLE template RENAME TO idempotency_records; GRANT ${ALL} ON idempotency_records TO "LOGIN"`,
    sqlState: '42P01',
    remedy: /migrations|search_path|schema/i,
  },
  'the table moves to another schema': {
    breaks: 'CREATE SCHEMA elsewhere; ALTER TABLE idempotency_records SET SCHEMA elsewhere',
    mends: 'ALTER TABLE elsewhere.idempotency_records SET SCHEMA public; DROP SCHEMA elsewhere',
    sqlState: '42P01',
    remedy: /migrations|search_path|schema/i,
  },
  'a column is renamed': {
    breaks: 'ALTER TABLE idempotency_records RENAME attempt TO attempts',
    mends: 'ALTER TABLE idempotency_records RENAME attempts TO attempt',
    sqlState: '42703',
    remedy: /migrations/i,
  },
  'all rights are revoked': {
    breaks: 'REVOKE ALL ON idempotency_records FROM "LOGIN"',
    mends: `GRANT ${ALL} ON idempotency_records TO "LOGIN"`,
    sqlState: '42501',
    remedy: /GRANT/,
  },
  'INSERT is revoked': {
    breaks: 'REVOKE INSERT ON idempotency_records FROM "LOGIN"',
    mends: `GRANT ${ALL} ON idempotency_records TO "LOGIN"`,
    sqlState: '42501',
    remedy: /GRANT/,
  },
  'SELECT is revoked': {
    breaks: 'REVOKE SELECT ON idempotency_records FROM "LOGIN"',
    mends: `GRANT ${ALL} ON idempotency_records TO "LOGIN"`,
    sqlState: '42501',
    remedy: /GRANT/,
  },
  'a constraint refuses every record': {
    breaks: `ALTER TABLE idempotency_records ADD CONSTRAINT refuses CHECK (key = '') NOT VALID`,
    mends: 'ALTER TABLE idempotency_records DROP CONSTRAINT refuses',
    sqlState: '23514',
    remedy: /constraint|table|migrations/i,
  },
};

/** No client is told to come back for what does not pass by itself. */
function expectStoreRefused(answer: HttpResponse): void {
  expectProblem(answer, 500, 'IDEMPOTENCY_STORE_REFUSED');
  expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/);
  expect(answer.headers['retry-after']).toBeUndefined();
  expect((answer.json() as { detail: string }).detail).not.toMatch(/retry/i);
}

function textOf({ lines }: RecordingLogger): string {
  return lines.map((line) => line.map(String).join(' ')).join('\n');
}

function expectLogged(logger: RecordingLogger, sqlState: string, remedy: RegExp): void {
  const text = textOf(logger);
  expect(text).toContain('IDEMPOTENCY_STORE_REFUSED');
  expect(text).toContain(sqlState);
  expect(text).toMatch(remedy);
  for (const secret of [SECRET_KEY, SECRET_BODY]) expect(text).not.toContain(secret);
}

describe.each(ADAPTERS)('what does not pass by itself (%s)', (adapter) => {
  let database: TestDatabase;
  let login: TestRole;
  let app: Application;
  const logger = new RecordingLogger();

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    login = await createRole(database, 'login');
    await database.query(`GRANT ${ALL} ON idempotency_records, orders, wallets TO "${login.name}"`);
    await database.query(`GRANT USAGE ON SEQUENCE orders_id_seq TO "${login.name}"`);
    app = await Application.start({
      adapter,
      database,
      databaseUrl: login.url,
      routes: { lease: { mode: 'lease' } },
      configure: (nest) => nest.useLogger(logger),
    });
  });

  afterEach(async () => {
    logger.lines.length = 0;
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
    await login.drop();
  });

  const each = async (statements: string): Promise<void> => {
    for (const statement of statements.split('; '))
      await database.query(statement.replace('LOGIN', login.name));
  };

  const send = (route: string): Promise<HttpResponse> => app.send(route, SECRET_KEY, { item: SECRET_BODY });

  describe.each(['run', 'lease'])('on the route %s', (route) => {
    it.each(Object.keys(BREAKAGES))('is refused, and served again once it is put right: %s', async (what) => {
      const { breaks, mends, sqlState, remedy } = BREAKAGES[what]!;
      await each(breaks);
      try {
        for (const answer of [await send(route), await send(route)]) expectStoreRefused(answer);
      } finally {
        await each(mends);
      }
      expectLogged(logger, sqlState, remedy);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      expect((await send(route)).status).toBe(201);
      expect((await send(route)).headers['idempotency-replayed']).toBe('true');
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('does not run the handler, where the claim is what fails', async () => {
      await each(BREAKAGES['all rights are revoked']!.breaks);
      await send(route);
      await each(BREAKAGES['all rights are revoked']!.mends);
      expect(app.scenes).toHaveLength(0);
    });
  });

  it('undoes the handler where it comes up while that runs', async () => {
    app.acts(async ({ orders }) => {
      await orders.insert({ item: 'book', price: 1 });
      await each(BREAKAGES['INSERT is revoked']!.breaks);
      return {};
    });
    const answer = await send('run');
    await each(BREAKAGES['INSERT is revoked']!.mends);
    expectStoreRefused(answer);
    expectLogged(logger, '42501', /GRANT/);
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
  });

  it.each([
    'SET TRANSACTION READ ONLY',
    'SET LOCAL transaction_read_only = on',
    `SELECT set_config('transaction_read_only', 'on', true)`,
  ])('has a handler that may not write know why it cannot be recorded: %s', async (statement) => {
    const script: Handler = async ({ dataSource }) => {
      await dataSource.query(statement);
      return dataSource.query('SELECT 1 AS one');
    };
    app.acts(script);
    for (const answer of [await send('run'), await send('run')]) expectStoreRefused(answer);
    expectLogged(logger, '25006', /read.only|read write/i);
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    app.acts();
    expect((await send('run')).status).toBe(201);
  });
});

describe.each(ADAPTERS)('a client that the database has no letters for (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;
  const logger = new RecordingLogger();

  beforeAll(async () => {
    database = await createTestDatabase({ encoding: 'LATIN1' });
    await createShop(database);
    app = await Application.start({
      adapter,
      database,
      routes: { lease: { mode: 'lease' } },
      idempotency: { client: ({ headers }) => decodeURIComponent(String(headers['x-client'])) },
      configure: (nest) => nest.useLogger(logger),
    });
  });

  afterEach(async () => {
    logger.lines.length = 0;
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, client: string): Promise<HttpResponse> =>
    postJson(
      `${app.url}/${route}`,
      { item: SECRET_BODY },
      { 'Idempotency-Key': SECRET_KEY, 'X-Client': encodeURIComponent(client) },
    );

  describe.each(['run', 'lease'])('on the route %s', (route) => {
    it('is refused, and not told to come back', async () => {
      for (const answer of [await send(route, '→'), await send(route, '→')]) expectStoreRefused(answer);
      expectLogged(logger, '22P05', /UTF-?8|encoding/i);
      expect(textOf(logger)).not.toContain('→');
      expect(app.scenes).toHaveLength(0);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });

    it('does not keep others out, whose names it has', async () => {
      const answers = await Promise.all(['→', 'Zoë', '→', 'Chloé'].map((client) => send(route, client)));
      expect(answers.map(({ status }) => status)).toEqual([500, 201, 500, 201]);
      expect((await send(route, 'Zoë')).headers['idempotency-replayed']).toBe('true');
    });
  });
});
