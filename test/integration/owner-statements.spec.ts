import { PARTITIONED } from '../helpers/database.js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Client, QueryResult } from 'pg';
import { eventually } from '../helpers/conditions.js';
import {
  FENCE_SAVEPOINT,
  LEAVE_FENCE_SAVEPOINT,
  statementsFor,
  type Statements,
} from '../../lib/store/sql.js';
import { IDENTITY, LOCK, OWNER, SOMEBODY_ELSE, sqlStateOf, TestStore } from '../helpers/store.js';

const SERIALIZATION_FAILURE = '40001';
const RESPONSE = [201, JSON.stringify([['x-made', '1']]), Buffer.from('made')] as const;
const HOUR = 3_600_000;

type StatementName = Exclude<keyof Statements, 'begin' | 'names'>;

/** The statements of an owner under its token, with what they are given after it. */
const OWNED: readonly [name: StatementName, values: readonly unknown[]][] = [
  ['extend', [1_000]],
  ['completeLease', ['completed', ...RESPONSE, HOUR]],
  ['lapse', []],
  ['takeBack', []],
  ['free', []],
  ['fence', []],
  ['fenceSnapshot', []],
];

const EXPIRES_FROM_COMPLETION = `completed_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS completed,
  expires_at BETWEEN completed_at + interval '1 hour' AND clock_timestamp() + interval '1 hour' AS expires`;

