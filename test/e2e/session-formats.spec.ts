import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectReplay } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';

/** In which formats a server may write what it is asked for. */
const FORMATS: readonly (readonly [setting: string, value: string])[] = [
  ['DateStyle', 'SQL, DMY'],
  ['DateStyle', 'SQL, MDY'],
  ['DateStyle', 'German'],
  ['DateStyle', 'Postgres, DMY'],
  ['DateStyle', 'ISO, YMD'],
  ['IntervalStyle', 'iso_8601'],
  ['IntervalStyle', 'sql_standard'],
  ['bytea_output', 'escape'],
  ['extra_float_digits', '-15'],
  ['extra_float_digits', '3'],
  ['TimeZone', 'Asia/Kathmandu'],
  ['TimeZone', '<+0130>-01:30'],
  ['timezone_abbreviations', 'India'],
];

/** Bytes that each format of bytes writes in another way. */
const ANSWER = { text: 'a\\b \u0000 \u0007 Zoë →', bytes: String.fromCharCode(...Array(256).keys()) };
const HOUR = 3_600_000;

const ROUTES = { transaction: {}, lease: { mode: 'lease', onOutcomeUnknown: 'rerun' } } as const;

describe.each(ONE_ADAPTER)('formats of a session (%s)', (adapter) => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  let app: Application | undefined;

  afterEach(async () => {
    await app?.clear();
    await app?.close();
    app = undefined;
    await database.query(`ALTER DATABASE "${database.name}" RESET ALL`);
  });

  afterAll(() => database.drop());

  const start = async (): Promise<Application> => {
    // Past PgBouncer, and one session: what a handler leaves is there for the next.
    const options = { adapter, database, databaseUrl: database.directUrl, poolSize: 1 };
    return (app = await Application.start({ ...options, routes: ROUTES }));
  };

  /** First answers, replays, and what the service tells of them. */
  const expectAsEver = async (running: Application, route: string, handler: Handler): Promise<void> => {
    const since = Date.now();
    for (const key of ['first', 'second']) {
      const original = await running.run(handler, { key, route });
      expect({ status: original.status, body: original.json() }).toEqual({ status: 201, body: ANSWER });
      const replay = await running.run(() => 'must not run', { key, route });
      expectReplay(replay, original);
      expect(replay.body.equals(original.body)).toBe(true);
      expect(replay.headers['idempotency-created-at']).toBe(original.headers['idempotency-created-at']);
      const identity = { client: 'tests', endpoint: `POST /${route}`, key };
      const found = (await running.service.find(identity))!;
      expect(found.response?.body.equals(original.body)).toBe(true);
      expect(Math.abs(found.createdAt.getTime() - since)).toBeLessThan(HOUR);
      expect(found.expiresAt.getTime() - found.completedAt!.getTime()).toBe(24 * HOUR);
    }
    const { records } = await running.service.list({ createdAfter: new Date(since - HOUR) });
    expect(records.map(({ key, state }) => [key, state])).toEqual([
      ['first', 'completed'],
      ['second', 'completed'],
    ]);
    const before = await running.service.list({ createdBefore: new Date(since - HOUR) });
    expect(before.records).toEqual([]);
    expect(await running.service.release(records[0]!)).toBe('done');
    expect(
      (await running.run(handler, { key: 'first', route })).headers['idempotency-replayed'],
    ).toBeUndefined();
  };

  /** Over a record that has expired, and over an attempt that has lapsed. */
  const expectTakenOver = async (running: Application, route: string, handler: Handler): Promise<void> => {
    await database.query(
      `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'`,
    );
    const original = await running.run(handler, { key: 'second', route });
    expect(original.headers['idempotency-replayed']).toBeUndefined();
    expectReplay(await running.run(() => 'must not run', { key: 'second', route }), original);
  };

  describe.each(Object.keys(ROUTES))('on the route %s', (route) => {
    it.each(FORMATS)('set for the database: %s = %s', async (setting, value) => {
      await database.query(`ALTER DATABASE "${database.name}" SET ${setting} = '${value}'`);
      const running = await start();
      await expectAsEver(running, route, () => ANSWER);
      await expectTakenOver(running, route, () => ANSWER);
    });

    it.each(FORMATS)('set by each handler, for good: %s = %s', async (setting, value) => {
      const running = await start();
      const handler: Handler = async ({ dataSource }) => {
        await dataSource.query(`SET ${setting} = '${value}'`);
        return ANSWER;
      };
      await expectAsEver(running, route, handler);
      await expectTakenOver(running, route, handler);
    });

    it.each(FORMATS)('set back by a handler: %s = %s', async (setting, value) => {
      const running = await start();
      const pool = poolOf(running.dataSource);
      const session = await pool.connect();
      await session.query(`SET ${setting} = '${value}'`);
      session.release();
      await expectAsEver(running, route, async ({ dataSource }) => {
        await dataSource.query(`RESET ${setting}`);
        return ANSWER;
      });
    });
  });

  it.each(FORMATS)('set by a handler for its transaction: %s = %s', async (setting, value) => {
    const running = await start();
    const handler: Handler = async ({ dataSource }) => {
      await dataSource.query(`SET LOCAL ${setting} = '${value}'`);
      return ANSWER;
    };
    await expectAsEver(running, 'transaction', handler);
    await expectTakenOver(running, 'transaction', handler);
  });
});
