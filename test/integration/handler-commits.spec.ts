import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import pg, { type ClientBase } from 'pg';
import { withClient as connected } from '../helpers/admin.js';
import { ADAPTERS, Application, type Handler, type Scene } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { expectProblem, expectReplay } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';

const WRITE = `INSERT INTO orders (item, price) VALUES ('effect', 1)`;

/** Texts that end a transaction, wherever in them they do. */
const ENDINGS: Readonly<Record<string, string>> = {
  'COMMIT behind a write': `${WRITE}; COMMIT`,
  'commit work, on a line of its own': `${WRITE};\ncommit work;\n`,
  'COMMIT behind an empty statement': `${WRITE};; COMMIT`,
  'COMMIT and a BEGIN behind it': `${WRITE}; COMMIT; BEGIN`,
  'COMMIT AND CHAIN': `${WRITE}; COMMIT AND CHAIN`,
  'ROLLBACK AND CHAIN': `${WRITE}; ROLLBACK AND CHAIN`,
  'COMMIT AND NO CHAIN': `${WRITE}; COMMIT AND NO CHAIN`,
  ROLLBACK: `ROLLBACK; ${WRITE}`,
  'ROLLBACK WORK': `ROLLBACK WORK; ${WRITE}`,
  ABORT: `ABORT; ${WRITE}`,
  'END behind an empty comment': `${WRITE}; /* */ END`,
  'END TRANSACTION': `${WRITE}; END TRANSACTION`,
  'PREPARE TRANSACTION': `${WRITE}; PREPARE TRANSACTION 'prepared'`,
  'COMMIT behind comments': `${WRITE}; /* a */ -- b\n /* c */ COMMIT`,
  'COMMIT behind a comment in a comment': `${WRITE}; /* a /* b */ c */ COMMIT`,
  'COMMIT behind a quote in a comment': `${WRITE}; /* ' */ COMMIT /* ' */`,
  'COMMIT behind a comment that a carriage return ends': `${WRITE}; -- a\rCOMMIT`,
  'COMMIT behind a form feed': `${WRITE};\fCOMMIT`,
  'COMMIT with a comment before its semicolon': `${WRITE}; COMMIT /* now */;`,
  'COMMIT behind a string that ends with a backslash': `SELECT '\\'; ${WRITE}; COMMIT; --'`,
  'COMMIT behind an escape string': `SELECT E'\\''; ${WRITE}; COMMIT`,
  'COMMIT behind a dollar quoted string': `SELECT $a$ ; $$ $a$; ${WRITE}; COMMIT`,
  'COMMIT behind an identifier with a semicolon': `SELECT 1 AS ";"; ${WRITE}; COMMIT`,
  'COMMIT behind an identifier with dollars': `SELECT 1 AS a$b$; ${WRITE}; COMMIT; SELECT 1 AS a$b$`,
  'COMMIT behind a function with a body of statements': `CREATE FUNCTION pg_temp.one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; ${WRITE}; COMMIT`,
  'COMMIT between savepoints': `SAVEPOINT a; ${WRITE}; RELEASE a; COMMIT; BEGIN; SAVEPOINT a`,
};

/** Texts that only look so, or that go back to a savepoint. */
const HARMLESS: Readonly<Record<string, string>> = {
  'a string': `SELECT '; COMMIT; ' AS text`,
  'a string with a quote': `SELECT 'it''s; COMMIT' AS text`,
  'a string that ends with a backslash': `SELECT '\\' AS text, '; COMMIT; ' AS more`,
  'an escape string': `SELECT E'\\'; COMMIT; ' AS text`,
  'a string of bits and one of code points': `SELECT B'01' AS bits, U&'\\0061; COMMIT' AS text`,
  'a dollar quoted string': `SELECT $$; COMMIT; $$ AS text`,
  'a dollar quoted string with a tag': `SELECT $a$; $$; COMMIT; $b$ ' $a$ AS text`,
  'an identifier': `SELECT 1 AS "; COMMIT; "`,
  'an identifier with a quote': `SELECT 1 AS "a""; COMMIT; "`,
  'a comment': `SELECT 1 /* ; COMMIT; */ AS one`,
  'a comment in a comment': `SELECT 1 /* /* */ ; COMMIT; */ AS one`,
  'a comment at the end of a line': `SELECT 1 AS one -- ; COMMIT;\n`,
  'names that are keywords': `SELECT 1 AS commit, 2 AS rollback, 3 AS abort, CASE WHEN true THEN 4 END AS four`,
  'a block': `DO $$ BEGIN PERFORM 1; END $$`,
  'a function with a body of statements': `CREATE FUNCTION pg_temp.two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END`,
  'a prepared statement of that name': `PREPARE commit AS SELECT 1; DEALLOCATE commit`,
  'ROLLBACK TO SAVEPOINT': `SAVEPOINT a; ${WRITE}; ROLLBACK TO SAVEPOINT a`,
  'ROLLBACK TO': `SAVEPOINT a; ${WRITE}; ROLLBACK TO a; RELEASE a`,
  'ROLLBACK WORK TO SAVEPOINT': `SAVEPOINT a; ${WRITE}; rollback work to savepoint a`,
  'ROLLBACK TRANSACTION TO, with a comment': `SAVEPOINT a; ${WRITE}; ROLLBACK /* b */ TRANSACTION -- c\n TO a`,
};

