import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Client, QueryResult } from 'pg';
import { RESUME_ROLE, statementsFor, TAKE_ROLE, type Statements } from '../../lib/store/sql.js';
import {
  FINGERPRINT,
  IDENTITY,
  limitsOf,
  LOCK,
  OWNER,
  sqlStateOf,
  TestStore,
  type Row,
} from '../helpers/store.js';

const UNIQUE_VIOLATION = '23505';
const NOT_THE_TRANSACTION = '22P02';
const NOTHING_WRITTEN = '22012';
const HOUR = 3_600_000;
const HEADERS = JSON.stringify([['x-made', '1']]);
const TEXT_OF = { fingerprint: FINGERPRINT.toString('hex'), body: Buffer.from('made').toString('hex') };

/** A row whose time and columns a record must replace, all of them. */
const EXPIRED: Partial<Row> = { status: 'completed', expires: '-1 second', attempt: 7, locked: '1 hour' };
const LAPSED: Partial<Row> = { locked: '-1 second' };

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

  const lock = async (
    client: Client = one,
    statements: Statements = store.statements,
  ): Promise<{ free: boolean; began: string; pid: number; role: string }> => {
    const { rows } = await client.query(statements.lock, [LOCK, '1234']);
    return rows[0];
  };

  const look = async (client: Client = one): Promise<Record<string, unknown> | undefined> => {
    const { rows } = await client.query(store.statements.look, [...IDENTITY]);
    return rows[0];
  };

  /** Takes the lock and leaves a record, in one transaction unless something is done in between. */
  const record = async (
    how: 'record' | 'recordOverExpired' | 'recordOverLapsed' = 'record',
    { meanwhile, attempt = 2 }: { meanwhile?: string; attempt?: number } = {},
  ): Promise<QueryResult> => {
    await begin();
    const { began } = await lock();
    if (meanwhile) await one.query(meanwhile);
    const values = [
      ...IDENTITY,
      'another request',
      'failed',
      'transaction',
      3,
      402,
      HEADERS,
      'another',
      HOUR,
      began,
    ];
    if (how === 'recordOverLapsed') values.push(attempt);
    return one.query(store.statements[how], values);
  };

  /** Begins a transaction whose now() is in the past from here on. */
  const begin = async (isolation = 'READ COMMITTED'): Promise<void> => {
    await one.query(`BEGIN ISOLATION LEVEL ${isolation}`);
    await one.query('CREATE TEMPORARY TABLE began ON COMMIT DROP AS SELECT now() AS at');
  };

  /** The row of the identity as this transaction sees it, with some facts. */
  const ownRow = async (facts: string): Promise<unknown> => {
    const { rows } = await one.query(
      `SELECT r.*, ${facts} FROM idempotency_records r, began WHERE (client, endpoint, key) = ('c', 'e', 'k')`,
    );
    return rows[0];
  };

  const TIMES = `completed_at > at AS "completedNow", expires_at > at + interval '1 hour' AS "expiresFromNow",
    expires_at <= clock_timestamp() + interval '1 hour' AS "expiresInTime", created_at = at AS "createdAtBegin"`;
  const RECORDED = {
    ...{
      client: 'c',
      endpoint: 'e',
      key: 'k',
      fingerprint: Buffer.from('another request'),
      status: 'failed',
    },
    ...{ mode: 'transaction', format_version: 3, owner_token: null, locked_until: null },
    ...{ response_status: 402, response_headers: [['x-made', '1']], response_body: Buffer.from('another') },
    ...{ completedNow: true, expiresFromNow: true, expiresInTime: true },
  };

  describe('lock', () => {
    it('is held alone, and until the transaction ends', async () => {
      await begin();
      expect((await lock()).free).toBe(true);
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
        expect((await lock()).free).toBe(false);
      },
    );

    it('tells when the transaction began, which process answers, and under which role', async () => {
      await begin();
      const { rows } = await one.query(
        'SELECT (extract(epoch FROM at) * 1000000)::bigint AS began, pg_backend_pid() AS pid FROM began',
      );
      const { rows: users } = await one.query('SELECT session_user AS login');
      expect(await lock()).toMatchObject({ ...rows[0], ...users[0], role: 'none' });
      await one.query('SET LOCAL ROLE pg_monitor');
      expect(await lock()).toMatchObject({ ...rows[0], role: 'pg_monitor' });
    });
  });

  // A server of this release knows the settings of those before.
  describe.each([
    ['before PostgreSQL 17', 160_000],
    ['from this release on', undefined],
  ])('the limits of a transaction, %s', (_when, version) => {
    let names: string[];
    let statements: Statements;

    beforeAll(async () => {
      const serverVersion = version ?? (await store.serverVersion());
      const target = { schema: 'public', name: 'idempotency_records', isPartitioned: false, serverVersion };
      statements = statementsFor(target);
      names =
        serverVersion >= 170_000
          ? ['transaction_timeout']
          : ['statement_timeout', 'idle_in_transaction_session_timeout'];
    });

    const setAll = async (setting: string): Promise<void> => {
      for (const name of names) await one.query(`SET ${name} = '${setting}'`);
    };

    const bounded = (milliseconds: string): Record<string, string> =>
      Object.fromEntries(names.map((name) => [name, milliseconds]));

    afterEach(async () => {
      await one.query('ROLLBACK');
      await setAll('0');
      await one.query(`SET statement_timeout = '4s'`);
    });

    it('are its maximum duration, and those of no other', async () => {
      await setAll('0');
      const before = await limitsOf(one);
      await begin();
      await lock(one, statements);
      expect(await limitsOf(one)).toEqual({ ...before, ...bounded('1234') });
      await one.query('COMMIT');
      expect(await limitsOf(one)).toEqual(before);
    });

    it.each([
      ['1233ms', '1233'],
      ['1s', '1000'],
      ['1235ms', '1234'],
      ['2s', '1234'],
      ['2min', '1234'],
      ['5d', '1234'],
    ])('are %s of the application’s where that is lower', async (own, expected) => {
      await setAll(own);
      await begin();
      await lock(one, statements);
      expect(await limitsOf(one)).toMatchObject(bounded(expected));
    });

    it('of a fence are the same', async () => {
      await setAll('2s');
      const before = await limitsOf(one);
      await begin();
      await one.query(statements.fenceLock, [LOCK, '1234']);
      expect(await limitsOf(one)).toEqual({ ...before, ...bounded('1234') });
      await one.query('COMMIT');
      expect(await limitsOf(one)).toEqual(before);
    });
  });

  describe('look', () => {
    it('is of this identity alone', async () => {
      await store.insertNeighbours();
      expect(await look()).toBeUndefined();
      await store.insert({ status: 'completed' });
      expect(await look()).toMatchObject({
        ...{
          fingerprint: TEXT_OF.fingerprint,
          status: 'completed',
          mode: 'lease',
          format_version: 1,
          attempt: 2,
        },
        ...{ response_status: 201, response_headers: '[["x","1"]]', response_body: TEXT_OF.body },
        ...{ live: true },
      });
    });

    it('reads times and bytes whatever the session has set', async () => {
      await store.insert({ status: 'completed' });
      const before = await look();
      await begin();
      await one.query(
        `SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL bytea_output = 'escape';
         SET LOCAL extra_float_digits = 0; SET LOCAL IntervalStyle = 'sql_standard'`,
      );
      expect(await look()).toEqual({ ...before, remaining: expect.any(String) });
      const micros = '(extract(epoch FROM created_at) * 1000000)::bigint::text AS micros';
      expect(before!['created_at']).toBe((await store.ownRow(micros))!['micros']);
    });

    it('tells by the clock what has expired, and what is left of a lease', async () => {
      await begin();
      await store.database.query(
        `INSERT INTO idempotency_records
           (client, endpoint, key, fingerprint, status, mode, format_version, expires_at, locked_until)
         VALUES ('c', 'e', 'k', 'x', 'processing', 'lease', 1, clock_timestamp(), clock_timestamp() - interval '1 minute')`,
      );
      const { remaining, live } = (await look()) as { remaining: string; live: boolean };
      expect(live).toBe(false);
      expect(Number(remaining)).toBeLessThanOrEqual(-60_000);
      expect(Number(remaining)).toBeGreaterThan(-120_000);
    });

    it('sees what was committed before the lock was given up', async () => {
      await other.query('BEGIN');
      await lock(other);
      await begin();
      expect((await lock()).free).toBe(false);
      await store.insert({ status: 'completed' });
      await other.query('COMMIT');
      expect((await lock()).free).toBe(true);
      expect(await look()).toMatchObject({ status: 'completed' });
    });

    it('waits for nobody who is writing or deleting the row', async () => {
      await store.insert({ status: 'completed' });
      await other.query('BEGIN');
      await other.query('DELETE FROM idempotency_records');
      expect(await look()).toMatchObject({ status: 'completed' });
    });

    it('locks nothing', async () => {
      await store.insert({ status: 'completed' });
      await begin();
      await look();
      const deleted = await other.query('DELETE FROM idempotency_records');
      expect(deleted.rowCount).toBe(1);
    });
  });

  describe('record', () => {
    it('is complete, and expires from now', async () => {
      await record();
      expect(await ownRow(TIMES)).toMatchObject({ ...RECORDED, attempt: 1, createdAtBegin: true });
    });

    it.each(['processing', 'completed'])('is refused where there is one that is %s', async (status) => {
      await store.insert({ status });
      const before = await store.ownRow();
      expect(await sqlStateOf(record())).toBe(UNIQUE_VIOLATION);
      expect(await store.ownRow()).toEqual(before);
    });
  });

  describe('record over an expired one', () => {
    it.each(['completed', 'processing'])('replaces all of it, whatever its status: %s', async (status) => {
      await store.insert({ ...EXPIRED, status });
      await record('recordOverExpired');
      expect(await ownRow(TIMES)).toMatchObject({ ...RECORDED, attempt: 1, createdAtBegin: true });
    });

    it('is written where the purge was faster', async () => {
      await record('recordOverExpired');
      expect(await ownRow(TIMES)).toMatchObject({ ...RECORDED, attempt: 1, createdAtBegin: true });
    });

    it('goes by the clock, not by when its transaction began', async () => {
      await begin();
      const { began } = await lock();
      await store.insert({ ...EXPIRED, expires: '0' });
      const values = [...IDENTITY, 'x', 'failed', 'transaction', 3, 402, HEADERS, 'x', HOUR, began];
      expect((await one.query(store.statements.recordOverExpired, values)).rowCount).toBe(1);
    });

    it.each(['processing', 'completed'])('fails where there is one that is alive, and %s', async (status) => {
      await store.insert({ status });
      const before = await store.ownRow();
      expect(await sqlStateOf(record('recordOverExpired'))).toBe(NOTHING_WRITTEN);
      await one.query('ROLLBACK');
      expect(await store.ownRow()).toEqual(before);
    });

    it('leaves every other identity alone', async () => {
      await store.insertNeighbours(EXPIRED);
      const before = await store.neighbours();
      await record('recordOverExpired');
      await one.query('COMMIT');
      expect(await store.neighbours()).toEqual(before);
      expect(await store.ownRow()).toMatchObject({ status: 'failed' });
    });
  });

  describe('record over a lapsed attempt', () => {
    it('is of the next attempt, and of the same age', async () => {
      await store.insert(LAPSED);
      const created = (await store.ownRow())!['created_at'];
      await record('recordOverLapsed');
      expect(await ownRow(TIMES)).toMatchObject({ ...RECORDED, attempt: 3, created_at: created });
    });

    it('goes by the clock, not by when its transaction began', async () => {
      await begin();
      const { began } = await lock();
      await store.insert({ locked: '0' });
      const values = [...IDENTITY, 'x', 'failed', 'transaction', 3, 402, HEADERS, 'x', HOUR, began, 2];
      expect((await one.query(store.statements.recordOverLapsed, values)).rowCount).toBe(1);
    });

    it.each<[string, Partial<Row> | undefined, number]>([
      ['that holds its lease by now', {}, 2],
      ['that has ended by now', { status: 'completed', locked: '-1 second' }, 2],
      ['that is another by now', LAPSED, 1],
      ['that was purged', undefined, 2],
    ])('fails for one %s', async (_what, columns, attempt) => {
      if (columns) await store.insert(columns);
      const before = await store.ownRow();
      expect(await sqlStateOf(record('recordOverLapsed', { attempt }))).toBe(NOTHING_WRITTEN);
      await one.query('ROLLBACK');
      expect(await store.ownRow()).toEqual(before);
    });

    it('leaves every other identity alone', async () => {
      await store.insertNeighbours(LAPSED);
      const before = await store.neighbours();
      expect(await sqlStateOf(record('recordOverLapsed'))).toBe(NOTHING_WRITTEN);
      await one.query('ROLLBACK');
      await store.insert(LAPSED);
      await record('recordOverLapsed');
      await one.query('COMMIT');
      expect(await store.neighbours()).toEqual(before);
      expect(await store.ownRow()).toMatchObject({ attempt: 3, owner_token: null });
    });
  });

  describe.each([
    ['record', undefined],
    ['recordOverExpired', EXPIRED],
    ['recordOverLapsed', LAPSED],
  ] as const)('%s', (how, there) => {
    it.each(['COMMIT', 'ROLLBACK', 'COMMIT; BEGIN', 'ROLLBACK AND CHAIN'])(
      'is of no other transaction than that which has the lock: %s',
      async (meanwhile) => {
        if (there) await store.insert(there);
        const before = await store.ownRow();
        await one.query('SELECT pg_sleep(0.002)');
        expect(await sqlStateOf(record(how, { meanwhile }))).toBe(NOT_THE_TRANSACTION);
        await one.query('ROLLBACK');
        expect(await store.ownRow()).toEqual(before);
      },
    );

    it('does not commit in the same piece where it was refused', async () => {
      if (there) await store.insert(there);
      const before = await store.ownRow();
      await expect(record(how, { meanwhile: 'COMMIT; BEGIN' })).rejects.toThrow(
        /the handler has ended its transaction by itself/,
      );
      expect((await one.query('COMMIT')).command).toBe('ROLLBACK');
      expect(await store.ownRow()).toEqual(before);
    });
  });

  describe('the role of the claim', () => {
    const role = async (): Promise<unknown> =>
      (await one.query('SELECT current_user AS "user", current_setting($1) AS role', ['role'])).rows[0];

    const login = async (): Promise<unknown> => (await one.query('SELECT session_user')).rows[0].session_user;

    it('is taken for the record, and the handler’s resumed until the transaction ends', async () => {
      const own = await role();
      await begin();
      await one.query('SET LOCAL ROLE pg_monitor');
      const handlers = await role();
      await one.query(TAKE_ROLE, ['none', await login()]);
      expect(await role()).toEqual(own);
      await one.query(RESUME_ROLE);
      expect(await role()).toEqual(handlers);
      expect(handlers).toEqual({ user: 'pg_monitor', role: 'pg_monitor' });
      await one.query('COMMIT');
      expect(await role()).toEqual(own);
    });

    it('is taken with the user of its session', async () => {
      const own = await role();
      const user = await login();
      await begin();
      await one.query('SET LOCAL SESSION AUTHORIZATION pg_monitor');
      await one.query(TAKE_ROLE, ['none', user]);
      expect([await role(), await login()]).toEqual([own, user]);
      await one.query(RESUME_ROLE);
      expect([await role(), await login()]).toMatchObject([{ user: 'pg_monitor' }, 'pg_monitor']);
      await one.query('ROLLBACK');
    });

    it('is taken although another user has it not', async () => {
      const user = await login();
      await begin();
      await one.query('SET LOCAL SESSION AUTHORIZATION pg_monitor');
      await one.query(TAKE_ROLE, ['pg_read_all_data', user]);
      expect([await role(), await login()]).toMatchObject([{ user: 'pg_read_all_data' }, user]);
      await one.query(RESUME_ROLE);
      expect([await role(), await login()]).toMatchObject([
        { user: 'pg_monitor', role: 'none' },
        'pg_monitor',
      ]);
      await one.query('COMMIT');
      expect(await login()).toBe(user);
    });

    it('takes no user from the session that the handler has set', async () => {
      const user = await login();
      await begin();
      await one.query('SET SESSION AUTHORIZATION pg_monitor');
      await one.query(TAKE_ROLE, ['none', user]);
      await one.query(RESUME_ROLE);
      await one.query('COMMIT');
      expect(await login()).toBe('pg_monitor');
      await one.query('RESET SESSION AUTHORIZATION');
      expect(await login()).toBe(user);
    });

    it('resumes what holds until the transaction ends for no longer', async () => {
      const [own, user] = [await role(), await login()];
      await begin();
      await one.query('SET LOCAL SESSION AUTHORIZATION pg_monitor');
      await one.query('SET LOCAL ROLE pg_read_all_settings');
      await one.query(TAKE_ROLE, ['none', user]);
      await one.query(RESUME_ROLE);
      expect([await role(), await login()]).toMatchObject([{ role: 'pg_read_all_settings' }, 'pg_monitor']);
      await one.query('COMMIT');
      expect([await role(), await login()]).toEqual([own, user]);
    });

    it('comes with the encoding of the driver, for this transaction', async () => {
      const encoding = async (): Promise<unknown> => (await one.query('SHOW client_encoding')).rows[0];
      const before = await encoding();
      await one.query(`SET client_encoding = 'LATIN1'`);
      await begin();
      await one.query(TAKE_ROLE, ['none', await login()]);
      expect(await encoding()).toEqual({ client_encoding: 'UTF8' });
      await one.query('COMMIT');
      expect(await encoding()).toEqual({ client_encoding: 'LATIN1' });
      await one.query('RESET client_encoding');
      expect(await encoding()).toEqual(before);
    });

    it('takes nothing from the session that the handler has set', async () => {
      await begin();
      await one.query('SET ROLE pg_monitor');
      await one.query(TAKE_ROLE, ['none', await login()]);
      await one.query(RESUME_ROLE);
      await one.query('COMMIT');
      expect(await role()).toMatchObject({ role: 'pg_monitor' });
      await one.query('RESET ROLE');
    });

    it('may be another than the session’s', async () => {
      const own = await role();
      await begin();
      await one.query(TAKE_ROLE, ['pg_monitor', await login()]);
      expect(await role()).toMatchObject({ user: 'pg_monitor' });
      await one.query(RESUME_ROLE);
      expect(await role()).toEqual(own);
    });
  });

  describe('look for all', () => {
    /** As it is asked about the identity: an array of clients, one of endpoints and one of keys. */
    const ONE = IDENTITY.map((part) => [part]);

    const lookForAll = async (): Promise<unknown> => {
      const { rows } = await one.query(store.statements.lookForAll, ONE);
      return rows[0];
    };

    it('finds what is completed, of this identity', async () => {
      await store.insertNeighbours({ status: 'completed' });
      expect(await lookForAll()).toBeUndefined();
      await store.insert({ status: 'completed' });
      expect(await lookForAll()).toEqual({
        ...{
          place: '1',
          fingerprint: TEXT_OF.fingerprint,
          status: 'completed',
          mode: 'lease',
          format_version: 1,
        },
        ...{ response_status: 201, response_headers: '[["x","1"]]', response_body: TEXT_OF.body },
        created_at: expect.stringMatching(/^\d{16}$/),
      });
    });

    it('leaves what still runs to the claim', async () => {
      await store.insert();
      expect(await lookForAll()).toBeUndefined();
    });

    it('tells by the clock what has expired', async () => {
      await begin();
      await store.database.query(
        `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
         VALUES ('c', 'e', 'k', 'x', 'completed', 'transaction', 1, clock_timestamp())`,
      );
      expect(await lookForAll()).toBeUndefined();
    });

    it('tells by its place whose each one is', async () => {
      await store.insertNeighbours({ status: 'completed' });
      await store.insert({ status: 'failed' });
      const { rows } = await one.query(store.statements.lookForAll, [
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
        await one.query(`PREPARE look (text[], text[], text[]) AS ${store.statements.lookForAll}`);
        const { rows } = await one.query(`EXPLAIN EXECUTE look ('{c,c}', '{e,e}', '{1,2}')`);
        await one.query('DEALLOCATE look; RESET plan_cache_mode');
        const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
        // That of the table, or of a partition.
        expect(plan).toMatch(/Index Scan using idempotency_records_(identity|\d_pkey)/);
        expect(plan).not.toContain('Seq Scan');
      });
    });
  });

  it('call PostgreSQL’s functions, whatever the search_path finds first', async () => {
    const another = (of: string, type: string): string =>
      `CREATE FUNCTION shadow.${of} RETURNS ${type} LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;`;
    await store.database.query(`CREATE SCHEMA shadow;
      ${another('now()', 'timestamptz')} ${another('clock_timestamp()', 'timestamptz')}
      ${another('pg_backend_pid()', 'int')} ${another('current_setting(text)', 'text')}
      ${another('set_config(text, text, boolean)', 'text')} ${another('encode(bytea, text)', 'text')}
      ${another('pg_try_advisory_xact_lock(bigint)', 'boolean')} ${another('ceil(numeric)', 'numeric')}
      ${another('pg_advisory_xact_lock_shared(bigint)', 'void')}`);
    try {
      await store.insert({ key: 'lapsed', ...LAPSED });
      await store.insert({ key: 'done', status: 'completed' });
      await one.query(`BEGIN; SET LOCAL search_path = shadow, pg_catalog`);
      await expect(one.query('SAVEPOINT a; SELECT now()')).rejects.toThrow('shadowed');
      await one.query('ROLLBACK TO a');
      const { statements } = store;
      const { began } = await lock();
      const user = (await one.query('SELECT session_user AS name')).rows[0].name as string;
      const completed = ['completed', 201, HEADERS, 'x', HOUR];
      const owner = ['c', 'e', 'l', OWNER];
      await one.query(statements.claim, ['8', '9', '9', 'c', 'e', 'l', 'x', 'lease', 1, HOUR, OWNER, 9_000]);
      for (const [text, values] of [
        [statements.look, [...IDENTITY]],
        [statements.lookForAll, [['c'], ['e'], ['done']]],
        [statements.takeOver, ['9', 'c', 'e', 'lapsed', FINGERPRINT, 'lease', 1, HOUR, OWNER, 9_000, 2]],
        [statements.extend, [...owner, 9_000]],
        [statements.fenceLock, ['8', '1234']],
        [statements.completeLease, [...owner, ...completed]],
        [TAKE_ROLE, ['none', user]],
        [
          statements.record,
          [...IDENTITY, 'x', 'completed', 'transaction', 1, 201, HEADERS, 'x', HOUR, began],
        ],
        [RESUME_ROLE, []],
        [statements.find, [...IDENTITY]],
        [statements.purge, [9, '0']],
      ] as const) {
        await one.query(text, [...values]);
      }
      await one.query('COMMIT');
      expect(await store.ownRow()).toMatchObject({ status: 'completed' });
    } finally {
      await one.query('ROLLBACK');
      await store.database.query('DROP SCHEMA shadow CASCADE');
    }
  });

  it('name their table, whatever the search_path and whatever hides it', async () => {
    await store.insert({ status: 'completed', token: OWNER });
    await begin();
    await one.query('SET LOCAL search_path = pg_catalog');
    await one.query(
      'CREATE TEMPORARY TABLE idempotency_records (LIKE public.idempotency_records) ON COMMIT DROP',
    );
    expect(await look()).toMatchObject({ status: 'completed' });
  });
});
