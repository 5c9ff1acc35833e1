import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Client, QueryResult } from 'pg';
import { FINGERPRINT, IDENTITY, LOCK, sqlStateOf, TestStore } from '../helpers/store.js';

const UNIQUE_VIOLATION = '23505';
const INVALID_TEXT = '22P02';
const HOUR = 3_600_000;
const CLAIMED_AT = new Date('2026-01-21T10:30:00.123Z');
const HEADERS = JSON.stringify([['x-made', '1']]);

/** What each condition, lock and clock of the statements is there for: without any one of them, one of these fails. */
describe('the statements of a transaction that holds an identity', () => {
  let store: TestStore;
  let one: Client;
  let other: Client;

  beforeAll(async () => {
    store = await TestStore.start();
    [one, other] = [await store.connect(), await store.connect()];
  });

  afterEach(() => store.reset());

  afterAll(() => store.close());

  const lock = async (client: Client = one): Promise<{ free: boolean; began: string }> => {
    const { rows } = await client.query(store.statements.lock, [LOCK, '1234']);
    return rows[0];
  };

  const existing = async (client: Client = one): Promise<Record<string, unknown> | undefined> => {
    const { rows } = await client.query(store.statements.existing, [...IDENTITY]);
    return rows[0];
  };

  /** Takes the lock and leaves a record, in one transaction unless something is done in between. */
  const record = async (meanwhile?: string): Promise<QueryResult> => {
    await begin();
    const { began } = await lock();
    if (meanwhile) await one.query(meanwhile);
    const claimed = [FINGERPRINT, 'failed', 'transaction', 3, CLAIMED_AT];
    const values = [...IDENTITY, ...claimed, 402, HEADERS, 'made', HOUR, began];
    return one.query(store.statements.record, values);
  };

  const settings = async (): Promise<Record<string, unknown>> => {
    const names = ['statement_timeout', 'idle_in_transaction_session_timeout', 'lock_timeout'];
    if ((await store.serverVersion()) >= 170_000) names.push('transaction_timeout');
    const found = await one.query('SELECT name, setting FROM pg_settings WHERE name = ANY ($1)', [names]);
    return Object.fromEntries(found.rows.map(({ name, setting }) => [name, setting]));
  };

  /** Begins a transaction whose now() is in the past from here on. */
  const begin = async (): Promise<void> => {
    await one.query('BEGIN');
    await one.query('CREATE TEMPORARY TABLE began ON COMMIT DROP AS SELECT now() AS at');
  };

  /** As it travels with BEGIN where a connection sends nothing at once. */
  const lockNow = async (): Promise<{ free: boolean }> => {
    const { rows } = await one.query(store.statements.lockNow(LOCK, 1234));
    return rows[0];
  };

  describe.each([
    ['lock', () => lock()],
    ['lock in one text', lockNow],
  ])('%s', (_how, take) => {
    it('is held alone, and until the transaction ends', async () => {
      await begin();
      expect((await take()).free).toBe(true);
      expect(await store.isLockFree('shared')).toBe(false);
      await one.query('COMMIT');
      expect(await store.isLockFree()).toBe(true);
    });

    it.each(['pg_advisory_xact_lock', 'pg_advisory_xact_lock_shared'])(
      'is not waited for when somebody else has %s',
      async (lockFunction) => {
        await other.query('BEGIN');
        await other.query(`SELECT ${lockFunction}($1::bigint)`, [LOCK]);
        await begin();
        expect((await take()).free).toBe(false);
      },
    );

    it('bounds the transaction by its maximum duration, and no other', async () => {
      const before = await settings();
      await begin();
      await take();
      const bounded = Object.fromEntries(Object.keys(before).map((name) => [name, '1234']));
      expect(await settings()).toEqual({ ...bounded, lock_timeout: before.lock_timeout });
      await one.query('COMMIT');
      expect(await settings()).toEqual(before);
    });
  });

  it('the lock tells the time by the clock', async () => {
    await begin();
    const { rows } = await one.query(
      `SELECT locked_at > at AS later FROM (${store.statements.lockNow(LOCK, 1234)}) AS taken, began`,
    );
    expect(rows).toEqual([{ later: true }]);
  });

  it('a lock in one text holds numbers alone', () => {
    expect(() => store.statements.lockNow("1'); DROP TABLE idempotency_records; --", 1)).toThrow(SyntaxError);
  });

  describe('existing', () => {
    it('is of this identity alone', async () => {
      await store.insertNeighbours();
      expect(await existing()).toBeUndefined();
      await store.insert({ status: 'completed' });
      expect(await existing()).toMatchObject({
        ...{ fingerprint: FINGERPRINT, status: 'completed', mode: 'lease', format_version: 1, attempt: 2 },
        ...{ response_status: 201, response_headers: [['x', '1']], response_body: Buffer.from('made') },
        ...{ live: true },
      });
    });

    it('tells by the clock what has expired, and what is left of a lease', async () => {
      await begin();
      await store.database.query(
        `INSERT INTO idempotency_records
           (client, endpoint, key, fingerprint, status, mode, format_version, expires_at, locked_until)
         VALUES ('c', 'e', 'k', 'x', 'processing', 'lease', 1, clock_timestamp(), clock_timestamp() - interval '1 minute')`,
      );
      const { remaining, live } = (await existing()) as { remaining: number; live: boolean };
      expect(live).toBe(false);
      expect(remaining).toBeLessThanOrEqual(-60_000);
      expect(remaining).toBeGreaterThan(-120_000);
    });

    it('sees what was committed before the lock was given up', async () => {
      await other.query('BEGIN');
      await lock(other);
      await begin();
      expect((await lock()).free).toBe(false);
      await store.insert({ status: 'completed' });
      await other.query('COMMIT');
      expect((await lock()).free).toBe(true);
      expect(await existing()).toMatchObject({ status: 'completed' });
    });

    it('waits for nobody who is writing or deleting the row', async () => {
      await store.insert({ status: 'completed' });
      await other.query('BEGIN');
      await other.query('DELETE FROM idempotency_records');
      expect(await existing()).toMatchObject({ status: 'completed' });
    });

    it('locks nothing', async () => {
      await store.insert({ status: 'completed' });
      await begin();
      await existing();
      const deleted = await other.query('DELETE FROM idempotency_records');
      expect(deleted.rowCount).toBe(1);
    });
  });

  describe('record', () => {
    it('is complete, and expires from now', async () => {
      await record();
      const { rows } = await one.query(
        `SELECT r.*, completed_at > at AS "completedNow", expires_at > at + interval '1 hour' AS "expiresFromNow",
                expires_at <= clock_timestamp() + interval '1 hour' AS "expiresInTime"
           FROM idempotency_records r, began`,
      );
      expect(rows).toEqual([
        expect.objectContaining({
          ...{ client: 'c', endpoint: 'e', key: 'k', fingerprint: FINGERPRINT, status: 'failed' },
          ...{ mode: 'transaction', format_version: 3, attempt: 1, owner_token: null, locked_until: null },
          ...{ created_at: CLAIMED_AT, response_status: 402, response_headers: [['x-made', '1']] },
          ...{
            response_body: Buffer.from('made'),
            completedNow: true,
            expiresFromNow: true,
            expiresInTime: true,
          },
        }),
      ]);
    });

    it.each(['processing', 'completed'])('is refused where there is one that is %s', async (status) => {
      await store.insert({ status });
      const before = await store.ownRow();
      expect(await sqlStateOf(record())).toBe(UNIQUE_VIOLATION);
      expect(await store.ownRow()).toEqual(before);
    });

    it.each(['COMMIT', 'ROLLBACK', 'COMMIT; BEGIN'])(
      'is of no other transaction than that which has the lock: %s',
      async (meanwhile) => {
        expect(await sqlStateOf(record(meanwhile))).toBe(INVALID_TEXT);
        await one.query('ROLLBACK');
        expect(await store.ownRow()).toBeUndefined();
      },
    );
  });

  describe('look', () => {
    /** As it is asked about the identity: an array of clients, one of endpoints and one of keys. */
    const ONE = IDENTITY.map((part) => [part]);

    const look = async (): Promise<unknown> => {
      const { rows } = await one.query(store.statements.look, ONE);
      return rows[0];
    };

    it('finds what is completed, of this identity', async () => {
      await store.insertNeighbours({ status: 'completed' });
      expect(await look()).toBeUndefined();
      await store.insert({ status: 'completed' });
      expect(await look()).toMatchObject({ status: 'completed', response_status: 201 });
    });

    it('leaves what still runs to the claim', async () => {
      await store.insert();
      expect(await look()).toBeUndefined();
    });

    it('tells by the clock what has expired', async () => {
      await begin();
      await store.database.query(
        `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
         VALUES ('c', 'e', 'k', 'x', 'completed', 'transaction', 1, clock_timestamp())`,
      );
      expect(await look()).toBeUndefined();
    });

    it('tells by its place whose each one is', async () => {
      await store.insertNeighbours({ status: 'completed' });
      await store.insert({ status: 'failed' });
      const { rows } = await one.query(store.statements.look, [
        ['c', 'another', 'nobody', 'c', 'c'],
        ['e', 'e', 'e', 'e', 'another'],
        ['another', 'k', 'k', 'k', 'k'],
      ]);
      const found = rows.map(({ place, status }) => [Number(place), status]);
      expect(found).toEqual([
        [1, 'completed'],
        [2, 'completed'],
        [4, 'failed'],
        [5, 'completed'],
      ]);
    });

    // Not where it was analyzed while it had but a page or two: to read those is cheaper, for any statement.
    describe.each([
      ['few rows', 10, ''],
      ['many rows', 5_000, ''],
      ['many rows, analyzed', 5_000, 'ANALYZE idempotency_records'],
    ])('in a table with %s', (_what, count, prepare) => {
      it.each(['force_custom_plan', 'force_generic_plan'])('takes the primary key: %s', async (mode) => {
        await store.database.query(
          `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
           SELECT 'c', 'e', number, 'x', 'completed', 'transaction', 1, now() + interval '1 hour'
             FROM generate_series(1, ${count}) AS number`,
        );
        await one.query(`${prepare}; SET plan_cache_mode = ${mode}`);
        await one.query(`PREPARE look (text[], text[], text[]) AS ${store.statements.look}`);
        const { rows } = await one.query(`EXPLAIN EXECUTE look ('{c,c}', '{e,e}', '{1,2}')`);
        await one.query('DEALLOCATE look; RESET plan_cache_mode');
        const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
        expect(plan).toContain('Index Scan using idempotency_records_identity');
        expect(plan).not.toContain('Seq Scan');
      });
    });
  });
});
