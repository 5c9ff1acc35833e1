import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { EventSubscriber, type EntitySubscriberInterface } from 'typeorm';
import { afterCommit, currentFrame } from '../../lib/core/ambient.js';
import type { ClaimMode, Execution } from '../../lib/core/store.js';
import type { IdempotencyExecution } from '../../lib/idempotency-execution.js';
import { eventually } from '../helpers/conditions.js';
import { attemptOf, codeOf, executionOf, LEASE, RESPONSE, TestStore, TRANSACTION } from '../helpers/store.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const REFUSED = 'IDEMPOTENCY_STORE_REFUSED';
const CONFLICT = 'IDEMPOTENCY_TRANSACTION_CONFLICT';
/** Written by hand for the identity that the store claims, by somebody who has not its lock. */
const OWN_RECORD = `INSERT INTO idempotency_records
    (client, endpoint, key, fingerprint, status, mode, format_version, response_status, expires_at)
  VALUES ('c', 'e', 'k', '\\x0102', 'completed', 'transaction', 1, 201, now() + interval '1 hour')`;
const FINISHED = expect.stringContaining('the transaction of this @Idempotent() handler has ended');

/** Long enough for a claim, and short enough to wait for. */
const BRIEF = 2_000;

/** Resolves when an execution is overdue that has just begun. */
const overdue = (): Promise<unknown> => {
  const due = performance.now() + BRIEF;
  return eventually(() => performance.now() >= due);
};