type Way = (scene: Scene, text: string) => Promise<unknown>;

const withClient = async (scene: Scene, work: (client: ClientBase) => Promise<unknown>): Promise<unknown> => {
  const runner = scene.dataSource.createQueryRunner();
  try {
    return await work((await runner.connect()) as ClientBase);
  } finally {
    await runner.release();
  }
};

const submitted = (client: ClientBase, query: (text: string) => pg.Query, text: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const sent = client.query(query(text));
    sent.on('end', resolve);
    sent.on('error', reject);
  });

/** The types of node-postgres do not know the text that is all a query needs. */
const queryOf = (text: string): pg.Query => new pg.Query(text);

/** A query whose text only the driver gets to see, as other libraries' own queries are. */
function hiddenQueryOf(text: string): pg.Query {
  const query = queryOf(text);
  const submit = (connection: unknown): unknown =>
    (query as unknown as { submit(connection: unknown): unknown }).submit(connection);
  return Object.create(query, { text: { value: undefined }, submit: { value: submit } }) as pg.Query;
}

const WAYS: Readonly<Record<string, Way>> = {
  'the DataSource': ({ dataSource }, text) => dataSource.query(text),
  'a manager': ({ manager }, text) => manager.query(text),
  'a nested transaction': ({ dataSource }, text) => dataSource.transaction((nested) => nested.query(text)),
  "a runner's connection": (scene, text) => withClient(scene, (client) => client.query(text)),
  'a configuration object': (scene, text) => withClient(scene, (client) => client.query({ text })),
  'a callback': (scene, text) =>
    withClient(
      scene,
      (client) =>
        new Promise((resolve, reject) => {
          client.query(text, (error: Error | null, result) => (error ? reject(error) : resolve(result)));
        }),
    ),
  'a query object': (scene, text) => withClient(scene, (client) => submitted(client, queryOf, text)),
};

describe('what the tests below send', () => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  afterAll(() => database.drop());

  /** Whether the server is in another transaction behind a text, or in none. */
  const endsTransaction = (text: string): Promise<boolean> =>
    connected(database.directUrl, async (client) => {
      const transaction = async (): Promise<unknown> =>
        (await client.query<{ id: string }>('SELECT pg_current_xact_id()::text AS id')).rows[0]!.id;
      await client.query('BEGIN');
      const before = await transaction();
      // A server that keeps none refuses to prepare a transaction, and has ended it.
      await client.query(text).catch(async (error: unknown) => {
        if ((error as pg.DatabaseError).code !== '55000') throw error;
        await client.query('ROLLBACK');
      });
      return (await transaction()) !== before;
    });

  it.each(Object.keys(ENDINGS))('ends a transaction: %s', async (name) => {
    expect(await endsTransaction(ENDINGS[name]!)).toBe(true);
  });

  it.each(Object.keys(HARMLESS))('ends none: %s', async (name) => {
    expect(await endsTransaction(HARMLESS[name]!)).toBe(false);
  });
});

