import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { Controller, Logger, Post } from '@nestjs/common';
import { Idempotent, IdempotencyPurgeService, type PurgeOptions } from 'nestjs-pg-idempotency';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { statementsFor } from '../../lib/store/sql.js';
import { startApp, type TestApp } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, PARTITIONED, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';

@Controller('things')
class ThingsController {
  @Post()
  @Idempotent()
  create(): { made: true } {
    return { made: true };
  }
}

describe('purge', () => {
  let database: TestDatabase;
  const apps: TestApp[] = [];

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  beforeEach(async () => {
    // Says which statement deleted which row and when, in the order of deletion.
    await database.query(`
      CREATE TABLE deleted (
        id serial, key text, transaction text,
        began timestamptz DEFAULT now(), at timestamptz DEFAULT clock_timestamp()
      );
      CREATE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO deleted (key, transaction) VALUES (OLD.key, pg_current_xact_id()::text);
          RETURN OLD;
        END $$;
      CREATE TRIGGER note_deletion AFTER DELETE ON idempotency_records
        FOR EACH ROW EXECUTE FUNCTION note_deletion()`);
  });

  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(apps.splice(0).map((app) => app.close()));
    await database.query(`
      TRUNCATE idempotency_records;
      DROP TRIGGER IF EXISTS note_deletion ON idempotency_records;
      DROP FUNCTION IF EXISTS note_deletion;
      DROP TABLE IF EXISTS deleted`);
  });

  afterAll(() => database.drop());

  async function start(purge: false | PurgeOptions): Promise<TestApp> {
    const app = await startApp({
      adapter: 'express',
      databaseUrl: database.url,
      controllers: [ThingsController],
      idempotency: { purge },
      poolSize: 4,
    });
    apps.push(app);
    return app;
  }

  const service = (app: TestApp): IdempotencyPurgeService => app.app.get(IdempotencyPurgeService);

  /** Adds records that expire so many minutes from now, on average. */
  async function addRecords(prefix: string, count: number, minutes: number): Promise<void> {
    await database.query(
      `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
       SELECT 'c', 'e', $1 || n, '', 'completed', 'transaction', 1,
              clock_timestamp() + $3 * interval '1 minute' + n * interval '1 millisecond'
         FROM generate_series(1, $2::int) n`,
      [prefix, count, minutes],
    );
  }

  const keys = async (): Promise<string[]> =>
    (await database.query<{ key: string }>('SELECT key FROM idempotency_records ORDER BY key')).map(
      ({ key }) => key,
    );

  const count = async (table: string): Promise<number> =>
    (await database.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${table}`))[0]!.count;

  it('deletes what has expired and nothing else, and counts it', async () => {
    const purge = service(await start(false));
    await addRecords('old-', 3, -5);
    await addRecords('live-', 2, 5);
    expect(await purge.purge()).toBe(3);
    expect(await keys()).toEqual(['live-1', 'live-2']);
    expect(await purge.purge()).toBe(0);
  });

  it('deletes in batches, each a transaction of its own, the oldest first', async () => {
    const purge = service(await start({ interval: '10d', batchSize: 10 }));
    await addRecords('old-', 25, -5);
    await addRecords('older-', 10, -50);
    expect(await purge.purge()).toBe(35);
    const batches = await database.query<{ rows: number; prefix: string }>(
      `SELECT count(*)::int AS rows, min(split_part(key, '-', 1)) AS prefix FROM deleted
        GROUP BY transaction ORDER BY min(id)`,
    );
    expect(batches.map(({ rows }) => rows)).toEqual([10, 10, 10, 5]);
    expect(batches[0]!.prefix).toBe('older');
  });

  it('uses the index on the time of expiry', async () => {
    await addRecords('live-', 20_000, 5);
    await addRecords('old-', 5, -5);
    await database.query('ANALYZE idempotency_records');
    const { purge } = statementsFor({
      ...{ schema: 'public', name: 'idempotency_records', isPartitioned: false, serverVersion: 180_000 },
    });
    const plan = await database.query(
      `EXPLAIN (FORMAT JSON) ${purge.replace('$1', '1000').replace('$2', "'0'")}`,
    );
    // That of the table, or of a partition.
    expect(JSON.stringify(plan)).toMatch(/"Index Name":"idempotency_records_(expires_idx|0_expires_at_idx)"/);
    expect(JSON.stringify(plan)).not.toContain('Seq Scan');
  });

  it('deletes each record once, however many instances purge at once', async () => {
    const services = (await Promise.all([1, 2, 3].map(() => start({ interval: '10d', batchSize: 7 })))).map(
      service,
    );
    await addRecords('old-', 500, -5);
    const counts = await Promise.all(services.map((each) => each.purge()));
    expect(counts.reduce((sum, each) => sum + each, 0)).toBe(500);
    expect(await count('deleted')).toBe(500);
    expect(await keys()).toEqual([]);
  });

  it('reads no record twice while an old snapshot keeps what was deleted', async () => {
    const app = await start({ interval: '10d', batchSize: 20 });
    const reader = new Client({ connectionString: database.url });
    await reader.connect();
    try {
      await addRecords('old-', 1_000, -5);
      await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await reader.query('SELECT count(*) FROM idempotency_records');
      const before = await indexEntriesRead(0);
      expect(await service(app).purge()).toBe(1_000);
      // A session tells all that it has counted when it ends, and before only what it comes to.
      await app.close();
      const read = (await indexEntriesRead(1_000)) - before;
      // Each batch meets the last record of the one before again.
      expect(read).toBeGreaterThanOrEqual(1_000);
      // On a partitioned table it looks at the next record of each partition.
      expect(read).toBeLessThan(PARTITIONED ? 2_000 : 1_200);
    } finally {
      await reader.end();
    }
  });

  /** Of the index on the time of expiry, once the server has told that so many records were deleted. */
  async function indexEntriesRead(deleted: number): Promise<number> {
    let entries = 0;
    await eventually(async () => {
      const [stats] = await database.query<{ deleted: number; read: number }>(
        `SELECT sum(pg_stat_get_tuples_deleted(oid)) FILTER (WHERE relkind = 'r')::int AS deleted,
                sum(pg_stat_get_tuples_returned(oid)) FILTER (WHERE relname LIKE '%expires%')::int AS read
           FROM pg_class WHERE starts_with(relname, 'idempotency_records')`,
      );
      entries = stats!.read;
      const sessions = await database.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%DELETE FROM%'
            AND pid <> pg_backend_pid()`,
      );
      return stats!.deleted >= deleted && (deleted === 0 || sessions.length === 0);
    });
    return entries;
  }

  it('deletes from every part of a partitioned table what has expired there, and nothing else', async () => {
    const partitioned = await createTestDatabase();
    try {
      // The first row of each part is at the same place.
      await partitioned.query(`
        ALTER TABLE idempotency_records RENAME TO former;
        CREATE TABLE idempotency_records (LIKE former INCLUDING ALL) PARTITION BY HASH (key);
        CREATE TABLE one PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 3, REMAINDER 0);
        CREATE TABLE two PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 3, REMAINDER 1);
        CREATE TABLE three PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 3, REMAINDER 2);
        INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
        SELECT 'c', 'e', n, '', 'completed', 'transaction', 1, now() + (n % 2 - 0.5) * interval '1 hour'
          FROM generate_series(1, 60) n`);
      const app = await startApp({
        ...{ adapter: 'express', databaseUrl: partitioned.url, controllers: [ThingsController], poolSize: 4 },
        idempotency: { purge: { interval: '10d', batchSize: 7 } },
      });
      try {
        expect(await service(app).purge()).toBe(30);
        const left = await partitioned.query<{ even: boolean; count: number }>(
          'SELECT key::int % 2 = 0 AS even, count(*)::int AS count FROM idempotency_records GROUP BY 1',
        );
        expect(left).toEqual([{ even: false, count: 30 }]);
      } finally {
        await app.close();
      }
    } finally {
      await partitioned.drop();
    }
  });

  it('joins a run that is under way', async () => {
    const purge = service(await start(false));
    await addRecords('old-', 3, -5);
    expect(await Promise.all([purge.purge(), purge.purge()])).toEqual([3, 3]);
    expect(await count('deleted')).toBe(3);
  });

  it('skips what another transaction has locked, and takes it the next time', async () => {
    const purge = service(await start(false));
    await addRecords('old-', 3, -5);
    const other = new Client({ connectionString: database.url });
    await other.connect();
    await other.query('BEGIN');
    await other.query("SELECT FROM idempotency_records WHERE key = 'old-2' FOR UPDATE");
    expect(await purge.purge()).toBe(2);
    expect(await keys()).toEqual(['old-2']);
    await other.end();
    await eventually(async () => (await purge.purge()) === 1);
  });

  it('troubles nobody while traffic runs', async () => {
    const app = await start({ interval: '10d', batchSize: 5 });
    await addRecords('old-', 200, -5);
    const request = (key: string): ReturnType<typeof postJson> =>
      postJson(`${app.url}/things`, {}, { 'Idempotency-Key': key });
    const traffic = Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const first = await request(`key-${index}`);
        const retry = await request(`key-${index}`);
        return [first.status, retry.status, retry.headers['idempotency-replayed']];
      }),
    );
    const deleted = service(app).purge();
    for (const answers of await traffic) expect(answers).toEqual([201, 201, 'true']);
    expect(await deleted).toBe(200);
    expect(await count('idempotency_records')).toBe(60);
  });

  it('runs by itself on a timer, again and again', async () => {
    await start({ interval: 20 });
    for (const round of ['first-', 'second-', 'third-']) {
      await addRecords(round, 3, -5);
      await eventually(async () => (await count('idempotency_records')) === 0);
    }
  });

  it('stops its timer with the application', async () => {
    const scheduled = jest.spyOn(globalThis, 'setTimeout');
    const cleared = jest.spyOn(globalThis, 'clearTimeout');
    const app = await start({ interval: '10m' });
    const index = scheduled.mock.calls.findIndex(([, delay]) => isAboutTenMinutes(delay));
    const timer: unknown = scheduled.mock.results[index]?.value;
    expect(timer).toMatchObject({ unref: expect.any(Function) });
    await app.close();
    expect(cleared.mock.calls).toContainEqual([timer]);
    expect(scheduled.mock.calls.filter(([, delay]) => isAboutTenMinutes(delay))).toHaveLength(1);
  });

  it('ends a run that is under way with the application, after the batch at hand', async () => {
    const app = await start({ interval: '10d', batchSize: 1 });
    await addRecords('old-', 300, -5);
    const purged = service(app).purge();
    await app.close();
    const deleted = await purged;
    expect(deleted).toBeLessThan(300);
    expect(await count('deleted')).toBe(deleted);
    expect(await keys()).toHaveLength(300 - deleted);
  });

  it('rests after each batch, four times as long as the batch took for us', async () => {
    const purge = service(await start({ interval: '10d', batchSize: 10 }));
    await slowDown(0.005);
    await addRecords('old-', 25, -5);
    expect(await purge.purge()).toBe(25);
    const batches = await database.query<{ took: number; rested: number }>(
      `SELECT milliseconds(max(at) - began) AS took,
              milliseconds(lead(began) OVER (ORDER BY began) - max(at)) AS rested
         FROM deleted GROUP BY began ORDER BY began`,
    );
    expect(batches).toHaveLength(3);
    for (const { took, rested } of batches.slice(0, 2)) {
      expect(took).toBeGreaterThanOrEqual(50);
      // A timer of Node's counts whole milliseconds.
      expect(rested).toBeGreaterThanOrEqual(4 * took - 2);
    }
  });

  it('does not wait for the disk, and leaves the session as it was', async () => {
    const app = await start(false);
    // Fires at the commit itself.
    await database.query(`
      CREATE OR REPLACE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO deleted (key) VALUES (current_setting('synchronous_commit'));
          RETURN NULL;
        END $$;
      DROP TRIGGER note_deletion ON idempotency_records;
      CREATE CONSTRAINT TRIGGER note_deletion AFTER DELETE ON idempotency_records
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_deletion()`);
    await addRecords('old-', 1, -5);
    const sessionsSetting = async (): Promise<unknown> =>
      (await app.app.get(DataSource).query<object[]>('SHOW synchronous_commit'))[0];
    expect(await sessionsSetting()).toEqual({ synchronous_commit: 'on' });
    expect(await service(app).purge()).toBe(1);
    expect(await database.query('SELECT key FROM deleted')).toEqual([{ key: 'off' }]);
    expect(await sessionsSetting()).toEqual({ synchronous_commit: 'on' });
  });

  it('does not keep the application from ending while it rests', async () => {
    const app = await start({ interval: '10d', batchSize: 1 });
    await slowDown(1);
    await addRecords('old-', 3, -5);
    const purged = service(app).purge();
    await eventually(async () => (await count('deleted')) === 1);
    await app.close();
    const [rest] = await database.query<{ left: number }>(
      `SELECT milliseconds(at + 4 * (at - began) - clock_timestamp()) AS left FROM deleted`,
    );
    expect(rest!.left).toBeGreaterThan(0);
    expect(await purged).toBe(1);
  });

  /** Makes each deletion take so many seconds. */
  async function slowDown(seconds: number): Promise<void> {
    await database.query(`
      CREATE OR REPLACE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_sleep(${seconds});
          INSERT INTO deleted (key, transaction) VALUES (OLD.key, pg_current_xact_id()::text);
          RETURN OLD;
        END $$;
      CREATE OR REPLACE FUNCTION milliseconds(interval) RETURNS float LANGUAGE sql AS
        'SELECT 1000 * extract(epoch FROM $1)'`);
  }

  it('starts no timer when it is switched off, and still runs on demand', async () => {
    const scheduled = jest.spyOn(globalThis, 'setTimeout');
    const timersOf = (): number =>
      scheduled.mock.calls.filter(([, delay]) => isAboutTenMinutes(delay)).length;
    const app = await start(false);
    expect(timersOf()).toBe(0);
    await start({});
    expect(timersOf()).toBe(1);
    await addRecords('old-', 1, -5);
    expect(await service(app).purge()).toBe(1);
  });

  it('says that it failed, and is tried again', async () => {
    const warnings = jest.spyOn(Logger.prototype, 'warn').mockImplementation(() => undefined);
    await database.query(`
      CREATE OR REPLACE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'hands off'; END $$`);
    await addRecords('old-', 1, -5);
    const app = await start({ interval: 20 });
    await eventually(() =>
      warnings.mock.calls.some(([message]) =>
        /purge failed and is tried again.*SQLSTATE P0001/.test(String(message)),
      ),
    );
    await expect(service(app).purge()).rejects.toMatchObject({
      ...{ error: { code: 'IDEMPOTENCY_STORE_REFUSED' }, cause: { cause: { message: 'hands off' } } },
    });
    expect(await keys()).toEqual(['old-1']);
    await database.query('DROP TRIGGER note_deletion ON idempotency_records');
    await eventually(async () => (await keys()).length === 0);
  });
});

/** The interval unless it is set, give or take the jitter. */
const isAboutTenMinutes = (delay = 0): boolean => delay >= 540_000 && delay <= 660_000;