describe('the store in transaction mode', () => {
  let store: TestStore;
  let rival: Client;

  beforeAll(async () => {
    store = await TestStore.start();
    rival = new Client({ connectionString: store.database.url });
    await rival.connect();
  });

  afterEach(async () => {
    await rival.query('ROLLBACK');
    await store.idle();
    await store.reset();
  });

  afterAll(async () => {
    await rival.end();
    await store.close();
  });

  /** A row that somebody writes by hand, without the lock. */
  const rivalInserts = (): Promise<unknown> => rival.query(OWN_RECORD);

  const claimWaits = (): Promise<unknown> =>
    eventually(async () => {
      const waiting = await store.database.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      if (waiting.length === 0) throw new Error('it does not wait');
    });

  describe('an execution', () => {
    it('commits what was written in it with the record, and gives its connection back', async () => {
      const execution = await store.execution(TRANSACTION);
      expect([execution.attempt, execution.handlerBegan]).toEqual([1, false]);
      await execution.run(() => store.note('a'));
      expect([await store.notes(), await store.row()]).toEqual([[], undefined]);
      await execution.complete(RESPONSE, 'returned');
      expect(await store.notes()).toEqual(['a']);
      expect(await store.row()).toMatchObject({
        ...{ status: 'completed', mode: 'transaction', format_version: 1, fingerprint: Buffer.of(1, 2) },
        ...{ response_status: 201, response_headers: RESPONSE.headers, response_body: RESPONSE.body },
        ...{ created_at: execution.createdAt, secondsKept: 60, owner_token: null, locked_until: null },
      });
    });

    it('that threw undoes what was written in it, records its error, and forgets what was for after it', async () => {
      const done: string[] = [];
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        afterCommit(() => done.push('after'));
        await store.note('a');
      });
      await execution.complete(RESPONSE, 'threw');
      await store.drained();
      expect([await store.notes(), done]).toEqual([[], []]);
      expect(await store.row()).toMatchObject({ status: 'failed', response_status: 201 });
    });

    it('does afterwards what was to be done after its COMMIT', async () => {
      const done: unknown[] = [];
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        afterCommit(async () => done.push(await store.notes(), currentFrame()));
        await store.note('a');
      });
      await execution.complete(RESPONSE, 'returned');
      await store.drained();
      expect(done).toEqual([['a'], undefined]);
    });

    it.each(['release', 'giveUp', 'abandon'] as const)('leaves nothing behind after %s', async (end) => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(() => store.note('a'));
      await (end === 'giveUp' ? execution.giveUp('unsettled') : execution[end]());
      await store.idle();
      expect([await store.notes(), await store.row()]).toEqual([[], undefined]);
      // The second end of an execution is none.
      await execution.release();
      await execution.giveUp('unkeepable');
      const next = await store.execution(TRANSACTION);
      expect(next.attempt).toBe(1);
      await next.release();
    });

    it('lets nobody write once it is over, nor its handler begin', async () => {
      const execution = await store.execution(TRANSACTION);
      const frame = execution.run(() => currentFrame())!;
      frame.enterHandler();
      expect(execution.handlerBegan).toBe(true);
      await execution.complete(RESPONSE, 'returned');
      await expect(execution.run(() => store.note('late'))).rejects.toMatchObject({ message: FINISHED });
      expect(() => frame.enterHandler()).toThrow(expect.objectContaining({ message: FINISHED }));
      expect(() => frame.defer(() => undefined)).toThrow(expect.objectContaining({ message: FINISHED }));
      expect(await store.notes()).toEqual([]);
    });

    it('undoes a nested transaction that nobody waited for', async () => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        await store.note('a');
        const runner = store.dataSource.createQueryRunner();
        await runner.startTransaction();
        await runner.query(`INSERT INTO notes VALUES ('nested')`);
      });
      await execution.complete(RESPONSE, 'returned');
      expect(await store.notes()).toEqual(['a']);
    });

    it('keeps nested transactions that ended, each under a savepoint of its own', async () => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        const nested = (text: string): Promise<void> =>
          store.dataSource.transaction(async (manager) => {
            await manager.query('INSERT INTO notes VALUES ($1)', [text]);
            if (text === 'b') throw new Error('undo this one');
          });
        await Promise.allSettled(['a', 'b', 'c'].map(nested));
      });
      await execution.complete(RESPONSE, 'returned');
      expect(await store.notes()).toEqual(['a', 'c']);
    });

    it('tells its handler that it is over, and why', async () => {
      const handlerOf = async (maxDuration: number): Promise<[() => Promise<void>, AbortSignal]> => {
        const execution = await store.execution(TRANSACTION, { maxDuration });
        const { signal } = execution.run(() => currentFrame())!.execution as IdempotencyExecution;
        expect(signal.aborted).toBe(false);
        return [() => execution.release(), signal];
      };
      const [end, signal] = await handlerOf(20_000);
      await end();
      expect(signal.reason).toMatchObject({ message: 'the execution of this @Idempotent() handler is over' });
      const [endLate, lateSignal] = await handlerOf(BRIEF);
      await overdue();
      await endLate();
      expect(lateSignal.reason).toMatchObject({ error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } });
    });

    it('is given the transaction it runs in', async () => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        const own = currentFrame()!.execution as IdempotencyExecution;
        await own.manager.query(`INSERT INTO notes VALUES ('a')`);
        const inserted = own.transaction((manager) =>
          manager.query(`INSERT INTO notes VALUES ('b') RETURNING text`),
        );
        expect(await inserted).toEqual([{ text: 'b' }]);
        expect([own.mode, own.attempt, own.createdAt]).toEqual(['transaction', 1, execution.createdAt]);
      });
      await execution.release();
      expect(await store.notes()).toEqual([]);
    });
  });

  describe('an end that fails', () => {
    it.each<[string, ClaimMode, string[], string]>([
      ['refused', TRANSACTION, [`INSERT INTO notes VALUES ('a'), ('a')`], 'IDEMPOTENCY_COMMIT_REFUSED'],
      ['of a transaction that was aborted', TRANSACTION, ['SELECT 1/0'], 'IDEMPOTENCY_TRANSACTION_ABORTED'],
      ['behind a record of its own making', TRANSACTION, [OWN_RECORD], CONFLICT],
    ])('%s leaves nothing behind', async (_how, mode, statements, code) => {
      const execution = await store.execution(mode);
      await execution.run(async () => {
        await store.note('written');
        for (const statement of statements) await store.dataSource.query(statement).catch(() => undefined);
      });
      expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe(code);
      expect([await store.notes(), await store.row()]).toEqual([[], undefined]);
    });

    it.each([
      'COMMIT',
      ' rollback',
      'END',
      'ABORT WORK',
      '-- done\n/* now */ COMMIT',
      'ROLLBACK TRANSACTION',
      "PREPARE TRANSACTION 'x'",
    ])('is not for the handler to bring about by %s', async (statement) => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        await store.note('a');
        await expect(store.dataSource.query(statement)).rejects.toThrow('IDEMPOTENCY_TRANSACTION_NOT_YOURS');
        await store.dataSource.query('SAVEPOINT own');
        await store.note('b');
        await store.dataSource.query('ROLLBACK WORK TO own');
      });
      await execution.complete(RESPONSE, 'returned');
      expect(await store.notes()).toEqual(['a']);
    });

    it('aborted at COMMIT itself leaves nothing behind', async () => {
      await store.database.query(
        `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''40001''; END'`,
      );
      await store.database.query(
        'CREATE CONSTRAINT TRIGGER failing AFTER INSERT ON notes INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()',
      );
      try {
        const execution = await store.execution(TRANSACTION);
        await execution.run(() => store.note('a'));
        expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe(CONFLICT);
      } finally {
        await store.database.query('DROP FUNCTION fail CASCADE');
      }
      expect([await store.notes(), await store.row()]).toEqual([[], undefined]);
    });

    it('because the connection was lost leaves nothing behind, and says what it was', async () => {
      const execution = await store.execution(TRANSACTION);
      const lost = execution.run(() => store.dataSource.query('SELECT pg_sleep(1000)'));
      const failing = lost.catch((error: unknown) => error);
      await eventually(async () => {
        await store.cut();
        const open = await store.database.query(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(1000)' AND pid <> pg_backend_pid()`,
        );
        return open.length === 0;
      });
      expect(execution.explain(await failing)).toMatchObject({ error: { code: UNAVAILABLE } });
      // The connection is seen to break a moment after its last statement failed; from then on it explains everything.
      const own = new Error('of the handler');
      await eventually(() => execution.explain(own) !== own);
      expect(execution.explain(own)).toMatchObject({ error: { code: UNAVAILABLE }, cause: own });
      expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe(UNAVAILABLE);
      expect(await store.row()).toBeUndefined();
    });
  });

  describe('what a handler threw', () => {
    const serverError = (code: string): Error => Object.assign(new Error(code), { code, severity: 'ERROR' });
    const fatal = Object.assign(new Error('57P01'), { code: '57P01', severity: 'FATAL' });

    it('is explained by what is behind it', async () => {
      const execution = await store.execution(TRANSACTION);
      const own = new Error('of the handler');
      expect(execution.explain(own)).toBe(own);
      expect(execution.explain(undefined)).toBe(undefined);
      expect(execution.explain(serverError('23505'))).toMatchObject({ code: '23505' });
      expect(execution.explain(serverError('40001'))).toMatchObject({ error: { code: CONFLICT } });
      expect(execution.explain({ driverError: serverError('40P01') })).toMatchObject({
        error: { code: CONFLICT },
      });
      expect(execution.explain(fatal)).toMatchObject({ error: { code: UNAVAILABLE }, cause: fatal });
      await execution.release();
    });

    it('late is explained by that, where the database is behind it', async () => {
      const execution = await store.execution(TRANSACTION, { maxDuration: BRIEF });
      // A process that is held up: its time is over, and it has not heard yet that the server cut the connection.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BRIEF);
      const own = new Error('of the handler');
      expect(execution.explain(own)).toBe(own);
      const late = { error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } };
      expect(execution.explain(serverError('57014'))).toMatchObject(late);
      expect(execution.explain(serverError('40001'))).toMatchObject(late);
      expect(execution.explain(fatal)).toMatchObject(late);
      await execution.release();
    });
  });

  describe('a claim', () => {
    it('finds in progress what another one holds, without a connection of its own afterwards', async () => {
      const execution = await store.execution(TRANSACTION);
      expect(await store.claim(TRANSACTION)).toEqual({ kind: 'in-progress' });
      expect(await store.claim(LEASE)).toEqual({ kind: 'in-progress' });
      await execution.release();
    });

    it('finds what was recorded', async () => {
      const execution = await store.execution(TRANSACTION);
      await execution.complete(RESPONSE, 'returned');
      const record = {
        fingerprint: Buffer.of(1, 2),
        formatVersion: 1,
        status: 'completed',
        createdAt: execution.createdAt,
      };
      expect(await store.claim(TRANSACTION, { fingerprint: Buffer.of(3) })).toEqual({
        kind: 'recorded',
        record: { ...record, response: RESPONSE },
      });
      await store.database.query(
        'UPDATE idempotency_records SET response_headers = NULL, response_body = NULL',
      );
      expect(await store.claim(TRANSACTION)).toEqual({
        kind: 'recorded',
        record: { ...record, response: { status: 201, headers: [], body: Buffer.alloc(0) } },
      });
      await store.database.query('UPDATE idempotency_records SET response_status = NULL');
      expect(await store.claim(LEASE)).toEqual({
        kind: 'recorded',
        record: { ...record, response: undefined },
      });
    });

    it.each(['format_version = 2', `mode = 'later'`])('does not judge a record with %s', async (change) => {
      await (await store.execution(TRANSACTION)).complete(RESPONSE, 'returned');
      await store.database.query(`UPDATE idempotency_records SET ${change}`);
      expect(await codeOf(store.claim(TRANSACTION))).toBe('IDEMPOTENCY_RECORD_UNREADABLE');
      expect(await codeOf(store.claim(LEASE))).toBe('IDEMPOTENCY_RECORD_UNREADABLE');
      await store.age('expires_at');
      const next = await store.execution(TRANSACTION);
      expect(next.attempt).toBe(1);
      await next.release();
    });

    it('takes what has expired', async () => {
      await (await store.execution(TRANSACTION)).complete(RESPONSE, 'returned');
      await store.age('expires_at');
      const execution = await store.execution(TRANSACTION, { fingerprint: Buffer.of(9) });
      expect(await store.claim(TRANSACTION)).toEqual({ kind: 'in-progress' });
      await execution.complete({ ...RESPONSE, status: 202 }, 'returned');
      expect(await store.row()).toMatchObject({
        fingerprint: Buffer.of(9),
        response_status: 202,
        attempt: 1,
      });
    });

    it('does not wait for a purge that is deleting what has expired, but at its end', async () => {
      await (await store.execution(TRANSACTION)).complete(RESPONSE, 'returned');
      await store.age('expires_at');
      await rival.query('BEGIN');
      await rival.query('DELETE FROM idempotency_records');
      // A lease would have to write at once.
      expect(await store.claim(LEASE)).toEqual({ kind: 'in-progress' });
      const execution = await store.execution(TRANSACTION);
      const completing = execution.complete({ ...RESPONSE, status: 202 }, 'returned');
      await claimWaits();
      await rival.query('COMMIT');
      await completing;
      expect(await store.row()).toMatchObject({ response_status: 202, attempt: 1 });
    });

    it.each(['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'])(
      'gives way at its end to what somebody wrote without the lock, under %s',
      async (isolation) => {
        const execution = await store.execution({ ...TRANSACTION, isolation } as ClaimMode);
        await execution.run(() => store.note('written'));
        await rivalInserts();
        expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe(CONFLICT);
        expect([await store.notes(), await store.row()]).toMatchObject([[], { response_status: 201 }]);
        expect(await store.claim(TRANSACTION)).toMatchObject({ kind: 'recorded' });
      },
    );

    it('waits at its end for what somebody is writing without the lock', async () => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(() => store.note('written'));
      await rival.query('BEGIN');
      await rivalInserts();
      const completing = execution.complete(RESPONSE, 'returned');
      await claimWaits();
      await rival.query('ROLLBACK');
      await completing;
      expect(await store.notes()).toEqual(['written']);
    });

    it('runs at the isolation it is asked for, and bounded', async () => {
      const [limit] = await store.limits();
      const show = (mode: ClaimMode): Promise<unknown> =>
        store.execution(mode).then(async (execution) => {
          const [row] = await execution.run(() =>
            store.dataSource.query(
              `SELECT current_setting('transaction_isolation') AS isolation, current_setting('${limit}') AS timeout`,
            ),
          );
          await execution.release();
          return row;
        });
      expect(await show(TRANSACTION)).toEqual({ isolation: 'read committed', timeout: '20s' });
      expect(await show({ ...TRANSACTION, isolation: 'SERIALIZABLE' } as ClaimMode)).toMatchObject({
        isolation: 'serializable',
      });
    });

    it('makes no savepoint where no error is recorded', async () => {
      const execution = await store.execution({ ...TRANSACTION, storesErrors: false } as ClaimMode);
      const back = execution.run(() => store.dataSource.query('ROLLBACK TO SAVEPOINT idempotency_handler'));
      await expect(back).rejects.toMatchObject({ code: '3B001' });
      await execution.release();
    });

    it('says that the server refuses it, and leaves a usable connection', async () => {
      await store.database.query('ALTER TABLE idempotency_records RENAME TO elsewhere');
      try {
        expect(await codeOf(store.claim(TRANSACTION))).toBe(REFUSED);
        expect(await codeOf(store.claim(LEASE))).toBe(REFUSED);
        await store.idle();
        expect(store.pool.totalCount).toBeGreaterThan(0);
      } finally {
        await store.database.query('ALTER TABLE elsewhere RENAME TO idempotency_records');
      }
    });
  });

  describe('an attempt of lease mode whose outcome is unknown', () => {
    const lapsed = async (): Promise<ReturnType<typeof attemptOf>> => {
      const former = await store.execution(LEASE);
      former.abandon();
      await store.age('locked_until');
      const attempt = attemptOf(await store.claim(TRANSACTION));
      // The answer does not wait for the claim to be undone.
      await store.idle();
      return attempt;
    };

    it('is taken over inside the transaction', async () => {
      const attempt = await lapsed();
      expect(attempt).toMatchObject({ attempt: 1, fingerprint: Buffer.of(1, 2) });
      expect(attempt).toMatchObject({ createdAt: (await store.row())!['created_at'] });
      const execution = executionOf(await attempt.takeOver());
      expect([execution.attempt, execution.createdAt]).toEqual([2, attempt.createdAt]);
      expect(await attempt.takeOver()).toEqual({ kind: 'in-progress' });
      await execution.release();
      expect(await store.row()).toMatchObject({ attempt: 1, mode: 'lease', lapsed: true });
    });

    it('is another than was found once somebody was faster', async () => {
      const attempt = await lapsed();
      executionOf(await attemptOf(await store.claim(LEASE)).takeOver()).abandon();
      await store.age('locked_until');
      expect(await attempt.takeOver()).toMatchObject({ kind: 'unresolved', attempt: { attempt: 2 } });
    });
  });
});