describe.each(ADAPTERS)('a handler that ends its transaction by itself (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({ adapter, routes: { lease: { mode: 'lease' } } });
  });

  afterEach(() => app.clear());
  afterAll(() => app.close());

  const good: Handler = ({ dataSource }) => dataSource.query(WRITE).then(() => ({ good: true }));

  const expectNotYours = (answer: HttpResponse): void => {
    expectProblem(answer, 500, 'IDEMPOTENCY_TRANSACTION_NOT_YOURS');
    expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/);
    expect(answer.headers['retry-after']).toBeUndefined();
  };

  /** Twice the same refusal with no effect, and a key that is free for a handler that does not. */
  const expectRefused = async (script: Handler, key: string, route = 'run'): Promise<void> => {
    const first = await app.run(script, { key, route });
    const retry = await app.run(script, { key, route });
    for (const answer of [first, retry]) expectNotYours(answer);
    expect(retry.text).toBe(first.text);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    expect((await app.run(good, { key, route })).json()).toEqual({ good: true });
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  };

  it.each(Object.keys(ENDINGS))('is refused: %s', async (name) => {
    await expectRefused(({ dataSource }) => dataSource.query(ENDINGS[name]!), 'ending');
  });

  it.each(Object.keys(WAYS))('is refused through %s', async (way) => {
    await expectRefused((scene) => WAYS[way]!(scene, `${WRITE}; COMMIT`), 'way');
  });

  it.each(Object.keys(HARMLESS))('is not what has it in %s', async (name) => {
    const text = HARMLESS[name]!;
    const script: Handler = async ({ dataSource }) => ({ rows: await dataSource.query<unknown>(text) });
    const first = await app.run(script, { key: 'harmless' });
    expect({ status: first.status, text: first.text }).toMatchObject({ status: 201 });
    expectReplay(await app.run(script, { key: 'harmless' }), first);
    expect(await app.state()).toMatchObject({ orders: 0, records: 1 });
  });

  it.each(Object.keys(WAYS))('is not what has it in a string, through %s', async (way) => {
    const script: Handler = async (scene) => {
      await WAYS[way]!(scene, `${WRITE}; SELECT $$; COMMIT; $$, '; COMMIT' /* ; COMMIT */ -- ; COMMIT`);
      return {};
    };
    expect((await app.run(script, { key: 'string' })).status).toBe(201);
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  });

  it('is refused in a fenced transaction of lease mode, which writes nothing', async () => {
    const script: Handler = ({ execution }) =>
      execution.transaction((manager) => manager.query(`${WRITE}; COMMIT`));
    expectNotYours(await app.run(script, { key: 'fenced', route: 'lease' }));
    expect(await app.state()).toMatchObject({ orders: 0 });
  });

  it('commits its writes and its record together or neither, where it swallows the refusal', async () => {
    const script: Handler = async ({ dataSource }) => {
      await dataSource.query(WRITE);
      await dataSource.query(`${WRITE}; COMMIT`).catch(() => undefined);
      return {};
    };
    await app.run(script, { key: 'swallowed' });
    const { orders, records } = await app.state();
    expect([
      [0, 0],
      [1, 1],
    ]).toContainEqual([orders, records]);
  });

  describe('over a record that has expired', () => {
    const recordThatExpired = async (key: string): Promise<void> => {
      expect((await app.run(good, { key })).status).toBe(201);
      await app.database.query(`UPDATE idempotency_records SET expires_at = now() - interval '1 hour'`);
      await app.database.query('TRUNCATE orders');
    };

    it.each(['COMMIT behind a write', 'ROLLBACK', 'COMMIT AND CHAIN'])('leaves the key: %s', async (name) => {
      await recordThatExpired('expired');
      expectNotYours(await app.run(({ dataSource }) => dataSource.query(ENDINGS[name]!), { key: 'expired' }));
      expect(await app.state()).toMatchObject({ orders: 0 });
      expect((await app.run(good, { key: 'expired' })).json()).toEqual({ good: true });
    });

    it('leaves the key where nobody could see it coming', async () => {
      await recordThatExpired('hidden');
      const script: Handler = async (scene) => {
        await withClient(scene, (client) => submitted(client, hiddenQueryOf, `${WRITE}; COMMIT`));
        return {};
      };
      expectNotYours(await app.run(script, { key: 'hidden' }));
      const answer = await app.run(good, { key: 'hidden' });
      expect({ status: answer.status, body: answer.json() }).toEqual({ status: 201, body: { good: true } });
    });
  });

  it.each([
    ['COMMIT', `${WRITE}; COMMIT`],
    ['COMMIT AND CHAIN', `${WRITE}; COMMIT AND CHAIN`],
    ['COMMIT, and another transaction', `${WRITE}; COMMIT; BEGIN`],
    ['ROLLBACK', 'ROLLBACK'],
    ['PREPARE of a statement that commits', `PREPARE ending AS SELECT 1; ${WRITE}; COMMIT`],
  ])('promises nothing where nobody could see it coming: %s', async (_, text) => {
    const script: Handler = async (scene) => {
      await withClient(scene, (client) => submitted(client, hiddenQueryOf, text));
      return {};
    };
    const answer = await app.run(script, { key: 'hidden' });
    expectNotYours(answer);
    const { orders, records } = await app.state();
    expect(records).toBe(0);
    const { detail } = answer.json() as { detail: string };
    if (orders > 0) expect(detail).not.toMatch(/nothing took effect|rolled back/i);
    expect((await app.run(good, { key: 'hidden' })).status).toBe(201);
  });
});
