import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { NotFoundException } from '@nestjs/common';
import { currentExecution, type TuningOptions } from 'nestjs-pg-idempotency';
import type { ClientBase, DatabaseError } from 'pg';
import type { DataSource, QueryFailedError } from 'typeorm';
import { statementName } from '../../lib/postgres/statement-name.js';
import { ADAPTERS, Application, type Handler } from '../helpers/application.js';
import { deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { createShop } from '../helpers/shop.js';
import { failureOf, taskOf } from '../helpers/tasks.js';

/** From this time on a text is prepared, of this many, none of which is longer. */
const [OFTEN, MOST, LONGEST] = [5, 256, 8_192];

const ALL: TuningOptions = { pipeline: true, preparedStatements: 'all' };

interface Prepared {
  readonly name: string;
  readonly statement: string;
  readonly executed: number;
}

/** What the session of the present transaction has prepared for handlers. */
const preparedBy = (dataSource: DataSource): Promise<Prepared[]> =>
  dataSource.query<Prepared[]>(
    `SELECT name, statement, (generic_plans + custom_plans)::int AS executed FROM pg_prepared_statements
      WHERE name LIKE 'idempotency_handler_%' ORDER BY statement`,
  );

/** Works with the connection as an ORM, or a handler by way of it, has it. */
async function withConnection<T>(
  dataSource: DataSource,
  work: (client: ClientBase) => Promise<T>,
): Promise<T> {
  const runner = dataSource.createQueryRunner();
  try {
    return await work((await runner.connect()) as ClientBase);
  } finally {
    await runner.release();
  }
}

/** A text that no other test has. */
let texts = 0;
const freshText = (): string => `SELECT $1::int + ${++texts} AS sum`;

/** As in a migration: what a handler selects has another type from here on. */
const CHANGE = 'ALTER TABLE prices ALTER amount TYPE text';
const SELECT = 'SELECT amount FROM prices WHERE id = $1';

async function createPrices(database: TestDatabase): Promise<void> {
  await database.query('DROP TABLE IF EXISTS prices');
  await database.query('CREATE TABLE prices (id int CONSTRAINT one_price PRIMARY KEY, amount int)');
  await database.query('INSERT INTO prices VALUES (1, 10)');
}

const codeOf = (response: HttpResponse): unknown => (response.json() as { code?: unknown }).code;

describe.each(ADAPTERS)("a handler's own statements (%s)", (adapter) => {
  let app: Application;

  beforeAll(async () => {
    // One connection, so that every request finds what the one before has prepared.
    const database = await createTestDatabase();
    await createShop(database);
    const routes = { lease: { mode: 'lease' }, whatever: { response: { statuses: () => true } } } as const;
    app = await Application.start({
      database,
      adapter,
      databaseUrl: database.directUrl,
      routes,
      poolSize: 1,
      idempotency: { tuning: ALL },
    });
  });

  beforeEach(async () => {
    await app.idle();
    await createPrices(app.database);
  });

  afterAll(async () => {
    await app.close();
    await app.database.drop();
  });

  /** Runs it in a request of its own, that many times, and resolves with what the last one was answered. */
  async function times(count: number, script: Handler, route = 'run'): Promise<unknown> {
    let response: HttpResponse | undefined;
    for (let request = 1; request <= count; request++) response = await app.run(script, { route });
    expect(response?.status).toBe(201);
    return response && JSON.parse(response.text || 'null');
  }

  /** What is prepared of these texts, in the one session that there is. */
  async function preparedOf(...asked: readonly string[]): Promise<Prepared[]> {
    const all = (await times(1, ({ dataSource }) => preparedBy(dataSource))) as Prepared[];
    return all.filter(({ statement }) => asked.includes(statement));
  }

  it('are prepared from the fifth time on', async () => {
    const text = freshText();
    const script: Handler = ({ dataSource }) => dataSource.query(text, [1]);
    await times(OFTEN - 1, script);
    expect(await preparedOf(text)).toEqual([]);
    await times(1, script);
    expect(await preparedOf(text)).toMatchObject([{ executed: 1 }]);
    await times(3, script);
    const prepared = await preparedOf(text);
    expect(prepared).toMatchObject([{ executed: 4 }]);
    expect(prepared[0]?.name).toMatch(/^idempotency_handler_[0-9a-f]{32}$/);
  });

  it('are prepared as the ORM makes them, and also several times in one transaction', async () => {
    const script: Handler = async ({ orders }) => {
      for (let price = 1; price <= OFTEN; price++) await orders.save({ item: 'book', price });
      return orders.findBy({ item: 'book' });
    };
    const before = (await app.state()).orders;
    expect(await times(1, script)).toHaveLength(before + OFTEN);
    const prepared = (await times(1, ({ dataSource }) => preparedBy(dataSource))) as Prepared[];
    const inserts = prepared.filter(({ statement }) => statement.startsWith('INSERT INTO "orders"'));
    expect(inserts).toMatchObject([{ executed: 1 }]);
  });

  it('are prepared in a fenced transaction, and not outside of one', async () => {
    const [inside, outside] = [freshText(), freshText()];
    await times(
      OFTEN,
      async ({ dataSource }) => {
        await dataSource.query(outside, [1]);
        return currentExecution()?.transaction((manager) => manager.query(inside, [1]));
      },
      'lease',
    );
    expect(await preparedOf(inside, outside)).toMatchObject([{ statement: inside }]);
  });

  it('have nothing prepared without values, beyond a length, or that is asked for in any other way', async () => {
    const withoutValues = `SELECT ${++texts} AS number`;
    const atMost = freshText().padEnd(LONGEST);
    const tooLong = freshText().padEnd(LONGEST + 1);
    const [asObject, asRows, withUnknown] = [freshText(), freshText(), `SELECT $1::jsonb, ${++texts}`];
    const [named, name] = [freshText(), `own_${texts}`];
    await times(OFTEN, async ({ dataSource }) => {
      await dataSource.query(withoutValues);
      await dataSource.query(withoutValues, []);
      await dataSource.query(`${withoutValues}; ${withoutValues}`);
      await dataSource.query(atMost, [1]);
      await dataSource.query(tooLong, [1]);
      await dataSource.query(withUnknown, [{ any: 'object' }]);
      await withConnection(dataSource, async (client) => {
        await client.query({ text: asObject, values: [1] });
        await client.query({ text: asRows, rowMode: 'array' }, [1]);
        await client.query({ text: named, name }, [1]);
      });
    });
    const others = [withoutValues, tooLong, asObject, asRows, withUnknown, named];
    expect(await preparedOf(atMost, ...others)).toMatchObject([{ statement: atMost }]);
  });

  it('are answered through a callback as well', async () => {
    const [wrong, text] = [`SELECT 1 / $1::int, ${++texts}`, freshText()];
    const sum = 1 + texts;
    const script: Handler = ({ dataSource }) =>
      withConnection(dataSource, async (client) => {
        const ask = async (statement: string, value: number): Promise<unknown> => {
          const answered = deferred<unknown>();
          client.query(statement, [value], (error: Error | null, result) =>
            answered.resolve(error ? (error as DatabaseError).code : result.rows),
          );
          return answered.promise;
        };
        const rows = await ask(text, 1);
        await client.query('SAVEPOINT before');
        const code = await ask(wrong, 0);
        await client.query('ROLLBACK TO SAVEPOINT before');
        return [rows, code];
      });
    expect(await times(OFTEN + 2, script)).toEqual([[{ sum }], '22012']);
    expect(await preparedOf(text, wrong)).toHaveLength(2);
  });

  it('may not end the transaction, however often they are asked for', async () => {
    const ending: Handler = ({ dataSource }) =>
      withConnection(dataSource, async (client) => {
        const codes = [];
        for (let time = 0; time <= OFTEN; time++) {
          const refused = await client.query('COMMIT', [1]).catch((error: unknown) => error);
          codes.push((refused as { code?: unknown }).code);
        }
        return codes;
      });
    const answered = await app.run(ending);
    expect(answered.json()).toEqual(Array(OFTEN + 1).fill('IDEMPOTENCY_TRANSACTION_NOT_YOURS'));
  });

  it('go on after values that cannot be sent', async () => {
    const text = freshText();
    const circular: Record<string, unknown> = {};
    circular['self'] = circular;
    await times(OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
    for (const value of [circular, [circular]]) {
      const refused = await app.run(async ({ dataSource }) => {
        const error = await dataSource.query(text, [value]).catch(String);
        return [error, await dataSource.query(text, [1])];
      });
      expect(refused.json()).toEqual([expect.stringContaining('circular'), [{ sum: 1 + texts }]]);
    }
  });

  it('return what they return unprepared', async () => {
    const bytes = Buffer.from([0, 1, 254, 255]);
    const now = new Date('2024-02-29T12:34:56.789Z');
    const cases: [string, unknown[]][] = [
      ['$1::numeric AS n, $2::numeric AS o', ['12345678901234567890.123456789', 1.5]],
      ['$1::int8 AS big, $2::int2 AS small, $3::float8 AS f', [9007199254740993n, 7, 0.1]],
      ['$1::json AS j, $2::jsonb AS b', ['{"a": [1, null]}', '[{"b": "ü"}]']],
      ['$1::bytea AS b, $2::bytea AS v', [bytes, new Uint8Array(bytes)]],
      ['$1::timestamptz AS t, $2::timestamp AS u, $3::date AS d', [now, now, now]],
      ['$1::int[] AS i, $2::text[] AS t, $3::bytea[] AS b', [[1, null, 3], ['a"b', '', 'ü'], [bytes]]],
      ['$1::text AS n, $2::text AS u, $3::bool AS b', [null, undefined, false]],
      ['$1::uuid AS u, $2::interval AS i', ['3f333df6-90a4-4fda-8dd3-9485d27cee36', '1 day 2 hours']],
    ];
    const script: Handler = async ({ dataSource }) => {
      const answers: unknown[] = [];
      for (const [list, values] of cases) answers.push(await dataSource.query(`SELECT ${list}`, values));
      answers.push(await dataSource.query('UPDATE wallets SET balance = balance WHERE id = $1', [1]));
      return withConnection(dataSource, async (client) => {
        const { command, rowCount, fields } = await client.query('DELETE FROM orders WHERE id = $1', [-1]);
        const { fields: columns } = await client.query('SELECT * FROM wallets WHERE id = $1', [1]);
        return [...answers, command, rowCount, fields, columns];
      });
    };
    const unprepared = await times(1, script, 'plain');
    for (let request = 1; request < 2 * OFTEN; request++) expect(await times(1, script)).toEqual(unprepared);
    const statements = cases.map(([list]) => `SELECT ${list}`);
    expect(await preparedOf(...statements)).toHaveLength(cases.length);
  });

  it.each(['now', ' Today', '10:00 tomorrow', 'YESTERDAY'])(
    "are not prepared where they say '%s', which would stay what it was",
    async (moment) => {
      const text = `SELECT '${moment}'::timestamptz AS time, $1::int + ${++texts} AS sum`;
      await times(2 * OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
      expect(await preparedOf(text)).toEqual([]);
    },
  );

  it('are prepared where the time is that of a function', async () => {
    const text = `SELECT 'x' AS text, now() AS time, $1::int + ${++texts} AS sum`;
    await times(OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
    expect(await preparedOf(text)).toHaveLength(1);
  });

  it('fail as they fail unprepared', async () => {
    const statements: [string, unknown[]][] = [
      ['INSERT INTO prices VALUES ($1, 1)', [1]],
      ['SELECT 1 / $1::int', [0]],
      ['SELECT $1::int', ['one']],
      ['SELECT nothing FROM prices WHERE id = $1', [1]],
    ];
    const script: Handler = async ({ dataSource }) => {
      const errors: unknown[] = [];
      for (const [text, values] of statements) {
        const failing = dataSource.transaction((manager) => manager.query(text, values));
        const error = (await failing.catch((thrown: unknown) => thrown)) as QueryFailedError<DatabaseError>;
        const { driverError } = error;
        const own = { class: driverError.constructor.name, message: driverError.message };
        errors.push([Object.entries(error), own, Object.entries(driverError)]);
      }
      return errors;
    };
    const unprepared = await times(1, script, 'plain');
    for (let request = 1; request < 2 * OFTEN; request++) expect(await times(1, script)).toEqual(unprepared);
    // The first is one that the server could prepare, and that nevertheless failed each time.
    const [insert] = await preparedOf(statements[0]![0]);
    expect(insert).toBeDefined();
  });

  describe('that a migration has changed', () => {
    const select: Handler = ({ dataSource }) => dataSource.query(SELECT, [1]);

    /** Prepares a text, and changes what it returns. */
    async function changed(): Promise<string> {
      const text = `${SELECT} AND ${++texts} > 0`;
      await times(OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
      expect(await preparedOf(text)).toHaveLength(1);
      await app.database.query(CHANGE);
      return text;
    }

    it('end in a refusal that a retry with the same key gets over', async () => {
      const text = await changed();
      const script: Handler = async ({ dataSource, orders }) => {
        await orders.save({ item: 'retried', price: 1 });
        return dataSource.query(text, [1]);
      };
      const { records, orders } = await app.state();
      const refused = await app.run(script, { key: text });
      expect([refused.status, codeOf(refused)]).toEqual([503, 'IDEMPOTENCY_TRANSACTION_CONFLICT']);
      expect(refused.headers['retry-after']).toBeDefined();
      expect(await app.state()).toMatchObject({ records, orders });
      const retried = await app.run(script, { key: text });
      expect([retried.status, retried.json()]).toEqual([201, [{ amount: '10' }]]);
      expect(await app.state()).toMatchObject({ records: records + 1, orders: orders + 1 });
      // It is sent unnamed from here on: another migration does not matter.
      await times(OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
      await app.database.query('ALTER TABLE prices ALTER amount TYPE numeric USING amount::numeric');
      expect(await times(1, ({ dataSource }) => dataSource.query(text, [1]))).toEqual([{ amount: '10' }]);
    });

    const goOn = (): string => 'nothing';
    const sayOtherwise = (): never => {
      throw new NotFoundException();
    };

    it.each([
      ['goes on', goOn, false],
      ['goes on behind a savepoint', goOn, true],
      ['says something else of it', sayOtherwise, false],
      ['says something else of it behind a savepoint', sayOtherwise, true],
    ])('keep nothing of a handler that %s', async (_what, react, isNested) => {
      const text = await changed();
      const { records } = await app.state();
      const script: Handler = ({ dataSource }) => {
        const failing = isNested
          ? dataSource.transaction((manager) => manager.query(text, [1]))
          : dataSource.query(text, [1]);
        return failing.catch(react);
      };
      const refused = await app.run(script, { route: 'whatever' });
      expect([refused.status, codeOf(refused)]).toEqual([503, 'IDEMPOTENCY_TRANSACTION_CONFLICT']);
      expect((await app.state()).records).toBe(records);
    });

    it('end a fenced transaction alike', async () => {
      const text = await changed();
      const script: Handler = () =>
        currentExecution()?.transaction((manager) => manager.query(text, [1]).catch(() => 'swallowed'));
      const refused = await app.run(script, { route: 'lease' });
      expect(refused.status).toBe(503);
      // The handler did more than that, perhaps.
      const detail = expect.stringContaining('onOutcomeUnknown');
      expect(refused.json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_CONFLICT', detail });
      expect(await times(1, script, 'lease')).toEqual([{ amount: '10' }]);
    });

    it('read values by the type that a column had, until their session ends', async () => {
      const text = `UPDATE prices SET amount = $1 WHERE ${++texts} > 0`;
      const update: Handler = ({ dataSource }) => dataSource.query(text, ['3000000000']);
      await times(OFTEN, ({ dataSource }) => dataSource.query(text, [1]));
      await app.database.query('ALTER TABLE prices ALTER amount TYPE bigint');
      expect((await app.run(update)).status).toBe(500);
      const [session] = (await times(1, ({ dataSource }) =>
        dataSource.query('SELECT pg_backend_pid() AS pid'),
      )) as { pid: number }[];
      await app.idle();
      await app.database.query('SELECT pg_terminate_backend($1, 5000)', [session!.pid]);
      await app.run(select);
      expect(await times(1, update)).toEqual([[], 1]);
    });
  });

  it.each([
    ['is not there', (name: string) => `DEALLOCATE ${name}`, OFTEN],
    ['is there already', (name: string) => `PREPARE ${name} AS SELECT 1`, OFTEN - 1],
  ])('of whose name the server says that it %s end in a refusal alike', async (_what, sql, before) => {
    const text = freshText();
    const sum = 1 + texts;
    const script: Handler = ({ dataSource }) => dataSource.query(text, [1]);
    await times(before, script);
    const name = statementName('handler', text);
    await times(1, ({ dataSource }) => dataSource.query(sql(name)));
    const refused = await app.run(script, { key: text });
    expect([refused.status, codeOf(refused)]).toEqual([503, 'IDEMPOTENCY_STORE_UNAVAILABLE']);
    const retried = await app.run(script, { key: text });
    expect([retried.status, retried.json()]).toEqual([201, [{ sum }]]);
  });
});

describe('the bound of what is prepared for handlers', () => {
  it('is one for the process, and what came after it is sent unnamed', async () => {
    const database = await createTestDatabase();
    const worker = await Application.start({
      adapter: 'none',
      databaseUrl: database.directUrl,
      poolSize: 1,
      idempotency: { tuning: ALL },
    });
    try {
      const { value: prepared } = await worker.service.run(taskOf('many'), async () => {
        for (let time = 1; time <= OFTEN; time++) {
          for (let text = 0; text < MOST + 10; text++)
            await worker.dataSource.query(`SELECT $1::int AS n_${text}`, [text]);
        }
        return preparedBy(worker.dataSource);
      });
      expect(prepared).toHaveLength(MOST);
    } finally {
      await worker.close();
      await database.drop();
    }
  });
});

describe('statements of work that is run by the service', () => {
  it('are prepared, and a migration makes one fail that may be run again', async () => {
    const database = await createTestDatabase();
    await createPrices(database);
    const worker = await Application.start({
      adapter: 'none',
      databaseUrl: database.directUrl,
      poolSize: 1,
      idempotency: { tuning: ALL },
    });
    const work = (): Promise<unknown> => worker.dataSource.query(SELECT, [1]);
    try {
      for (let run = 1; run <= OFTEN; run++) await worker.service.run(taskOf(`run ${run}`), work);
      await database.query(CHANGE);
      const failure = await failureOf(worker.service.run(taskOf('changed'), work));
      expect(failure.error.code).toBe('IDEMPOTENCY_TRANSACTION_CONFLICT');
      expect((failure.cause as DatabaseError).message).toContain('cached plan must not change result type');
      expect((await worker.service.run(taskOf('changed'), work)).value).toEqual([{ amount: '10' }]);
    } finally {
      await worker.close();
      await database.drop();
    }
  });
});

describe.each<TuningOptions>([
  {},
  { pipeline: true },
  { preparedStatements: true },
  { preparedStatements: false },
])('tuned with %j', (tuning) => {
  it('sends nothing of a handler under a name', async () => {
    const database = await createTestDatabase();
    const worker = await Application.start({
      adapter: 'none',
      databaseUrl: database.directUrl,
      poolSize: 1,
      idempotency: { tuning },
    });
    try {
      const { value: prepared } = await worker.service.run(taskOf('off'), async () => {
        for (let time = 0; time < 2 * OFTEN; time++) await worker.dataSource.query('SELECT $1::int', [time]);
        return worker.dataSource.query<Prepared[]>('SELECT statement FROM pg_prepared_statements');
      });
      expect(prepared.filter(({ statement }) => statement.includes('$1::int'))).toEqual([]);
    } finally {
      await worker.close();
      await database.drop();
    }
  });
});