describe('a store whose database is silent', () => {
  let store: TestStore;

  beforeAll(async () => {
    store = await TestStore.start({ acquireTimeout: 1_500, poolSize: 1 });
  });

  afterAll(() => store.close());

  it.each([TRANSACTION, LEASE])('is unavailable before long (%j)', async (mode) => {
    const rival = new Client({ connectionString: store.database.url });
    await rival.connect();
    await rival.query('BEGIN');
    await rival.query('LOCK TABLE idempotency_records');
    expect(await codeOf(store.claim(mode))).toBe(UNAVAILABLE);
    await rival.end();
    await store.idle();
    await eventually(async () => (await store.row()) === undefined);
    const execution = await store.execution(mode);
    await execution.release();
  });

  it('takes back each copy of a claim that nobody heard of', async () => {
    // As a copy does that arrives when the first was taken back already.
    await store.database.query(
      `CREATE FUNCTION arrive() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN DROP TRIGGER arrive ON idempotency_records; INSERT INTO idempotency_records SELECT OLD.*; RETURN NULL; END $$`,
    );
    const rival = new Client({ connectionString: store.database.url });
    await rival.connect();
    await rival.query('BEGIN');
    await rival.query(
      'CREATE CONSTRAINT TRIGGER arrive AFTER DELETE ON idempotency_records DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION arrive()',
    );
    await rival.query('LOCK TABLE idempotency_records');
    expect(await codeOf(store.claim(LEASE))).toBe(UNAVAILABLE);
    await rival.query('COMMIT');
    await rival.end();
    const triggers = `SELECT FROM pg_trigger WHERE tgname = 'arrive'`;
    await eventually(async () => (await store.database.query(triggers)).length === 0, { timeoutMs: 20_000 });
    await eventually(async () => (await store.row()) === undefined);
    await store.database.query('DROP FUNCTION arrive');
  });

  it.each([TRANSACTION, LEASE])('is unavailable when no connection is to be had (%j)', async (mode) => {
    const execution = await store.execution(TRANSACTION, {
      identity: { client: 'c', endpoint: 'e', key: 'x' },
    });
    expect(await codeOf(store.claim(mode))).toBe(UNAVAILABLE);
    await execution.release();
  });
});

