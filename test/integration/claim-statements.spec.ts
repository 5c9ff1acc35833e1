import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Client, QueryResult } from 'pg';
import { eventually } from '../helpers/conditions.js';
import {
  FINGERPRINT,
  IDENTITY,
  limitsOf,
  LOCK,
  OWNER,
  SOMEBODY_ELSE,
  sqlStateOf,
  TestStore,
} from '../helpers/store.js';

const LOCK_NOT_AVAILABLE = '55P03';
const HOUR = 3_600_000;
const FOUND_FINGERPRINT = FINGERPRINT.toString('hex');
const BODY = Buffer.from('made').toString('hex');
/** As the library reads times: microseconds. */
const CREATED = '(extract(epoch FROM created_at) * 1000000)::bigint::text AS created';

/** What each condition, lock and clock of the statements is there for: without any one of them, one of these fails. */
describe('the statements that take an identity', () => {
  let store: TestStore;
  let one: Client;
  let other: Client;

  beforeAll(async () => {
    store = await TestStore.start();
    [one, other] = [await store.connect(), await store.connect()];
  });

  afterEach(() => store.reset());

  afterAll(() => store.close());

  const claim = async (
    { token = OWNER, lease = 1_000 }: { token?: string | null; lease?: number | null } = {},
    client: Client = one,
  ): Promise<Record<string, unknown>> => {
    const values = [LOCK, '200', '1234', ...IDENTITY, FINGERPRINT, 'lease', 1, HOUR, token, lease];
    const { rows } = await client.query(store.statements.claim, values);
    return rows[0];
  };

  const takeOver = (lapsed: number | null, fingerprint = FINGERPRINT): Promise<QueryResult> => {
    const { takeOver: statement } = store.statements;
    const mode = ['transaction', 2, 2 * HOUR, SOMEBODY_ELSE, 1_000];
    return one.query(statement, [LOCK, ...IDENTITY, fingerprint, ...mode, lapsed]);
  };

  const settings = (): Promise<Record<string, string>> => limitsOf(one);

  /** Begins a transaction whose now() is in the past from here on. */
  const begin = async (isolation = 'READ COMMITTED'): Promise<void> => {
    await one.query(`BEGIN ISOLATION LEVEL ${isolation}`);
    await one.query('CREATE TEMPORARY TABLE began ON COMMIT DROP AS SELECT now() AS at');
  };

  const began = async (): Promise<unknown> => {
    const { rows } = await one.query('SELECT at FROM began');
    return rows[0].at;
  };

  describe('claim', () => {
    it('inserts what it is told, by the clock', async () => {
      await begin();
      expect(await claim()).toMatchObject({ free: true, fingerprint: null });
      const { rows } = await one.query(
        `SELECT r.*, created_at > at AS "createdNow", expires_at > at + interval '1 hour' AS "expiresFromNow",
                expires_at <= clock_timestamp() + interval '1 hour' AS "expiresInTime",
                locked_until > at + interval '1 second' AS "lockedFromNow",
                locked_until <= clock_timestamp() + interval '1 second' AS "lockedInTime"
           FROM idempotency_records r, began`,
      );
      expect(rows).toEqual([
        expect.objectContaining({
          ...{ client: 'c', endpoint: 'e', key: 'k', fingerprint: FINGERPRINT, status: 'processing' },
          ...{ mode: 'lease', format_version: 1, attempt: 1, owner_token: OWNER, completed_at: null },
          ...{ createdNow: true, expiresFromNow: true, expiresInTime: true },
          ...{ lockedFromNow: true, lockedInTime: true },
        }),
      ]);
    });

    it('answers with the time of creation that it recorded, and the process that did', async () => {
      const { claimed_at: claimedAt, pid } = await claim();
      expect(await store.ownRow(CREATED)).toMatchObject({ created: claimedAt });
      expect((await one.query('SELECT pg_backend_pid() AS pid')).rows).toEqual([{ pid }]);
    });

    it('has neither a token nor a lease where the transaction holds the identity', async () => {
      await claim({ token: null, lease: null });
      expect(await store.ownRow()).toMatchObject({ owner_token: null, locked_until: null });
    });

    it('holds the lock alone, and until the transaction ends', async () => {
      await begin();
      await claim();
      expect(await store.isLockFree('shared')).toBe(false);
      await one.query('COMMIT');
      expect(await store.isLockFree()).toBe(true);
    });

    it.each(['pg_advisory_xact_lock', 'pg_advisory_xact_lock_shared'])(
      'neither waits for %s of somebody else nor inserts',
      async (lock) => {
        await other.query('BEGIN');
        await other.query(`SELECT ${lock}($1::bigint)`, [LOCK]);
        expect(await claim()).toMatchObject({ free: false, claimed_at: null, fingerprint: null });
        expect(await store.ownRow()).toBeUndefined();
      },
    );

    it('bounds the transaction by its maximum duration, and leaves it its lock timeout', async () => {
      await one.query(`SET lock_timeout = '7s'`);
      const before = await settings();
      await begin();
      await claim();
      expect(await settings()).toEqual({
        ...before,
        ...Object.fromEntries((await store.limits()).map((name) => [name, '1234'])),
        lock_timeout: '7000',
      });
      await one.query('COMMIT');
      expect(await settings()).toEqual(before);
    });

    it('finds the row of the identity and no other, with what is known of it', async () => {
      await store.insertNeighbours();
      expect(await claim()).toMatchObject({ fingerprint: null });
      await store.reset();
      await store.insertNeighbours({ attempt: 9 });
      await store.insert({ status: 'completed', locked: null });
      expect(await claim()).toMatchObject({
        ...{
          free: true,
          claimed_at: null,
          fingerprint: FOUND_FINGERPRINT,
          status: 'completed',
          mode: 'lease',
        },
        ...{ format_version: 1, response_status: 201, response_headers: '[["x","1"]]' },
        ...{ response_body: BODY, attempt: 2, live: true, mine: true, remaining: null },
      });
      expect(await store.neighbours()).toHaveLength(3);
    });

    it('tells its own lease from that of somebody else, and when it ends', async () => {
      await store.insert({ token: SOMEBODY_ELSE, locked: '10 seconds' });
      const { mine, remaining } = await claim();
      expect(mine).toBe(false);
      expect(Number(remaining)).toBeGreaterThan(5_000);
      expect(Number(remaining)).toBeLessThanOrEqual(10_000);
      expect(await claim({ token: SOMEBODY_ELSE })).toMatchObject({ mine: true });
      expect(await claim({ token: null })).toMatchObject({ mine: null });
    });

    it('takes a record for expired by the clock, not by when its transaction began', async () => {
      await begin();
      await store.insert({ status: 'completed', expires: '0' });
      expect(await claim()).toMatchObject({ live: false, claimed_at: null });
    });

    it('does not wait for a purge that is deleting the record', async () => {
      await store.insert({ status: 'completed', expires: '-1 second' });
      await other.query('BEGIN');
      await other.query('DELETE FROM idempotency_records');
      expect(await claim()).toMatchObject({ live: false, claimed_at: null });
    });

    it('waits for a row that the lock does not cover, but not for long', async () => {
      await other.query('BEGIN');
      await claim({}, other);
      await other.query('SAVEPOINT here');
      const values = ['8', '50', '1234', ...IDENTITY, FINGERPRINT, 'lease', 1, HOUR, OWNER, 1_000];
      expect(await sqlStateOf(one.query(store.statements.claim, values))).toBe(LOCK_NOT_AVAILABLE);
    });

    it('finds nothing and inserts nothing when a rival commits after its snapshot', async () => {
      await other.query('BEGIN');
      await claim({}, other);
      const values = ['8', '2000', '1234', ...IDENTITY, FINGERPRINT, 'lease', 1, HOUR, OWNER, 1_000];
      const claiming = one.query(store.statements.claim, values);
      await eventually(async () => {
        const waiting = await store.database.query(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        if (waiting.length === 0) throw new Error('it does not wait yet');
      });
      await other.query('COMMIT');
      const { rows } = await claiming;
      expect(rows[0]).toMatchObject({ free: true, claimed_at: null, fingerprint: null });
    });
  });

  describe('take over', () => {
    const RENEWED = `expires_at BETWEEN clock_timestamp() + interval '119 minutes' AND clock_timestamp() + interval '2 hours'
      AND locked_until BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() + interval '1 second' AS renewed,
      created_at > now() - interval '1 hour' AS fresh`;
    const TAKEN = {
      ...{ status: 'processing', mode: 'transaction', format_version: 2, response_status: null },
      ...{ response_headers: null, response_body: null, completed_at: null, owner_token: SOMEBODY_ELSE },
      renewed: true,
    };

    it('makes an expired record the first attempt of whatever is asked now', async () => {
      await store.insert({ status: 'completed', expires: '-1 second', locked: null });
      const another = Buffer.from('another request');
      const { rows } = await takeOver(null, another);
      const row = await store.ownRow(`${RENEWED}, ${CREATED}`);
      expect(row).toMatchObject({ ...TAKEN, fingerprint: another, attempt: 1, fresh: true });
      expect(rows).toEqual([{ claimed_at: row!['created'], attempt: 1 }]);
    });

    it('makes a lapsed attempt the next one, of the same age', async () => {
      await store.insert({ locked: '-1 hour' });
      const { rows } = await takeOver(2);
      const row = await store.ownRow(`${RENEWED}, ${CREATED}`);
      expect(row).toMatchObject({ ...TAKEN, fingerprint: FINGERPRINT, attempt: 3, fresh: false });
      expect(rows).toEqual([{ claimed_at: row!['created'], attempt: 3 }]);
    });

    it('goes by the clock, not by when its transaction began', async () => {
      await begin();
      await store.insert({ locked: '0' });
      expect((await takeOver(2)).rowCount).toBe(1);
      const { rows } = await one.query(
        `SELECT locked_until > at + interval '1 second' AND expires_at > at + interval '2 hours' AS renewed
           FROM idempotency_records, began`,
      );
      expect(rows).toEqual([{ renewed: true }]);
      expect(await began()).toBeInstanceOf(Date);
    });

    it.each<[string, Parameters<TestStore['insert']>[0], number | null]>([
      ['a record that has not expired', { status: 'completed' }, null],
      ['an attempt that lapsed, where an expired record was found', { locked: '-1 second' }, null],
      ['an attempt that holds its lease', {}, 2],
      ['another attempt than was found', { locked: '-1 second' }, 1],
      ['an attempt that has ended', { status: 'completed', locked: '-1 second' }, 2],
    ])('leaves %s alone', async (_what, columns, lapsed) => {
      await store.insert(columns);
      const before = await store.ownRow();
      expect((await takeOver(lapsed)).rowCount).toBe(0);
      expect(await store.ownRow()).toEqual(before);
    });

    it('leaves the attempt of another request alone', async () => {
      await store.insert({ locked: '-1 second' });
      expect((await takeOver(2, Buffer.from('another request'))).rowCount).toBe(0);
    });

    it.each([2, null])('leaves every other identity alone (%j)', async (lapsed) => {
      const found = lapsed === null ? { expires: '-1 second' } : { locked: '-1 second' };
      await store.insertNeighbours(found);
      const before = await store.neighbours();
      expect((await takeOver(lapsed)).rowCount).toBe(0);
      await store.insert(found);
      expect((await takeOver(lapsed)).rowCount).toBe(1);
      expect(await store.neighbours()).toEqual(before);
    });

    it('does not happen while somebody shares the lock, and does not wait for it', async () => {
      await store.insert({ locked: '-1 second' });
      await other.query('BEGIN');
      await other.query('SELECT pg_advisory_xact_lock_shared($1::bigint)', [LOCK]);
      expect((await takeOver(2)).rowCount).toBe(0);
    });

    it('holds the lock alone', async () => {
      await store.insert({ locked: '-1 second' });
      await begin();
      await takeOver(2);
      expect(await store.isLockFree('shared')).toBe(false);
    });

    it('does not wait for a row that somebody is changing', async () => {
      await store.insert({ locked: '-1 second' });
      await other.query('BEGIN');
      await other.query('SELECT FROM idempotency_records FOR UPDATE');
      expect((await takeOver(2)).rowCount).toBe(0);
    });
  });
});
