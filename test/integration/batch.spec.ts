import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client, Pool, type ClientConfig, type Connection } from 'pg';
import { DataSource } from 'typeorm';
import { canSendAtOnce, encode, sendAtOnce, type Statement } from '../../lib/store/batch.js';
import { PooledConnection } from '../../lib/store/connection.js';
import { eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { startDatabaseProxy } from '../helpers/tcp-proxy.js';

/** Statements that note something, in a transaction of their own unless others are said. */
const noting = (...texts: string[]): Statement[] =>
  texts.map((text) => ({ text: 'INSERT INTO notes VALUES ($1)', values: [text] }));
/** Reads every value as the server writes it. */
const AS_TEXT = { getTypeParser: () => (text: string) => text };
/** Parsers of an application's, which fail for what the library asks for. */
const FAILING = {
  getTypeParser: () => () => {
    throw new Error('no such value');
  },
};

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
    const asText = await client.query({ text, values, types: AS_TEXT });
    expect(results[1]!.rows).toEqual(asText.rows);
    expect(results[1]!.rows).toEqual([
      {
        ...{ bytes: '\\x78', number: '7', nothing: null, text: 'ä', time: expect.stringContaining('05.678') },
        ...{ json: '{"a":1}', list: '{a,b}', fact: 't' },
      },
    ]);
    expect(results.map(({ count }) => count)).toEqual([0, 1, 1, 1, 0]);
    expect(await notes()).toEqual(['A']);
  });

  it('count what they changed, returned or found', async () => {
    const client = await connect();
    const statements = [
      ...noting('a', 'b'),
      { text: 'UPDATE notes SET text = upper(text)' },
      { text: 'SELECT FROM notes' },
      { text: 'INSERT INTO notes SELECT text || 1 FROM notes' },
      { text: 'DELETE FROM notes' },
      { text: 'DELETE FROM notes' },
    ];
    const { results } = await sendAtOnce(client, statements);
    expect(results.map(({ count }) => count)).toEqual([1, 1, 2, 2, 2, 4, 0]);
    expect(results[3]!.rows).toEqual([{}, {}]);
  });

  it('are answered with text, whatever parsers their client has', async () => {
    const client = await connect({ types: FAILING });
    const text = `SELECT 9007199254740993::bigint AS big, now() AS time, '\\x00'::bytea AS bytes`;
    const { results, error } = await sendAtOnce(client, [{ text }]);
    expect(error).toBeUndefined();
    expect(results[0]!.rows).toEqual([{ big: '9007199254740993', time: expect.any(String), bytes: '\\x00' }]);
  });

  it.each<[string, Parameters<typeof encode>[0], string]>([
    ['text', 'ä\\"', 'text'],
    ['a number', -1.5, 'numeric'],
    ['a time', new Date('2026-01-02T03:04:05.678Z'), 'timestamptz'],
    ['bytes', Buffer.of(0, 255, 92), 'bytea'],
    ['a list', ['a', '"', '\\', '', 'NULL', '{,}', 'ä b'], 'text[]'],
    ['an empty list', [], 'text[]'],
    ['null', null, 'text'],
    ['nothing', undefined, 'text'],
  ])('give %s as PostgreSQL takes it from node-postgres', async (_what, value, type) => {
    const client = await connect();
    const text = `SELECT $1::${type}::text AS it`;
    const { results } = await sendAtOnce(client, [{ text, values: [value] }]);
    expect(results[0]!.rows).toEqual((await client.query(text, [value])).rows);
    // One by one it goes as it was encoded.
    expect((await client.query(text, [encode(value)])).rows).toEqual(results[0]!.rows);
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
    expect(error).toBeInstanceOf(TypeError);
    await client.query('ROLLBACK');
    expect(await notes()).toEqual([]);
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
        expect(results[1]!.rows).toEqual([{ one: '1' }]);
        expect(results[2]).toEqual({ command: 'INSERT', count: 1, rows: [] });
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
        expect((await sendAtOnce(client, [ONE], NAMES)).results[0]!.rows).toEqual([{ one: '1' }]);
      }
    });

    it('are not taken for prepared when the server skipped them', async () => {
      const client = await connect();
      expect((await sendAtOnce(client, [DIVISION, ONE, TWO], NAMES)).results).toEqual([]);
      expect((await client.query(IN_USE.text)).rows).toEqual([]);
      const { results } = await sendAtOnce(client, [ONE, TWO], NAMES);
      expect(results.map(({ rows }) => rows)).toEqual([[{ one: '1' }], [{ two: '2' }]]);
    });

    it('are tried again when they could not be parsed', async () => {
      const client = await connect();
      expect((await sendAtOnce(client, [LATE], NAMES)).error).toMatchObject({ code: '42P01' });
      await client.query('CREATE TEMPORARY TABLE late AS SELECT 1 AS late');
      expect((await sendAtOnce(client, [LATE], NAMES)).results[0]!.rows).toEqual([{ late: '1' }]);
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
    const connection = await PooledConnection.acquire(poolOf(dataSource), 1_000);
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
      const config = { connectionString: database.directUrl, pipeline: true, types: FAILING };
      const pool = new Pool({ ...config, max: 1 });
      try {
        const connection = await PooledConnection.acquire(pool, 5_000);
        expect(canSendAtOnce(connection.client)).toBe(false);
        const piece = [BEGIN, ...noting('a'), { text: 'SELECT $1::int AS one', values: [1] }, COMMIT];
        const { results, sent, error } = await connection.send(piece);
        expect({ sent, error }).toEqual({ sent: 4, error: undefined });
        expect(results).toEqual([
          { command: 'BEGIN', count: 0, rows: [] },
          { command: 'INSERT', count: 1, rows: [] },
          { command: 'SELECT', count: 1, rows: [{ one: '1' }] },
          { command: 'COMMIT', count: 0, rows: [] },
        ]);
        const failed = await connection.send([BEGIN, ...noting('b'), DIVISION, COMMIT]);
        expect([failed.results.length, failed.sent]).toEqual([2, 3]);
        expect(failed.error).toMatchObject({ code: '22012' });
        await connection.rollBackAndRelease();
      } finally {
        await pool.end();
      }
      expect(await notes()).toEqual(['a']);
    });
  });
});