describe('the store with subscribers', () => {
  const heard: string[] = [];
  let failing: string | undefined;
  let failure: Error;
  let store: TestStore;

  const hear = (event: string): void => {
    heard.push(event);
    if (event === failing) throw failure;
  };

  @EventSubscriber()
  class Listener implements EntitySubscriberInterface {
    beforeTransactionStart = (): void => hear('before start');
    afterTransactionStart = (): void => hear('after start');
    beforeTransactionCommit = (): void => hear('before commit');
    afterTransactionCommit = (): void => hear('after commit');
    beforeTransactionRollback = (): void => hear('before rollback');
    afterTransactionRollback = (): void => hear('after rollback');
  }

  beforeAll(async () => {
    store = await TestStore.start({ subscribers: [Listener] });
  });

  afterEach(async () => {
    failing = undefined;
    heard.length = 0;
    await store.idle();
    await store.reset();
  });

  afterAll(() => store.close());

  const began = ['before start', 'after start'];

  it('tells them of a transaction that commits, once it has', async () => {
    const execution = await store.execution(TRANSACTION);
    expect(heard).toEqual(began);
    await execution.run(() => store.note('a'));
    await execution.complete(RESPONSE, 'returned');
    await store.drained();
    expect(heard).toEqual([...began, 'before commit', 'after commit']);
  });

  it.each([
    ['that is undone', (execution: Execution) => execution.release()],
    ['whose handler threw', (execution: Execution) => execution.complete(RESPONSE, 'threw')],
  ])('tells them of a transaction %s', async (_what, end) => {
    await end(await store.execution(TRANSACTION));
    await store.drained();
    expect(heard).toEqual([...began, 'before rollback', 'after rollback']);
  });

  it('tells them of a COMMIT that failed', async () => {
    const execution = await store.execution(TRANSACTION);
    await execution.run(() => store.dataSource.query(`INSERT INTO notes VALUES ('a'), ('a')`));
    expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe('IDEMPOTENCY_COMMIT_REFUSED');
    expect(heard).toEqual([...began, 'before commit', 'after rollback']);
  });

  it.each([
    ['before start', new Error('of the subscriber'), 'IDEMPOTENCY_RESPONSE_FAILED'],
    ['before commit', new Error('of the subscriber'), 'IDEMPOTENCY_RESPONSE_FAILED'],
    ['before commit', Object.assign(new Error('40001'), { code: '40001', severity: 'ERROR' }), CONFLICT],
  ])('fails where one of them does (%s, %s)', async (event, error, code) => {
    failing = event;
    failure = error;
    const work = async (): Promise<void> =>
      (await store.execution(TRANSACTION)).complete(RESPONSE, 'returned');
    expect(await codeOf(work())).toBe(code);
    await store.idle();
    expect(await store.row()).toBeUndefined();
  });
});
