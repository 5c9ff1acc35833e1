import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { lockNumber } from '../../lib/core/identity.js';
import type { ClaimMode, Execution } from '../../lib/core/store.js';
import { loseCommitAnswer } from '../helpers/commit-faults.js';
import { eventually } from '../helpers/conditions.js';
import { attemptOf, codeOf, executionOf, RESPONSE, TestStore, TRANSACTION } from '../helpers/store.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const UNKNOWN = 'IDEMPOTENCY_OUTCOME_UNKNOWN';
const CONFLICT = 'IDEMPOTENCY_TRANSACTION_CONFLICT';

const MODE = { kind: 'transaction', isolation: undefined, storesErrors: true } as const;

/** A lock that a COMMIT waits for. */
const GATE = 4711;

const TUNINGS = {
  pipelined: { pipeline: true },
  'pipelined and prepared': { pipeline: true, preparedStatements: true },
  prepared: { preparedStatements: true },
} as const;

describe.each(Object.keys(TUNINGS) as (keyof typeof TUNINGS)[])('the store, %s', (name) => {
  let store: TestStore;
  let proxy: TcpProxy;
  let proxied: TestStore;
  let rival: Client;

  beforeAll(async () => {
    store = await TestStore.start({ tuning: TUNINGS[name] });
    proxy = await startDatabaseProxy(store.database.url);
    const url = proxy.url(store.database.url);
    proxied = await TestStore.start({
      database: store.database,
      url,
      tuning: TUNINGS[name],
      acquireTimeout: 1_000,
    });
    rival = new Client({ connectionString: store.database.url });
    await rival.connect();
    await store.database.query(
      `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(${GATE}); RETURN NULL; END'`,
    );
    await store.database.query(
      `CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON notes INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.text = 'waits')
         EXECUTE FUNCTION wait()`,
    );
    await store.database.query(
      `CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''40001''; END'`,
    );
  });

  afterEach(async () => {
    await rival.query('ROLLBACK');
    await store.idle();
    await proxied.idle();
    await store.reset();
  });

  afterAll(async () => {
    await rival.end();
    await proxied.close();
    await proxy.close();
    await store.close();
  });

  const complete = (execution: Execution): Promise<void> => execution.complete(RESPONSE, 'returned');
  const left = async (): Promise<unknown> => [await store.notes(), (await store.row())?.['status']];

  it.each<[string, ClaimMode]>([
    ['', { ...MODE }],
    [' without a savepoint', { ...MODE, storesErrors: false }],
    [' under another isolation', { ...MODE, isolation: 'SERIALIZABLE' }],
  ])('claims and completes%s', async (_how, mode) => {
    const execution = await store.execution(mode);
    const shown = await execution.run(async () => {
      await store.note('a');
      return store.dataSource.query<unknown[]>('SHOW transaction_isolation');
    });
    expect(shown).toEqual([
      {
        transaction_isolation:
          mode.kind === 'transaction' && mode.isolation ? 'serializable' : 'read committed',
      },
    ]);
    await complete(execution);
    expect(await left()).toEqual([['a'], 'completed']);
    expect(await store.claim(mode)).toMatchObject({ kind: 'recorded', record: { response: RESPONSE } });
  });

  it.each(['a new identity', 'an expired record'])(
    'undoes what a handler wrote that threw, but not its claim of %s',
    async (what) => {
      if (what === 'an expired record') {
        await complete(await store.execution(TRANSACTION));
        await store.age('expires_at');
      }
      const execution = await store.execution(TRANSACTION);
      await execution.run(() => store.note('undone'));
      await execution.complete({ ...RESPONSE, status: 402 }, 'threw');
      expect(await left()).toEqual([[], 'failed']);
      expect(await store.row()).toMatchObject({ response_status: 402, attempt: 1, secondsKept: 60 });
    },
  );

  it('undoes what was written under an attempt that was taken over, but not the takeover', async () => {
    await store.execution({ kind: 'lease', lease: 10_000 });
    await store.age('locked_until');
    const execution = executionOf(await attemptOf(await store.claim(TRANSACTION)).takeOver());
    await execution.run(() => store.note('undone'));
    await execution.complete({ ...RESPONSE, status: 402 }, 'threw');
    expect(await left()).toEqual([[], 'failed']);
    expect(await store.row()).toMatchObject({ attempt: 2, mode: 'transaction' });
  });

  it('tries a claim again that gave way, and gives up in the end', async () => {
    await complete(await store.execution(TRANSACTION));
    await store.age('expires_at');
    await store.database.query(
      'CREATE TRIGGER conflicts BEFORE UPDATE ON idempotency_records FOR EACH ROW EXECUTE FUNCTION conflict()',
    );
    try {
      expect(await codeOf(store.claim(TRANSACTION))).toBe(CONFLICT);
    } finally {
      await store.database.query('DROP TRIGGER conflicts ON idempotency_records');
    }
    await complete(await store.execution(TRANSACTION));
  });

  it('gives way where its record does', async () => {
    await store.database.query(
      'CREATE TRIGGER conflicts BEFORE INSERT ON idempotency_records FOR EACH ROW EXECUTE FUNCTION conflict()',
    );
    try {
      const execution = await store.execution(TRANSACTION);
      await execution.run(() => store.note('undone'));
      expect(await codeOf(complete(execution))).toBe(CONFLICT);
      expect(await left()).toEqual([[], undefined]);
    } finally {
      await store.database.query('DROP TRIGGER conflicts ON idempotency_records');
    }
  });

  it('does not claim where a transaction cannot begin', async () => {
    await store.database.query('ALTER TABLE idempotency_records RENAME TO elsewhere');
    try {
      expect(await codeOf(store.claim(TRANSACTION))).toBe(UNAVAILABLE);
    } finally {
      await store.database.query('ALTER TABLE elsewhere RENAME TO idempotency_records');
    }
  });

  it.each<[string, string[], string]>([
    [
      'whose COMMIT a constraint refuses',
      [`INSERT INTO notes VALUES ('a'), ('a')`],
      'IDEMPOTENCY_COMMIT_REFUSED',
    ],
    ['that a swallowed error had aborted', ['SELECT 1/0'], 'IDEMPOTENCY_TRANSACTION_ABORTED'],
    ['that its handler rolled back itself', ['SELECT 1; ROLLBACK'], UNAVAILABLE],
  ])('leaves nothing of a transaction %s', async (_what, statements, code) => {
    const execution = await store.execution(TRANSACTION);
    await execution.run(async () => {
      await store.note('written');
      for (const statement of statements) await store.dataSource.query(statement).catch(() => undefined);
    });
    expect(await codeOf(complete(execution))).toBe(code);
    expect(await left()).toEqual([[], undefined]);
  });

  it.each([
    ['gone', 'DELETE FROM idempotency_records'],
    ['another', `UPDATE idempotency_records SET status = 'failed'`],
  ])('leaves the record as it was that it took over and that is %s, and says so', async (_what, change) => {
    await complete(await store.execution(TRANSACTION));
    await store.age('expires_at');
    const before = await store.row();
    const execution = await store.execution(TRANSACTION);
    await execution.run(async () => {
      await store.note('undone');
      await store.dataSource.query(change);
    });
    await expect(complete(execution)).rejects.toMatchObject({
      error: { code: UNAVAILABLE },
      cause: { message: expect.stringContaining('the record of this request is gone') },
    });
    expect([await store.notes(), await store.row()]).toEqual([[], before]);
  });

  it.each([
    ['before the last piece arrives', 'cut-before', [[], undefined]],
    ['behind it', 'cut-after', [['a'], 'completed']],
  ] as const)(
    'leaves open what came of it when the connection breaks %s',
    async (_when, verdict, expected) => {
      const execution = await proxied.execution(TRANSACTION);
      await execution.run(() => proxied.note('a'));
      const stop = proxy.onClientData((chunk) => (chunk.includes('COMMIT\0') ? verdict : 'forward'));
      expect(await codeOf(complete(execution))).toBe(UNKNOWN);
      stop();
      await eventually(async () => expect(await left()).toEqual(expected));
      await expectSettled(expected[1] === 'completed');
    },
  );

  it('leaves open what came of it when the answer is lost', async () => {
    const execution = await proxied.execution(TRANSACTION);
    await execution.run(() => proxied.note('a'));
    const { struck } = loseCommitAnswer(proxy);
    expect(await codeOf(complete(execution))).toBe(UNKNOWN);
    await struck;
    await expectSettled(true);
  });

  it('knows that nothing came of it when the connection broke before', async () => {
    const execution = await proxied.execution(TRANSACTION);
    await execution.run(() => proxied.note('a'));
    const [backend] = await execution.run(() =>
      proxied.dataSource.query<{ pid: number }[]>('SELECT pg_backend_pid() AS pid'),
    );
    await store.database.query('SELECT pg_terminate_backend($1, 10000)', [backend!.pid]);
    // It is seen to break a moment later; from then on nothing is sent any more.
    const own = new Error('of the handler');
    await eventually(() => execution.explain(own) !== own);
    expect(await codeOf(complete(execution))).toBe(UNAVAILABLE);
    await expectSettled(false);
  });

  it('does not wait for ever for an answer to its claim, and the claim is undone', async () => {
    const stop = proxy.onServerData((chunk) => (chunk.includes('locked_at') ? 'drop' : 'forward'));
    expect(await codeOf(proxied.claim(TRANSACTION))).toBe(UNAVAILABLE);
    stop();
    await eventually(async () => complete(await store.execution(TRANSACTION)));
  });

  it('never cancels a COMMIT that waits', async () => {
    await rival.query('BEGIN');
    await rival.query(`SELECT pg_advisory_xact_lock(${GATE})`);
    const execution = await store.execution(TRANSACTION);
    await execution.run(() => store.note('waits'));
    const ending = codeOf(complete(execution));
    const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = ${GATE} AND NOT granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
    await eventually(async () => (await store.database.query(waiting)).length === 1);
    execution.abandon();
    expect(await ending).toBe(UNKNOWN);
    expect(await store.database.query(waiting)).toHaveLength(1);
    await rival.query('ROLLBACK');
    await eventually(async () => expect(await left()).toEqual([['waits'], 'completed']));
  });

  describe('looks before it claims', () => {
    const others = { identity: { client: 'c', endpoint: 'e', key: 'other' } };

    /** Statements of the claim that were sent meanwhile. */
    const claimsDuring = async (work: () => Promise<unknown>): Promise<number> => {
      let claims = 0;
      const stop = proxy.onClientData((chunk) => {
        if (chunk.includes('BEGIN')) claims++;
        return 'forward';
      });
      await work();
      await proxied.idle();
      stop();
      return claims;
    };

    it('where it completed the request itself, or has found it completed', async () => {
      await complete(await proxied.execution(TRANSACTION));
      await complete(await store.execution(TRANSACTION, others));
      const claim = async (facts = {}): Promise<void> =>
        expect(await proxied.claim(TRANSACTION, facts)).toMatchObject({
          kind: 'recorded',
          record: { status: 'completed', fingerprint: Buffer.of(1, 2), formatVersion: 1, response: RESPONSE },
        });
      expect(await claimsDuring(() => claim())).toBe(0);
      expect(await claimsDuring(() => claim(others))).toBe(1);
      expect(await claimsDuring(() => claim(others))).toBe(0);
    });

    it.each([
      ['expired', `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'`],
      ['was removed', 'DELETE FROM idempotency_records'],
    ])('and claims when the record %s', async (_what, change) => {
      await complete(await proxied.execution(TRANSACTION));
      await store.database.query(change);
      let execution: Execution | undefined;
      expect(
        await claimsDuring(async () => (execution = await proxied.execution(TRANSACTION)).release()),
      ).toBe(1);
      expect(execution).toBeDefined();
    });

    it.each([
      ['format_version = 99', 'IDEMPOTENCY_RECORD_UNREADABLE'],
      [`mode = 'other'`, 'IDEMPOTENCY_RECORD_UNREADABLE'],
    ])('and refuses a record with %s, as the claim does', async (change, code) => {
      await complete(await proxied.execution(TRANSACTION));
      await store.database.query(`UPDATE idempotency_records SET ${change}`);
      expect(await codeOf(proxied.claim(TRANSACTION))).toBe(code);
      expect(await codeOf(store.claim(TRANSACTION))).toBe(code);
    });

    it('and sees that somebody is at work on it again', async () => {
      await complete(await proxied.execution(TRANSACTION));
      await store.database.query('DELETE FROM idempotency_records');
      const execution = await store.execution({ kind: 'lease', lease: 10_000 });
      expect(await proxied.claim(TRANSACTION)).toMatchObject({ kind: 'in-progress' });
      await execution.release();
    });

    it('and waits no longer for the look than for a claim', async () => {
      await complete(await proxied.execution(TRANSACTION));
      await rival.query('BEGIN');
      await rival.query('LOCK TABLE idempotency_records');
      expect(await codeOf(proxied.claim(TRANSACTION))).toBe(UNAVAILABLE);
    });
  });

  /** What a later claim finds. */
  async function expectSettled(isDone: boolean): Promise<void> {
    const outcome = await eventually(async () => {
      const found = await store.claim(TRANSACTION);
      return found.kind !== 'in-progress' && found;
    });
    expect(outcome.kind).toBe(isDone ? 'recorded' : 'claimed');
    if (outcome.kind === 'claimed') await outcome.execution.release();
    // The ROLLBACK of a replay goes behind it.
    await store.idle();
    const lock = lockNumber('"idempotency_records"', { client: 'c', endpoint: 'e', key: 'k' });
    const [row] = await store.database.query<{ free: boolean }>(
      'SELECT pg_try_advisory_xact_lock($1) AS free',
      [lock],
    );
    expect(row!.free).toBe(true);
  }
});
