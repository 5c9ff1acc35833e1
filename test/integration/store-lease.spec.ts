import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { afterCommit, currentFrame } from '../../lib/core/ambient.js';
import type { Claim, ClaimOutcome, Execution } from '../../lib/core/store.js';
import type { IdempotencyExecution } from '../../lib/idempotency-execution.js';
import { isClaim } from '../helpers/commit-faults.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { attemptOf, codeOf, executionOf, LEASE, RESPONSE, TestStore } from '../helpers/store.js';
import { holdNext, type ProxiedConnection } from '../helpers/tcp-proxy.js';

const LOST = 'IDEMPOTENCY_LEASE_LOST';
const serverError = (code: string): Error => Object.assign(new Error(code), { code, severity: 'ERROR' });

describe('the store in lease mode', () => {
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

  const ownOf = (execution: Execution): IdempotencyExecution =>
    execution.run(() => currentFrame())!.execution as IdempotencyExecution;

  /** An execution whose handler began. */
  const begun = async (facts: Partial<Claim> = {}): Promise<Execution> => {
    const execution = await store.execution(LEASE, facts);
    execution.run(() => currentFrame())!.enterHandler();
    return execution;
  };

  /** The first attempt, whose handler began, has an unknown outcome; the next one has taken over. */
  const second = async (): Promise<Execution> => {
    await (await begun()).giveUp('unsettled');
    return executionOf(await attemptOf(await store.claim(LEASE)).takeOver());
  };

  /** Makes the lease somebody else's. */
  const takeAway = (): Promise<unknown> =>
    store.database.query('UPDATE idempotency_records SET owner_token = gen_random_uuid(), attempt = 2');

  describe('an execution', () => {
    it('is committed before it runs, and has its answer recorded', async () => {
      const execution = await store.execution(LEASE);
      expect(execution).toMatchObject({ attempt: 1, handlerBegan: false });
      expect(await store.row()).toMatchObject({
        ...{ status: 'processing', mode: 'lease', created_at: execution.createdAt, lapsed: false },
        owner_token: expect.any(String),
      });
      expect(await store.claim(LEASE)).toMatchObject({
        kind: 'in-progress',
        remaining: expect.any(Number),
      });
      await execution.run(() => store.note('a'));
      expect(await store.notes()).toEqual(['a']);
      await execution.complete(RESPONSE, 'returned');
      expect(await store.row()).toMatchObject({
        ...{ status: 'completed', response_status: 201, response_headers: RESPONSE.headers },
        ...{ response_body: RESPONSE.body, secondsKept: 60, locked_until: null },
      });
      expect(await store.claim(LEASE)).toMatchObject({ kind: 'recorded', record: { response: RESPONSE } });
    });

    it('is kept for thirty days, or longer where its answer would be', async () => {
      const kept = async (ttl: number): Promise<unknown> => {
        const execution = await store.execution(LEASE, { ttl });
        const [row] = await store.database.query(
          'SELECT extract(epoch FROM expires_at - created_at)::int / 86400 AS days FROM idempotency_records',
        );
        await execution.release();
        return row!['days'];
      };
      expect([await kept(1_000), await kept(40 * 86_400_000)]).toEqual([30, 40]);
    });

    it('records what was thrown, and does what is for afterwards only when it returned', async () => {
      const done: string[] = [];
      const end = async (how: 'returned' | 'threw', key: string): Promise<void> => {
        const execution = await store.execution(LEASE, { identity: { client: 'c', endpoint: 'e', key } });
        execution.run(() => afterCommit(() => done.push(how)));
        await execution.complete(RESPONSE, how);
        expect(() => execution.run(() => afterCommit(() => done.push('late')))).toThrow(
          expect.objectContaining({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' }),
        );
      };
      await end('threw', 'k');
      expect(await store.row()).toMatchObject({ status: 'failed', response_status: 201 });
      await end('returned', 'x');
      await store.drained();
      expect(done).toEqual(['returned']);
    });

    it.each<[string, (execution: Execution) => Promise<void>]>([
      ['release', (execution) => execution.release()],
      ['giveUp', (execution) => execution.giveUp('unsettled')],
    ])('that never began frees its key by %s, and that once', async (_how, end) => {
      const execution = await store.execution(LEASE);
      await end(execution);
      expect(await store.row()).toBeUndefined();
      await takeAway();
      await end(execution);
      expect(() => execution.run(() => currentFrame())!.enterHandler()).toThrow();
      expect(execution.handlerBegan).toBe(false);
    });

    it('that began frees its key where its handler says that nothing happened', async () => {
      await (await begun()).release();
      expect(await store.row()).toBeUndefined();
      await (await second()).giveUp('unsettled');
      const third = executionOf(await attemptOf(await store.claim(LEASE)).takeOver());
      third.run(() => currentFrame())!.enterHandler();
      await third.release();
      expect(await store.row()).toBeUndefined();
    });

    it('that began leaves its outcome unknown, at once', async () => {
      const execution = await begun();
      const { signal } = ownOf(execution);
      await execution.giveUp('unsettled');
      expect(signal.reason).toMatchObject({ message: 'the execution of this @Idempotent() handler is over' });
      expect(await store.row()).toMatchObject({
        status: 'processing',
        lapsed: true,
        attempt: 1,
        owner_token: null,
      });
      const { reason } = signal;
      await execution.giveUp('unsettled');
      expect(signal.reason).toBe(reason);
    });

    it('that ran too long is told so', async () => {
      const execution = await begun({ maxDuration: 1 });
      const { signal } = ownOf(execution);
      const began = performance.now();
      await eventually(() => performance.now() > began + 1);
      await execution.giveUp('unsettled');
      expect(signal.reason).toMatchObject({ error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } });
    });

    it('whose answer cannot be kept leaves a tombstone', async () => {
      await (await begun()).giveUp('unkeepable');
      expect(await store.row()).toMatchObject({ status: 'failed', response_status: null, secondsKept: 60 });
      expect(await store.claim(LEASE)).toMatchObject({ kind: 'recorded', record: { response: undefined } });
    });

    it('that follows another one and never began leaves that as it was', async () => {
      const execution = await second();
      expect(await store.row()).toMatchObject({ attempt: 2, lapsed: false });
      await execution.release();
      expect(await store.row()).toMatchObject({ status: 'processing', attempt: 1, lapsed: true });
    });

    it('that was abandoned says nothing, and its signal is aborted', async () => {
      const execution = await begun();
      const { signal } = ownOf(execution);
      execution.abandon();
      expect(signal.reason).toMatchObject({
        error: { code: LOST, detail: expect.stringContaining('could not be reached') },
      });
      await execution.giveUp('unsettled');
      expect(await store.row()).toMatchObject({ lapsed: false, owner_token: expect.any(String) });
    });

    it('that was overtaken can neither record nor free nor end the lease of its successor', async () => {
      const execution = await begun();
      await takeAway();
      const before = await store.row();
      expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe(LOST);
      expect(await store.row()).toEqual(before);
      for (const end of ['release', 'unsettled', 'unkeepable'] as const) {
        await store.reset();
        const another = await begun();
        await takeAway();
        const taken = await store.row();
        await (end === 'release' ? another.release() : another.giveUp(end));
        expect(await store.row()).toEqual(taken);
      }
    });

    it('that could not be recorded says that it took effect', async () => {
      const execution = await begun();
      await store.database.query('ALTER TABLE idempotency_records RENAME TO elsewhere');
      try {
        expect(await codeOf(execution.complete(RESPONSE, 'returned'))).toBe('IDEMPOTENCY_OUTCOME_UNKNOWN');
      } finally {
        await store.database.query('ALTER TABLE elsewhere RENAME TO idempotency_records');
      }
    });

    it('extends its lease, and hears at once when it is taken away', async () => {
      const execution = await store.execution({ kind: 'lease', lease: 900 });
      const until = async (): Promise<number> => ((await store.row())!['locked_until'] as Date).getTime();
      const first = await until();
      await eventually(async () => (await until()) > first);
      const { signal } = ownOf(execution);
      expect(signal.aborted).toBe(false);
      await takeAway();
      await eventually(() => signal.aborted);
      expect(signal.reason).toMatchObject({ error: { code: LOST } });
      expect(() => execution.run(() => currentFrame())!.enterHandler()).toThrow(
        expect.objectContaining({ error: expect.objectContaining({ code: LOST }) }),
      );
    });

    it('has no manager of its own', async () => {
      const execution = await begun();
      expect(() => ownOf(execution).manager).toThrow(
        expect.objectContaining({ code: 'IDEMPOTENCY_NO_TRANSACTION' }),
      );
      await execution.release();
    });

    it('explains what its handler threw', async () => {
      const execution = await begun();
      const own = new Error('of the handler');
      expect(execution.explain(own)).toBe(own);
      expect(execution.explain(undefined)).toBeUndefined();
      expect(execution.explain('text')).toBe('text');
      expect(execution.explain(serverError('23505'))).toMatchObject({ code: '23505' });
      const conflict = serverError('40001');
      expect(execution.explain(conflict)).toMatchObject({
        error: { code: 'IDEMPOTENCY_TRANSACTION_CONFLICT' },
        cause: conflict,
      });
      await execution.release();
    });
  });

  describe('a claim', () => {
    it('takes what has expired, and begins to count anew', async () => {
      await (await second()).complete(RESPONSE, 'returned');
      await store.age('expires_at');
      const execution = await store.execution(LEASE);
      expect(execution.attempt).toBe(1);
      await execution.release();
      expect(await store.row()).toBeUndefined();
    });

    it('finds in progress what a lock keeps it from, and looks again when that was a rival', async () => {
      await rival.query('BEGIN');
      await rival.query(
        `INSERT INTO idempotency_records
           (client, endpoint, key, fingerprint, status, mode, format_version, response_status, expires_at)
         VALUES ('c', 'e', 'k', '\\x0102', 'completed', 'lease', 1, 201, now() + interval '1 hour')`,
      );
      expect(await store.claim(LEASE)).toEqual({ kind: 'in-progress' });
      const claiming = store.claim(LEASE);
      await eventually(async () => {
        const waiting = await store.database.query(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        if (waiting.length === 0) throw new Error('it does not wait');
      });
      await rival.query('COMMIT');
      expect(await claiming).toMatchObject({ kind: 'recorded' });
    });

    it('finds an attempt whose outcome is unknown, which one may take over', async () => {
      await (await begun()).giveUp('unsettled');
      const { created_at: createdAt } = (await store.row())!;
      const attempts = [attemptOf(await store.claim(LEASE)), attemptOf(await store.claim(LEASE))] as const;
      expect(attempts[0]).toMatchObject({ attempt: 1, fingerprint: Buffer.of(1, 2), createdAt });
      const execution = executionOf(await attempts[0].takeOver());
      expect(execution).toMatchObject({ attempt: 2, createdAt });
      expect(await attempts[1].takeOver()).toEqual({ kind: 'in-progress' });
      await execution.complete(RESPONSE, 'returned');
    });

    it('that is sent again recognises its own token', async () => {
      const proxied = await TestStore.start({
        database: store.database,
        behindProxy: true,
        acquireTimeout: 2_000,
      });
      let claims = 0;
      const lost = new Set<ProxiedConnection>();
      const stops = [
        proxied.proxy.onClientData((chunk, connection) => {
          if (isClaim(chunk) && ++claims === 1) lost.add(connection);
        }),
        proxied.proxy.onServerData((_chunk, connection) => (lost.has(connection) ? 'cut-before' : 'forward')),
      ];
      const execution = await proxied.execution(LEASE);
      expect([claims, execution.attempt]).toEqual([2, 1]);
      expect(await store.row()).toMatchObject({ created_at: execution.createdAt, attempt: 1 });
      expect(await store.claim(LEASE)).toMatchObject({ kind: 'in-progress' });
      for (const stop of stops) stop();
      await execution.complete(RESPONSE, 'returned');
      expect(await store.row()).toMatchObject({ status: 'completed' });
      await proxied.close();
    });

    describe('that was held up on its way is taken back when it arrives, behind', () => {
      let proxied: TestStore;

      beforeEach(async () => {
        await store.database.query(`
          CREATE FUNCTION arrive() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO notes VALUES ('arrived'); RETURN NULL; END $$;
          CREATE TRIGGER arrive AFTER INSERT ON idempotency_records FOR EACH ROW EXECUTE FUNCTION arrive()`);
        proxied = await TestStore.start({
          database: store.database,
          behindProxy: true,
          acquireTimeout: 2_000,
        });
      });

      afterEach(async () => {
        await proxied.close();
        await store.database.query('DROP FUNCTION arrive CASCADE');
      });

      it.each<[string, (outcome: () => Promise<ClaimOutcome>) => Promise<void>]>([
        [
          'a replay',
          async (outcome) => {
            await (await store.execution(LEASE)).complete(RESPONSE, 'returned');
            expect(await outcome()).toMatchObject({ kind: 'recorded' });
            await store.database.query('DELETE FROM idempotency_records');
          },
        ],
        [
          'what runs elsewhere',
          async (outcome) => {
            const other = await store.execution(LEASE);
            expect(await outcome()).toMatchObject({ kind: 'in-progress' });
            await other.release();
          },
        ],
        ['a copy that claimed and was released', async (outcome) => executionOf(await outcome()).release()],
      ])('%s', async (_what, meanwhile) => {
        const { held, letGo } = holdNext(proxied.proxy);
        const claiming = proxied.claim(LEASE);
        await held;
        await meanwhile(() => claiming);
        await eventually(async () => (await store.row()) === undefined);
        await store.database.query('TRUNCATE notes');
        letGo();
        await eventually(async () => (await store.notes()).includes('arrived'));
        await eventually(async () => (await store.row()) === undefined);
      });
    });

    it('cannot take over from an owner inside a fenced transaction', async () => {
      const execution = await begun();
      const inside = deferred();
      const go = deferred();
      const fenced = execution.run(() =>
        ownOf(execution).transaction(async () => {
          inside.resolve();
          await go.promise;
        }),
      );
      await inside.promise;
      await store.age('locked_until');
      expect(await attemptOf(await store.claim(LEASE)).takeOver()).toEqual({ kind: 'in-progress' });
      go.resolve();
      await fenced;
      await execution.release();
    });
  });

  describe('a fenced transaction', () => {
    const fenced = <T>(execution: Execution, work: () => Promise<T>): Promise<T> =>
      execution.run(() => ownOf(execution).transaction(work));

    it('commits what was written in it, whatever its handler does next', async () => {
      const execution = await begun();
      const done: unknown[] = [];
      const result = await fenced(execution, async () => {
        await store.note('a');
        afterCommit(async () => done.push(await store.notes()));
        await ownOf(execution).transaction((manager) => manager.query(`INSERT INTO notes VALUES ('b')`));
        expect(await store.notes()).toEqual([]);
        return 'result';
      });
      await store.drained();
      expect([result, done, await store.notes()]).toEqual(['result', [['a', 'b']], ['a', 'b']]);
      await execution.release();
    });

    it('is no part of that of another execution it is begun in', async () => {
      const execution = await begun();
      const other = await begun({ identity: { client: 'c', endpoint: 'e', key: 'other' } });
      const failing = fenced(execution, async () => {
        await store.note('a');
        await ownOf(other).transaction(() => store.note('b'));
        throw new Error('undo the outer one');
      });
      await expect(failing).rejects.toThrow('undo the outer one');
      expect(await store.notes()).toEqual(['b']);
      await execution.release();
      await other.release();
    });

    it('takes in a nested one that asks for no more than it has', async () => {
      const execution = await begun();
      await fenced(execution, async () => {
        await store.dataSource.transaction('READ COMMITTED', () => store.note('a'));
        const stricter = store.dataSource.transaction('SERIALIZABLE', () => store.note('b'));
        await expect(stricter).rejects.toThrow();
      });
      expect(await store.notes()).toEqual(['a']);
      await execution.release();
    });

    it('is undone when its work throws, which is thrown on', async () => {
      const execution = await begun();
      const own = new Error('of the work');
      const failing = fenced(execution, async () => {
        await store.note('a');
        throw own;
      });
      await expect(failing).rejects.toBe(own);
      await store.idle();
      expect(await store.notes()).toEqual([]);
      expect(execution.explain(own)).toBe(own);
      await execution.release();
    });

    it('is refused to who was overtaken, and leaves no connection behind', async () => {
      const execution = await begun();
      await takeAway();
      expect(await codeOf(fenced(execution, () => store.note('a')))).toBe(LOST);
      await store.idle();
      expect(await store.notes()).toEqual([]);
      await execution.release();
    });

    it('whose connection is lost leaves an unknown outcome', async () => {
      const execution = await begun();
      const error: unknown = await fenced(execution, async () => {
        await store.note('a');
        await store.cut();
        await store.dataSource.query('SELECT 1');
      }).catch((thrown: unknown) => thrown);
      expect(execution.explain(error)).toMatchObject({
        error: { code: 'IDEMPOTENCY_STORE_UNAVAILABLE' },
        cause: error,
      });
      expect(await store.notes()).toEqual([]);
      await execution.release();
    });

    it('that its handler did not wait for is cut when the handler ends', async () => {
      const execution = await begun();
      const inside = deferred();
      const forgotten = fenced(execution, async () => {
        await store.note('a');
        inside.resolve();
        await store.dataSource.query('SELECT pg_sleep(1000)');
      }).catch(() => 'cut');
      await inside.promise;
      await execution.complete(RESPONSE, 'returned');
      expect(await forgotten).toBe('cut');
      expect(await store.notes()).toEqual([]);
    });

    it('says that the server refuses it when it cannot begin', async () => {
      const execution = await begun();
      await store.database.query('ALTER TABLE idempotency_records RENAME TO elsewhere');
      try {
        expect(await codeOf(fenced(execution, () => store.note('a')))).toBe('IDEMPOTENCY_STORE_REFUSED');
      } finally {
        await store.database.query('ALTER TABLE elsewhere RENAME TO idempotency_records');
      }
      await execution.release();
    });
  });
});

describe.each([
  ['in pieces', false],
  ['statement by statement', true],
])('the store in lease mode, %s', (_how, oneByOne) => {
  let store: TestStore;

  beforeAll(async () => {
    store = await TestStore.start({ behindProxy: true, oneByOne });
  });

  afterAll(() => store.close());

  it('costs no more round trips than it must', async () => {
    const run = async (key: string, work: () => Promise<unknown>): Promise<void> => {
      const execution = await store.execution(LEASE, { identity: { client: 'c', endpoint: 'e', key } });
      execution.run(() => currentFrame())!.enterHandler();
      await execution.run(work);
      await execution.complete(RESPONSE, 'returned');
    };
    const nothing = async (): Promise<void> => undefined;
    const fenced = async (): Promise<void> =>
      (currentFrame()!.execution as IdempotencyExecution).transaction(nothing);
    await run('first', fenced);
    // Each statement is between a BEGIN and a COMMIT.
    expect(await store.costOf(() => run('k', nothing))).toEqual({ roundTrips: oneByOne ? 6 : 2, commits: 2 });
    // BEGIN, lock and look; and COMMIT.
    expect(await store.costOf(() => run('fenced', fenced))).toEqual({
      ...{ roundTrips: oneByOne ? 10 : 4, commits: 3 },
    });
    expect(await store.costOf(async () => store.claim(LEASE))).toEqual({
      ...{ roundTrips: oneByOne ? 3 : 1, commits: 1 },
    });
  });
});

describe('the store in lease mode, where transactions are stricter', () => {
  let store: TestStore;
  let strict: TestStore;

  beforeAll(async () => {
    store = await TestStore.start();
    await store.database.query(
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$`,
    );
    strict = await TestStore.start({ database: store.database });
  });

  afterAll(async () => {
    await strict.close();
    await store.close();
  });

  it('a fenced transaction begins again when its row changed while it waited for the fence', async () => {
    const rival = new Client({ connectionString: store.database.url });
    await rival.connect();
    const claim = strict.claimOf({ kind: 'lease', lease: 600 });
    const execution = executionOf(await strict.claim(claim.mode, claim));
    execution.run(() => currentFrame())!.enterHandler();
    const own = execution.run(() => currentFrame())!.execution as IdempotencyExecution;
    await rival.query('BEGIN');
    await rival.query('SELECT pg_advisory_xact_lock($1::bigint)', [strict.lockOf(claim.identity)]);
    const fenced = execution.run(() => own.transaction(() => strict.note('after all')));
    const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`;
    await eventually(async () => (await store.database.query(waiting)).length === 1);
    const until = async (): Promise<number> => ((await store.row())!['locked_until'] as Date).getTime();
    const first = await until();
    await eventually(async () => (await until()) > first);
    await rival.query('COMMIT');
    await rival.end();
    await fenced;
    expect(await store.notes()).toEqual(['after all']);
    await execution.release();
    await strict.idle();
    await store.reset();
  });

  it('a fenced transaction keeps its row from nobody, and is refused to who was overtaken', async () => {
    const execution = await strict.execution({ kind: 'lease', lease: 600 });
    execution.run(() => currentFrame())!.enterHandler();
    const own = execution.run(() => currentFrame())!.execution as IdempotencyExecution;
    const until = async (): Promise<number> => ((await store.row())!['locked_until'] as Date).getTime();
    await execution.run(() =>
      own.transaction(async (manager) => {
        expect(await manager.query('SHOW transaction_isolation')).toEqual([
          { transaction_isolation: 'repeatable read' },
        ]);
        const first = await until();
        await eventually(async () => (await until()) > first);
        await strict.note('a');
      }),
    );
    expect(await store.notes()).toEqual(['a']);
    await store.database.query('UPDATE idempotency_records SET owner_token = gen_random_uuid()');
    expect(await codeOf(execution.run(() => own.transaction(() => strict.note('b'))))).toBe(LOST);
    await execution.release();
    await strict.idle();
  });
});