/** What each condition, lock and clock of the statements is there for: without any one of them, one of these fails. */
describe('the statements of who holds an identity', () => {
  let store: TestStore;
  let one: Client;
  let other: Client;

  beforeAll(async () => {
    store = await TestStore.start();
    [one, other] = [await store.connect(), await store.connect()];
  });

  afterEach(() => store.reset());

  afterAll(() => store.close());

  const send = (name: StatementName, values: readonly unknown[]): Promise<QueryResult> =>
    one.query(store.statements[name], [...values]);

  const say = async (name: StatementName, values: readonly unknown[]): Promise<number> => {
    const { rows, rowCount } = await send(name, [...IDENTITY, OWNER, ...values]);
    return name === 'completeLease' ? Number(rows[0].completed) : (rowCount ?? 0);
  };

  /** Begins a transaction whose now() is in the past from here on. */
  const begin = async (isolation = 'READ COMMITTED'): Promise<void> => {
    await one.query(`BEGIN ISOLATION LEVEL ${isolation}`);
    await one.query('CREATE TEMPORARY TABLE began ON COMMIT DROP AS SELECT now() AS at');
  };

  const now = async (facts: string): Promise<unknown> => {
    const { rows } = await one.query(`SELECT ${facts} FROM idempotency_records, began`);
    return rows[0];
  };

  describe.each(OWNED)('%s', (name, values) => {
    it('is for the owner, and for this identity', async () => {
      await store.insertNeighbours();
      const before = await store.neighbours();
      expect(await say(name, values)).toBe(0);
      await store.insert();
      expect(await say(name, values)).toBe(1);
      expect(await store.neighbours()).toEqual(before);
    });

    it.each([SOMEBODY_ELSE, null])('is for nobody where the owner is %s', async (token) => {
      await store.insert({ token });
      const before = await store.ownRow();
      expect(await say(name, values)).toBe(0);
      expect(await store.ownRow()).toEqual(before);
    });

    it('changes nothing that has ended', async () => {
      await store.insert({ status: 'completed' });
      const before = await store.ownRow();
      // A completion that is repeated recognises itself.
      expect(await say(name, values)).toBe(name === 'completeLease' ? 1 : 0);
      expect(await store.ownRow()).toEqual(before);
    });
  });

  it('a completion recognises no other, whatever they have in common', async () => {
    await store.insertNeighbours({ status: 'completed' });
    expect(await say('completeLease', ['completed', ...RESPONSE, HOUR])).toBe(0);
    await store.insert({ status: 'completed', token: SOMEBODY_ELSE });
    expect(await say('completeLease', ['completed', ...RESPONSE, HOUR])).toBe(0);
  });

  it('a completion does not take for its own what is taken over while it waits', async () => {
    await store.insert();
    await other.query('BEGIN');
    await other.query('UPDATE idempotency_records SET owner_token = $1', [SOMEBODY_ELSE]);
    const completing = say('completeLease', ['completed', ...RESPONSE, HOUR]);
    await eventually(async () => {
      const waiting = await store.database.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      if (waiting.length === 0) throw new Error('it does not wait yet');
    });
    await other.query('COMMIT');
    expect(await completing).toBe(0);
  });

  it('a completion records the response, and gives the lease up', async () => {
    await store.insert();
    await say('completeLease', ['failed', ...RESPONSE, HOUR]);
    expect(await store.ownRow(EXPIRES_FROM_COMPLETION)).toMatchObject({
      ...{ status: 'failed', response_status: 201, response_headers: [['x-made', '1']] },
      ...{
        response_body: RESPONSE[2],
        locked_until: null,
        owner_token: OWNER,
        completed: true,
        expires: true,
      },
    });
  });

  it('an extension counts from now', async () => {
    await begin();
    await store.insert();
    await say('extend', [1_000]);
    const facts = `locked_until > at + interval '1 second' AS later, locked_until <= clock_timestamp() + interval '1 second' AS soon`;
    expect(await now(facts)).toEqual({ later: true, soon: true });
  });

  const ENDED = `locked_until BETWEEN at AND clock_timestamp() AS lapsed, owner_token, attempt, status`;

  it('a lapse ends the lease now and for its owner', async () => {
    await begin();
    await store.insert();
    await say('lapse', []);
    expect(await now(ENDED)).toEqual({ lapsed: true, owner_token: null, attempt: 2, status: 'processing' });
  });

  it('a claim that is taken back leaves the attempt before it, as unknown as it was', async () => {
    await begin();
    await store.insert({ attempt: 3 });
    expect(await say('takeBack', [])).toBe(1);
    expect(await now(ENDED)).toEqual({ lapsed: true, owner_token: null, attempt: 2, status: 'processing' });
    expect(await say('takeBack', [])).toBe(0);
  });

  it('a claim that is taken back leaves nothing where nothing was before it', async () => {
    await store.insertNeighbours({ attempt: 1 });
    const before = await store.neighbours();
    expect(await say('takeBack', [])).toBe(0);
    await store.insert({ attempt: 1, token: SOMEBODY_ELSE });
    expect(await say('takeBack', [])).toBe(0);
    await store.database.query(
      'UPDATE idempotency_records SET owner_token = $1 WHERE client = $2 AND key = $3',
      [OWNER, ...['c', 'k']],
    );
    expect(await say('takeBack', [])).toBe(1);
    expect(await store.ownRow()).toBeUndefined();
    expect(await store.neighbours()).toEqual(before);
  });

  it('a claim that is taken back is not what has ended, as the first attempt', async () => {
    await store.insert({ attempt: 1, status: 'completed' });
    expect(await say('takeBack', [])).toBe(0);
    expect(await store.ownRow()).toMatchObject({ status: 'completed' });
  });

  describe('the fence', () => {
    it('shares the lock until its transaction ends', async () => {
      await begin();
      await send('fenceLock', [LOCK, '1234']);
      expect([await store.isLockFree('shared'), await store.isLockFree()]).toEqual([true, false]);
      await one.query('COMMIT');
      expect(await store.isLockFree()).toBe(true);
    });

    it('waits for who holds the lock alone', async () => {
      await other.query('BEGIN');
      await other.query('SELECT pg_advisory_xact_lock($1::bigint)', [LOCK]);
      await begin();
      const fenced = send('fenceLock', [LOCK, '1234']);
      await eventually(async () => {
        const waiting = await store.database.query(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`,
        );
        return waiting.length === 1;
      });
      await other.query('COMMIT');
      await fenced;
    });

    it('notices under REPEATABLE READ what changed after its snapshot', async () => {
      await store.insert();
      await begin('REPEATABLE READ');
      await store.database.query('UPDATE idempotency_records SET owner_token = NULL');
      expect(await sqlStateOf(send('fenceSnapshot', [...IDENTITY, OWNER]))).toBe(SERIALIZATION_FAILURE);
    });

    it('does not keep the row from its owner, nor from another fence', async () => {
      await store.insert();
      await begin('REPEATABLE READ');
      await one.query(FENCE_SAVEPOINT);
      await send('fenceSnapshot', [...IDENTITY, OWNER]);
      await other.query('BEGIN');
      const second = await other.query(store.statements.fenceSnapshot, [...IDENTITY, OWNER]);
      expect(second.rowCount).toBe(1);
      await other.query('ROLLBACK');
      for (const statement of LEAVE_FENCE_SAVEPOINT) await one.query(statement);
      await other.query(store.statements.extend, [...IDENTITY, OWNER, 1_000]);
    });
  });

  // The statement for partitions is right on a plain table too, and not the other way round.
  describe.each([
    ...(PARTITIONED ? [] : [['a plain table', false] as const]),
    ['a partitioned table', true] as const,
  ])('purge of %s', (_what, isPartitioned) => {
    let purge: (batch: number, from?: string) => Promise<{ records: string; until: string | null }>;

    beforeAll(async () => {
      const serverVersion = await store.serverVersion();
      const target = { schema: 'public', name: 'idempotency_records', isPartitioned, serverVersion };
      const { purge: text } = statementsFor(target);
      purge = async (batch, from = '0') => {
        const { rows } = await one.query(text, [batch, from]);
        const { records, until } = rows[0];
        return { records, until };
      };
    });

    /** When the record of a key expires, in microseconds. */
    const expiryOf = async (key: string): Promise<unknown> => {
      const [row] = await store.database.query(
        'SELECT (extract(epoch FROM expires_at) * 1000000)::bigint::text AS micros FROM idempotency_records WHERE key = $1',
        [key],
      );
      return row!['micros'];
    };

    it('deletes what has expired, in batches, and passes over what somebody holds', async () => {
      await store.insertNeighbours({ status: 'completed', expires: '-1 second' });
      await store.insert({ status: 'completed' });
      await other.query('BEGIN');
      await other.query(`SELECT FROM idempotency_records WHERE client = 'another' FOR UPDATE`);
      const records = async (batch: number): Promise<number> => Number((await purge(batch)).records);
      expect([await records(1), await records(9), await records(9)]).toEqual([1, 1, 0]);
      await other.query('ROLLBACK');
      expect(await records(9)).toBe(1);
      expect(await store.ownRow()).toBeDefined();
    });

    it('tells the last expiry of the batch, from which the next one goes on', async () => {
      for (const [key, expires] of [
        ['3', '-1 second'],
        ['1', '-3 seconds'],
        ['2', '-2 seconds'],
      ]) {
        await store.insert({ key, expires, status: 'completed' });
      }
      const until = await expiryOf('2');
      expect(await purge(2)).toEqual({ records: '2', until });
      await store.insert({ key: '0', expires: '-1 hour', status: 'completed' });
      expect(await purge(9, until as string)).toMatchObject({ records: '1' });
      expect(await purge(9)).toMatchObject({ records: '1' });
      expect(await purge(9)).toEqual({ records: '0', until: null });
    });

    it('takes in what expired at the very moment at which the batch before ended', async () => {
      await store.insert({ expires: '-1 second', status: 'completed' });
      const until = await expiryOf('k');
      expect(await purge(1)).toEqual({ records: '1', until });
      await store.database.query(
        `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
         VALUES ('c', 'e', 'same', 'x', 'completed', 'lease', 1,
                 timestamptz '1970-01-01 00:00:00+00' + $1::bigint * interval '1 microsecond')`,
        [until],
      );
      expect(await purge(9, until as string)).toEqual({ records: '1', until });
    });

    it('deletes no record that differs in one part of its identity', async () => {
      await store.insertNeighbours({ status: 'completed' });
      const before = await store.neighbours();
      await store.insert({ status: 'completed', expires: '-1 second' });
      expect(await purge(9)).toMatchObject({ records: '1' });
      expect(await store.neighbours()).toEqual(before);
    });

    it('does not wait for the disk, in its transaction alone', async () => {
      const setting = async (): Promise<unknown> => (await one.query('SHOW synchronous_commit')).rows[0];
      await one.query('SET synchronous_commit = on');
      const before = await setting();
      await begin();
      await purge(1);
      expect(await setting()).toEqual({ synchronous_commit: 'off' });
      await one.query('COMMIT');
      expect(await setting()).toEqual(before);
    });
  });

  describe.each<[StatementName, readonly unknown[]]>([
    ['releaseRecord', []],
    ['settleRecord', [...RESPONSE, HOUR]],
  ])('%s', (name, values) => {
    const ask = async (): Promise<unknown> => (await send(name, [LOCK, ...IDENTITY, ...values])).rows[0];

    it('is for a lapsed attempt of this identity', async () => {
      await store.insertNeighbours({ locked: '-1 second' });
      const before = await store.neighbours();
      expect(await ask()).toEqual({ free: true, done: false, existed: false });
      await store.insert({ locked: '-1 second' });
      expect(await ask()).toEqual({ free: true, done: true, existed: true });
      expect(await store.neighbours()).toEqual(before);
      expect(await store.ownRow(EXPIRES_FROM_COMPLETION)).toEqual(
        name === 'releaseRecord'
          ? undefined
          : expect.objectContaining({
              ...{ status: 'completed', response_status: 201, response_headers: [['x-made', '1']] },
              ...{ response_body: RESPONSE[2], owner_token: null, locked_until: null },
              ...{ completed: true, expires: true },
            }),
      );
    });

    it('is not for what runs, by its lease or by its lock', async () => {
      await store.insert();
      expect(await ask()).toEqual({ free: true, done: false, existed: true });
      await store.database.query(`UPDATE idempotency_records SET locked_until = now() - interval '1 second'`);
      await other.query('BEGIN');
      await other.query('SELECT pg_advisory_xact_lock_shared($1::bigint)', [LOCK]);
      expect(await ask()).toEqual({ free: false, done: false, existed: true });
    });

    it('knows what has ended', async () => {
      await store.insert({ status: 'completed', locked: '-1 second' });
      expect(await ask()).toEqual({ free: true, done: name === 'releaseRecord', existed: true });
    });
  });
});
