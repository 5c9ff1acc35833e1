import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Client, QueryResult } from 'pg';
import { eventually } from '../helpers/conditions.js';
import { FENCE_SAVEPOINT, LEAVE_FENCE_SAVEPOINT, type Statements } from '../../lib/store/sql.js';
import { IDENTITY, LOCK, OWNER, SOMEBODY_ELSE, sqlStateOf, TestStore } from '../helpers/store.js';

const SERIALIZATION_FAILURE = '40001';
const INVALID_TEXT = '22P02';
const RESPONSE = [201, JSON.stringify([['x-made', '1']]), Buffer.from('made')] as const;
const HOUR = 3_600_000;

type StatementName = Exclude<keyof Statements, 'begin'>;

/** The statements of an owner under its token, with what they are given after it. */
const OWNED: readonly [name: StatementName, values: readonly unknown[]][] = [
  ['extend', [1_000]],
  ['completeLease', ['completed', ...RESPONSE, HOUR]],
  ['lapse', [0]],
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
    one.query(store.statements[name] as string, [...values]);

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

  it.each([
    ['as it was', 2, 0, 2],
    ['less what never began', 2, 1, 1],
    ['never less than one', 1, 1, 1],
  ])(
    'a lapse ends the lease now and for its owner, and leaves the attempt %s',
    async (_as, attempt, back, left) => {
      await begin();
      await store.insert({ attempt });
      await say('lapse', [back]);
      const facts = 'locked_until BETWEEN at AND clock_timestamp() AS lapsed, owner_token, attempt, status';
      expect(await now(facts)).toEqual({
        lapsed: true,
        owner_token: null,
        attempt: left,
        status: 'processing',
      });
    },
  );

  describe('complete', () => {
    const complete = (): Promise<QueryResult> =>
      send('complete', [...IDENTITY, 'completed', ...RESPONSE, HOUR]);

    it('records the response, to expire from completion', async () => {
      await begin();
      await store.insert({ token: null, locked: null });
      expect((await complete()).rowCount).toBe(1);
      const facts = `status, response_status, response_headers, response_body, completed_at > at AS completed,
        expires_at > at + interval '1 hour' AS expires,
        expires_at <= clock_timestamp() + interval '1 hour' AS "inTime"`;
      expect(await now(facts)).toEqual({
        ...{ status: 'completed', response_status: 201, response_headers: [['x-made', '1']] },
        ...{ response_body: RESPONSE[2], completed: true, expires: true, inTime: true },
      });
    });

    it('is for this identity, while it runs', async () => {
      await store.insertNeighbours();
      const before = await store.neighbours();
      await store.insert({ status: 'failed' });
      const ended = await store.ownRow();
      expect(await sqlStateOf(complete())).toBe(INVALID_TEXT);
      expect(await store.ownRow()).toEqual(ended);
      expect(await store.neighbours()).toEqual(before);
    });
  });

  describe('the fence', () => {
    it('shares the lock until its transaction ends, and bounds that', async () => {
      const names = ['statement_timeout', 'idle_in_transaction_session_timeout'];
      if ((await store.serverVersion()) >= 170_000) names.push('transaction_timeout');
      const settings = async (): Promise<unknown[]> => {
        const { rows } = await one.query('SELECT setting FROM pg_settings WHERE name = ANY ($1)', [names]);
        return rows.map(({ setting }) => setting);
      };
      const before = await settings();
      await begin();
      await send('fenceLock', [LOCK, '1234']);
      expect(await settings()).toEqual(names.map(() => '1234'));
      expect([await store.isLockFree('shared'), await store.isLockFree()]).toEqual([true, false]);
      await one.query('COMMIT');
      expect(await store.isLockFree()).toBe(true);
      expect(await settings()).toEqual(before);
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
      await one.query(LEAVE_FENCE_SAVEPOINT);
      await other.query(store.statements.extend, [...IDENTITY, OWNER, 1_000]);
    });
  });

  describe('purge', () => {
    const purge = async (batch: number): Promise<unknown> =>
      (await send('purge', [batch, '-infinity'])).rows[0]?.['records'];

    it('deletes what has expired, in batches, and passes over what somebody holds', async () => {
      await store.insertNeighbours({ status: 'completed', expires: '-1 second' });
      await store.insert({ status: 'completed' });
      await other.query('BEGIN');
      await other.query(`SELECT FROM idempotency_records WHERE client = 'another' FOR UPDATE`);
      expect([await purge(1), await purge(9), await purge(9)]).toEqual([1, 1, 0]);
      await other.query('ROLLBACK');
      expect(await purge(9)).toBe(1);
      expect(await store.ownRow()).toBeDefined();
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
