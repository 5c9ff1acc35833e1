import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client, types, type ClientConfig, type Connection, type Pool } from 'pg';
import { DataSource } from 'typeorm';
import { canSendAtOnce, sendAtOnce, type Statement } from '../../lib/store/batch.js';
import { PooledConnection } from '../../lib/store/connection.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { startDatabaseProxy } from '../helpers/tcp-proxy.js';

/** Statements that note something, in a transaction of their own unless others are said. */
const noting = (...texts: string[]): Statement[] =>
  texts.map((text) => ({ text: 'INSERT INTO notes VALUES ($1)', values: [text] }));
/** The numbers of PostgreSQL's types bigint, and timestamp with time zone. */
const INT8: number = types.builtins.INT8;
const TIMESTAMPTZ: number = types.builtins.TIMESTAMPTZ;
const standardParser = types.getTypeParser as (oid: number) => unknown;

const BEGIN: Statement = { text: 'BEGIN' };
const COMMIT: Statement = { text: 'COMMIT' };
const DIVISION: Statement = { text: 'SELECT 1/0' };

const IN_USE = {
  values: [],
  text: "SELECT name FROM pg_prepared_statements WHERE name LIKE 'batch%' ORDER BY name",
};

describe('statements that are sent at once', () => {
  let database: TestDatabase;
  const clients: Client[] = [];

  const connect = async (config: ClientConfig = {}): Promise<Client> => {
    const client = new Client({ connectionString: database.directUrl, ...config });
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };

  const notes = async (): Promise<string[]> =>
    (await database.query<{ text: string }>('SELECT text FROM notes ORDER BY text')).map(({ text }) => text);

  beforeAll(async () => {
    database = await createEmptyDatabase();
    await database.query(
      'CREATE TABLE notes (text text, CONSTRAINT once UNIQUE (text) DEFERRABLE INITIALLY DEFERRED)',
    );
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) await client.end().catch(() => undefined);
    await database.query('TRUNCATE notes');
  });

  afterAll(() => database.drop());

  it('are answered one by one, as if each had been sent by itself', async () => {
    const client = await connect();
    const values = [Buffer.from('x'), 7, null, 'ä', new Date('2026-01-02T03:04:05.678Z')];
    const text = `SELECT $1::bytea AS bytes, $2::int AS number, $3::text AS nothing, $4::text AS text, $5::timestamptz AS time,
                         '{"a":1}'::json AS json, ARRAY['a', 'b'] AS list, true AS fact`;
    const statements = [
      BEGIN,
      { text, values },
      ...noting('a'),
      { text: 'UPDATE notes SET text = upper(text)' },
      COMMIT,
    ];
    const { results, sent, error } = await sendAtOnce(client, statements);
    expect([sent, error]).toEqual([5, undefined]);
    expect(results.map(({ command }) => command)).toEqual(['BEGIN', 'SELECT', 'INSERT', 'UPDATE', 'COMMIT']);
    expect(results[1]!.rows).toEqual((await client.query(text, values)).rows);
    expect(await notes()).toEqual(['A']);
  });

  it('are parsed by the types of their client', async () => {
    const getTypeParser = ((oid: number) =>
      oid === INT8 ? (text: string) => BigInt(text) : standardParser(oid)) as never;
    const client = await connect({ types: { getTypeParser } });
    const { results } = await sendAtOnce(client, [{ text: 'SELECT 9007199254740993::bigint AS big' }]);
    expect(results[0]!.rows).toEqual([{ big: 9007199254740993n }]);
  });

  it('take back the times that these have read', async () => {
    const read = (text: string): object => ({ toISOString: () => new Date(text).toISOString() });
    const getTypeParser = ((oid: number) => (oid === TIMESTAMPTZ ? read : standardParser(oid))) as never;
    const client = await connect({ types: { getTypeParser } });
    const text = '2026-01-02 03:04:05.678+00';
    const { results } = await sendAtOnce(client, [{ text: `SELECT '${text}'::timestamptz AS time` }]);
    const [row] = results[0]!.rows as { time: Date }[];
    const same = { text: `SELECT $1 = '${text}'::timestamptz AS same`, values: [row!.time] };
    expect((await sendAtOnce(client, [same])).results[0]?.rows).toEqual([{ same: true }]);
  });

  it('are one write, and wake the server once', async () => {
    const client = await connect();
    const { stream } = (client as unknown as { connection: Connection }).connection;
    const writes: unknown[] = [];
    const internals = stream as unknown as Record<'_write' | '_writev', (...args: unknown[]) => unknown>;
    for (const method of ['_write', '_writev'] as const) {
      const write = internals[method].bind(stream);
      internals[method] = (...args) => {
        writes.push(args[0]);
        return write(...args);
      };
    }
    let ready = 0;
    (client as unknown as { connection: Connection }).connection.on('readyForQuery', () => ready++);
    await sendAtOnce(client, [BEGIN, ...noting('a', 'b'), COMMIT]);
    await eventually(() => ready > 0);
    expect([writes.length, ready]).toEqual([1, 1]);
    expect(await notes()).toEqual(['a', 'b']);
  });

  it.each<[string, Statement[], number, string]>([
    ['the first', [DIVISION, ...noting('a')], 0, '22012'],
    ['one in the middle', [BEGIN, ...noting('a'), DIVISION, ...noting('b'), COMMIT], 2, '22012'],
    ['one that cannot be parsed', [BEGIN, ...noting('a'), { text: 'SELEC' }, COMMIT], 2, '42601'],
    [
      'one whose parameter is refused',
      [BEGIN, { text: 'SELECT $1::int', values: ['x'] }, COMMIT],
      1,
      '22P02',
    ],
    ['the last', [BEGIN, ...noting('a'), ...noting('a'), COMMIT], 3, '23505'],
  ])(
    'end with %s when it fails, and none behind it is executed',
    async (_which, statements, answered, code) => {
      const client = await connect();
      const { results, sent, error } = await sendAtOnce(client, statements);
      expect([results.length, sent]).toEqual([answered, statements.length]);
      expect(error).toMatchObject({ code, severity: 'ERROR' });
      await client.query('ROLLBACK');
      expect(await notes()).toEqual([]);
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    },
  );

  it('end with one that cannot be sent, so that no COMMIT goes behind it', async () => {
    const client = await connect();
    const insert = { text: 'INSERT INTO notes VALUES ($1)', values: [Symbol('b') as never] };
    const { results, sent, error } = await sendAtOnce(client, [BEGIN, ...noting('a'), insert, COMMIT]);
    expect([results.length, sent]).toEqual([2, 3]);
    expect(error).toEqual(new TypeError('A parameter of type symbol cannot be sent'));
    await client.query('ROLLBACK');
    expect(await notes()).toEqual([]);
  });

  it('end with one whose answer cannot be understood, and do not say that what followed failed', async () => {
    const getTypeParser = ((oid: number) =>
      oid === INT8
        ? () => {
            throw new Error('no such number');
          }
        : standardParser(oid)) as never;
    const client = await connect({ types: { getTypeParser } });
    const { results, sent, error } = await sendAtOnce(client, [
      BEGIN,
      { text: 'SELECT 1::bigint' },
      ...noting('a'),
      COMMIT,
    ]);
    expect([results.length, sent, (error as Error).message]).toEqual([1, 4, 'no such number']);
    expect(await notes()).toEqual(['a']);
  });

  it('wait for what was asked before, and what is asked meanwhile waits for them', async () => {
    const client = await connect();
    const before = client.query('SELECT 1 AS one');
    const batch = sendAtOnce(client, [BEGIN, ...noting('a'), COMMIT]);
    const after = client.query('SELECT count(*)::int AS count FROM notes');
    expect((await before).rows).toEqual([{ one: 1 }]);
    expect((await batch).results).toHaveLength(3);
    expect((await after).rows).toEqual([{ count: 1 }]);
  });

  describe('by name', () => {
    const ONE: Statement = { text: 'SELECT 1 AS one' };
    const TWO: Statement = { text: 'SELECT 2 AS two' };
    const LATE: Statement = { text: 'SELECT late FROM late' };
    const NOTE = noting('a')[0]!;
    const NAMES = new Map([
      [ONE.text, 'batch_one'],
      [TWO.text, 'batch_two'],
      [LATE.text, 'batch_late'],
      [NOTE.text, 'batch_note'],
    ]);

    it('are prepared and described once in a session', async () => {
      const client = await connect();
      const { connection } = client as unknown as { connection: Connection };
      const heard: string[] = [];
      for (const message of ['parseComplete', 'rowDescription', 'noData']) {
        connection.on(message, () => heard.push(message));
      }
      for (const note of ['a', 'b', 'c']) {
        const statements = [BEGIN, ONE, ...noting(note), COMMIT];
        const { results } = await sendAtOnce(client, statements, NAMES);
        expect(results[1]!.rows).toEqual([{ one: 1 }]);
        expect(results[2]).toEqual({ command: 'INSERT', rows: [] });
      }
      const count = (message: string): number => heard.filter((each) => each === message).length;
      // BEGIN and COMMIT have no names.
      expect(['parseComplete', 'rowDescription', 'noData'].map(count)).toEqual([2 + 6, 1, 1 + 6]);
      expect(await notes()).toEqual(['a', 'b', 'c']);
      const names = (await client.query(IN_USE.text)).rows;
      expect(names).toEqual([{ name: 'batch_note' }, { name: 'batch_one' }]);
      // The client shares what it knows of them with its own queries.
      expect((await client.query({ name: 'batch_one', text: ONE.text })).rows).toEqual([{ one: 1 }]);
    });

    it('are described where the client itself has prepared them', async () => {
      const client = await connect();
      await client.query({ name: 'batch_one', text: ONE.text });
      for (let round = 0; round < 2; round++) {
        expect((await sendAtOnce(client, [ONE], NAMES)).results[0]!.rows).toEqual([{ one: 1 }]);
      }
    });

    it('are not taken for prepared when the server skipped them', async () => {
      const client = await connect();
      expect((await sendAtOnce(client, [DIVISION, ONE, TWO], NAMES)).results).toEqual([]);
      expect((await client.query(IN_USE.text)).rows).toEqual([]);
      const { results } = await sendAtOnce(client, [ONE, TWO], NAMES);
      expect(results.map(({ rows }) => rows)).toEqual([[{ one: 1 }], [{ two: 2 }]]);
    });

    it('are tried again when they could not be parsed', async () => {
      const client = await connect();
      expect((await sendAtOnce(client, [LATE], NAMES)).error).toMatchObject({ code: '42P01' });
      await client.query('CREATE TEMPORARY TABLE late AS SELECT 1 AS late');
      expect((await sendAtOnce(client, [LATE], NAMES)).results[0]!.rows).toEqual([{ late: 1 }]);
    });
  });

  describe('on a connection that breaks', () => {
    const throughProxy = async (): ReturnType<typeof startDatabaseProxy> =>
      startDatabaseProxy(database.directUrl);

    it.each<[string, 'cut-before' | 'cut-after', string[]]>([
      ['before they arrive', 'cut-before', []],
      ['before they are answered', 'cut-after', ['a']],
    ])('%s, say that all may have been executed', async (_when, verdict, left) => {
      const proxy = await throughProxy();
      try {
        const client = await connect({ connectionString: proxy.url(database.directUrl) });
        const stop = proxy.onClientData((chunk) => (chunk.includes('COMMIT') ? verdict : 'forward'));
        const { results, sent, error } = await sendAtOnce(client, [BEGIN, ...noting('a'), COMMIT]);
        stop();
        expect([results, sent]).toEqual([[], 3]);
        expect(error).toMatchObject({ message: expect.any(String) });
        await eventually(async () => expect(await notes()).toEqual(left));
      } finally {
        await proxy.close();
      }
    });

    it('because the server ended the session, tell what was answered until then', async () => {
      const client = await connect();
      const sleep = { text: 'SELECT pg_sleep(1000)' };
      const batch = sendAtOnce(client, [BEGIN, ...noting('a'), sleep, COMMIT]);
      await eventually(async () => {
        const [row] = await database.query<{ ended: boolean }>(
          `SELECT count(pg_terminate_backend(pid)) > 0 AS ended FROM pg_stat_activity WHERE wait_event = 'PgSleep'
              AND datname = current_database()`,
        );
        return row!.ended;
      });
      const { results, sent, error } = await batch;
      expect([results.length, sent]).toEqual([2, 4]);
      expect(error).toMatchObject({ severity: 'FATAL' });
      expect(await notes()).toEqual([]);
    });

    it('before they were sent, say that none was', async () => {
      const client = await connect();
      const ended = new Promise((resolve) => client.once('end', resolve));
      await client.query('SELECT pg_terminate_backend(pg_backend_pid())').catch(() => undefined);
      await ended;
      expect(await sendAtOnce(client, noting('a'))).toMatchObject({ results: [], sent: 0 });
    });
  });

  it('are given up when the client has a timeout for queries', async () => {
    const patient = await connect({ query_timeout: 60_000 });
    expect((await sendAtOnce(patient, noting('a'))).results).toHaveLength(1);
    const hasty = await connect({ query_timeout: 50 });
    const { sent, error } = await sendAtOnce(hasty, [{ text: 'SELECT pg_sleep(1000)' }, COMMIT]);
    expect([sent, (error as Error).message]).toEqual([2, 'Query read timeout']);
    await database.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
    );
  });

  it('may be replaced by an object that inherits from them, as tracing tools do', async () => {
    const client = await connect();
    const query = client.query.bind(client) as (query: object) => unknown;
    let seen: unknown;
    Object.assign(client, {
      query: (original: { callback: (...args: unknown[]) => void; text?: string }) => {
        const { callback } = original;
        const traced = Object.create(original) as typeof original;
        traced.callback = (...args) => {
          seen = original.text;
          callback(...args);
        };
        return query(traced);
      },
    });
    const { results } = await sendAtOnce(client, [BEGIN, ...noting('a'), COMMIT]);
    expect([results.length, seen]).toEqual([3, 'BEGIN']);
    expect(await notes()).toEqual(['a']);
  });

  it('fail, and are not waited for any more, where something around the client throws', async () => {
    const dataSource = new DataSource({ type: 'postgres', url: database.directUrl, poolSize: 1 });
    await dataSource.initialize();
    const connection = await PooledConnection.acquire(dataSource, 1_000, {
      pipeline: true,
      names: new Map(),
    });
    const thrown = new Error('no span');
    const throwing = () => {
      throw thrown;
    };
    Object.assign(connection.client, { query: throwing });
    expect(await connection.send([BEGIN, COMMIT])).toEqual({ results: [], sent: 2, error: thrown });
    connection.close();
    await dataSource.destroy();
  });

  describe('need a client that can', () => {
    const withMembers = (client: unknown, members: object): object =>
      Object.assign(Object.create((client as { connection: object }).connection) as object, members);

    it.each<[string, (client: Client) => object]>([
      ['pipelines by itself', (client) => Object.create(client, { pipeline: { value: true } }) as object],
      [
        'has no connection',
        (client) => Object.create(client, { connection: { value: undefined } }) as object,
      ],
      ['is of another library', () => ({ query: () => undefined })],
      [
        'has nothing to write to',
        (client) =>
          Object.create(client, { connection: { value: withMembers(client, { stream: {} }) } }) as object,
      ],
      [
        'cannot make messages without sending them',
        (client) =>
          Object.create(client, {
            connection: { value: withMembers(client, { _send: undefined }) },
          }) as object,
      ],
    ])('not one that %s', async (_what, made) => {
      const client = await connect();
      expect(canSendAtOnce(client)).toBe(true);
      expect(canSendAtOnce(made(client) as Client)).toBe(false);
    });

    it('and are sent one after the other where it cannot', async () => {
      const dataSource = new DataSource({ type: 'postgres', url: database.directUrl, poolSize: 1 });
      await dataSource.initialize();
      const { master } = dataSource.driver as unknown as { master: Pool };
      master.on('acquire', (client: object) => Object.assign(client, { pipeline: true }));
      try {
        const tuning = { pipeline: true, names: new Map([['SELECT 1/0', 'batch_division']]) };
        const connection = await PooledConnection.acquire(dataSource, 5_000, tuning);
        expect(connection.sendsAtOnce).toBe(false);
        Object.assign(connection.client, { pipeline: false });
        expect((await connection.send([BEGIN, ...noting('a'), COMMIT])).results).toHaveLength(3);
        const { results, sent, error } = await connection.send([BEGIN, ...noting('b'), DIVISION, COMMIT]);
        expect([results.length, sent]).toEqual([2, 3]);
        expect(error).toMatchObject({ code: '22012' });
        await connection.rollBackAndRelease();
      } finally {
        await dataSource.destroy();
      }
      expect(await notes()).toEqual(['a']);
    });
  });
});
