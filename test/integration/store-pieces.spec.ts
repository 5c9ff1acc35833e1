import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import type { ClaimMode, Execution } from '../../lib/core/store.js';
import { isClaim, loseCommitAnswer } from '../helpers/commit-faults.js';
import { eventually } from '../helpers/conditions.js';
import { attemptOf, codeOf, executionOf, LEASE, RESPONSE, TestStore, TRANSACTION } from '../helpers/store.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const UNKNOWN = 'IDEMPOTENCY_OUTCOME_UNKNOWN';
const CONFLICT = 'IDEMPOTENCY_TRANSACTION_CONFLICT';
const NOT_YOURS = 'IDEMPOTENCY_TRANSACTION_NOT_YOURS';
const REFUSED = 'IDEMPOTENCY_STORE_REFUSED';
/** From here on a string is read otherwise than by default, so that what follows it is not seen to be a statement. */
const UNSEEN = 'SET LOCAL standard_conforming_strings = off';
const unseen = (statement: string): string => `SELECT '\\''; ${statement}; --'`;

const MODE = { kind: 'transaction', isolation: undefined, storesErrors: true } as const;

/** A lock that a COMMIT waits for. */
const GATE = 4711;

const WAYS = {
  'in pieces': { preparedStatements: false },
  'in pieces of prepared statements': { preparedStatements: true },
  'statement by statement': { preparedStatements: true, oneByOne: true },
} as const;

describe.each(Object.keys(WAYS) as (keyof typeof WAYS)[])('the store, %s', (name) => {
  const isOneByOne = name === 'statement by statement';

  let store: TestStore;
  let proxy: TcpProxy;
  let proxied: TestStore;
  let rival: Client;

  beforeAll(async () => {
    store = await TestStore.start(WAYS[name]);
    proxy = await startDatabaseProxy(store.database.url);
    const url = proxy.url(store.database.url);
    proxied = await TestStore.start({ database: store.database, url, acquireTimeout: 1_000, ...WAYS[name] });
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

  it('costs no more round trips than it must', async () => {
    const counted = await TestStore.start({ ...WAYS[name], database: store.database, behindProxy: true });
    const identity = { client: 'c', endpoint: 'e', key: 'another' };
    await complete(await counted.execution(TRANSACTION, { identity }));
    const run = async (): Promise<void> => complete(await counted.execution(TRANSACTION));
    const replay = async (): Promise<unknown> => counted.claim(TRANSACTION);
    // BEGIN, lock, look, SAVEPOINT; role, record, role, COMMIT. And BEGIN, look, COMMIT.
    expect(await counted.costOf(run)).toEqual({ roundTrips: isOneByOne ? 8 : 2, commits: 1 });
    expect(await counted.costOf(replay)).toEqual({ roundTrips: isOneByOne ? 3 : 1, commits: 1 });
    await counted.close();
  });

  it('says of a transaction that was aborted by which error', async () => {
    const execution = await store.execution(TRANSACTION);
    await execution.run(async () => {
      for (const statement of ['SELECT 1/0', 'SELECT 1', 'SELEC']) {
        await store.dataSource.query(statement).catch(() => undefined);
      }
    });
    await expect(complete(execution)).rejects.toMatchObject({
      error: { code: 'IDEMPOTENCY_TRANSACTION_ABORTED' },
      cause: { code: '22012' },
    });
  });

  it('locks nothing of the index under SERIALIZABLE before its handler does', async () => {
    const locks = `SELECT FROM pg_locks WHERE mode = 'SIReadLock'
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
    const execution = await store.execution({ ...MODE, isolation: 'SERIALIZABLE' });
    expect(await store.database.query(locks)).toEqual([]);
    await execution.run(() => store.dataSource.query('SELECT FROM notes'));
    expect(await store.database.query(locks)).not.toEqual([]);
    await complete(execution);
  });

  it('finds under SERIALIZABLE at its end who was faster between its look and its lock', async () => {
    const mode = { ...MODE, isolation: 'SERIALIZABLE' } as const;
    const execution = await store.execution(mode);
    await execution.run(() => store.note('undone'));
    await store.insert({ status: 'completed' });
    expect(await codeOf(complete(execution))).toBe(CONFLICT);
    expect(await store.notes()).toEqual([]);
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

  /** Lets the first looks fail with that error; sequences are not rolled back. */
  const failingLooks = async (
    sqlState: string,
    times: number,
    work: () => Promise<void>,
  ): Promise<number> => {
    await store.database.query(`
      CREATE SEQUENCE looks;
      CREATE FUNCTION look() RETURNS boolean LANGUAGE plpgsql AS $$
      BEGIN
        IF nextval('looks') <= ${times} THEN RAISE EXCEPTION USING ERRCODE = '${sqlState}'; END IF;
        RETURN true;
      END $$;
      ALTER TABLE idempotency_records RENAME TO elsewhere;
      CREATE VIEW idempotency_records AS SELECT e.* FROM (SELECT look() OFFSET 0) AS looked, elsewhere e`);
    try {
      await work();
      const [row] = await store.database.query<{ looks: number }>(
        'SELECT last_value::int AS looks FROM looks',
      );
      return row!.looks;
    } finally {
      await store.database.query(`
        DROP VIEW idempotency_records;
        ALTER TABLE elsewhere RENAME TO idempotency_records;
        DROP FUNCTION look;
        DROP SEQUENCE looks`);
    }
  };

  it.each(['40001', '40P01'])(
    'tries a claim again that gave way, and gives up in the end: %s',
    async (sqlState) => {
      const tried = await failingLooks(sqlState, 2, async () =>
        (await store.execution(TRANSACTION)).release(),
      );
      expect(tried).toBe(3);
      const failed = await failingLooks(sqlState, 9, async () =>
        expect(await codeOf(store.claim(TRANSACTION))).toBe(CONFLICT),
      );
      expect(failed).toBe(3);
      await complete(await store.execution(TRANSACTION));
    },
  );

  it.each([
    ['57014', UNAVAILABLE],
    ['XX000', REFUSED],
  ])('does not try a claim again that failed otherwise: %s', async (sqlState, code) => {
    const tried = await failingLooks(sqlState, 1, async () =>
      expect(await codeOf(store.claim(TRANSACTION))).toBe(code),
    );
    expect(tried).toBe(1);
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

  it('does not claim where the table is not there', async () => {
    await store.database.query('ALTER TABLE idempotency_records RENAME TO elsewhere');
    try {
      expect(await codeOf(store.claim(TRANSACTION))).toBe(REFUSED);
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
    ['that its handler rolled back itself', [UNSEEN, unseen('ROLLBACK')], NOT_YOURS],
    ['that its handler rolled back and began anew', [UNSEEN, unseen('ROLLBACK; BEGIN')], NOT_YOURS],
  ])('leaves nothing of a transaction %s', async (_what, statements, code) => {
    const execution = await store.execution(TRANSACTION);
    await execution.run(async () => {
      await store.note('written');
      for (const statement of statements) await store.dataSource.query(statement).catch(() => undefined);
    });
    expect(await codeOf(complete(execution))).toBe(code);
    expect(await left()).toEqual([[], undefined]);
  });

  it.each(['returned', 'threw'] as const)(
    'leaves no record of a transaction that its handler committed itself, and %s',
    async (how) => {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        await store.note('committed');
        await store.dataSource.query(UNSEEN);
        await store.dataSource.query(unseen('COMMIT'));
        await store.note('too');
      });
      expect(await codeOf(execution.complete(RESPONSE, how))).toBe(NOT_YOURS);
      expect(await left()).toEqual([['committed', 'too'], undefined]);
    },
  );

  it('does not let its handler end the transaction, which is whole when that goes on', async () => {
    const execution = await store.execution(TRANSACTION);
    const ended = await execution.run(async () => {
      await store.note('a');
      return store.dataSource.query('COMMIT').catch((error: unknown) => error);
    });
    expect(execution.explain(ended)).toMatchObject({ error: { code: NOT_YOURS } });
    expect(await left()).toEqual([[], undefined]);
    await complete(execution);
    expect(await left()).toEqual([['a'], 'completed']);
  });

  it('records over an expired record that is gone meanwhile', async () => {
    await complete(await store.execution(TRANSACTION));
    await store.age('expires_at');
    const execution = await store.execution(TRANSACTION);
    await store.database.query('DELETE FROM idempotency_records');
    await complete(execution);
    expect(await store.row()).toMatchObject({ status: 'completed', attempt: 1 });
  });

  it('leaves an expired record as it was until it is complete', async () => {
    await complete(await store.execution(TRANSACTION));
    await store.age('expires_at');
    const before = await store.row();
    const execution = await store.execution(TRANSACTION);
    expect(await store.row()).toEqual(before);
    await execution.release();
    expect(await store.row()).toEqual(before);
  });

  it('gives way to a record that somebody wrote without the lock', async () => {
    await complete(await store.execution(TRANSACTION));
    await store.age('expires_at');
    const execution = await store.execution(TRANSACTION);
    await execution.run(() => store.note('undone'));
    await store.database.query(
      `UPDATE idempotency_records SET expires_at = now() + interval '1 hour', attempt = 9`,
    );
    const written = await store.row();
    expect(await codeOf(complete(execution))).toBe(CONFLICT);
    expect([await store.notes(), await store.row()]).toEqual([[], written]);
  });

  it('gives way to the owner of a lapsed attempt who came to an end after all', async () => {
    const owner = await store.execution(LEASE);
    await store.age('locked_until');
    const execution = executionOf(await attemptOf(await store.claim(TRANSACTION)).takeOver());
    await execution.run(() => store.note('undone'));
    await complete(owner);
    const written = await store.row();
    expect(await codeOf(complete(execution))).toBe(CONFLICT);
    expect([await store.notes(), await store.row()]).toEqual([[], written]);
    expect(written).toMatchObject({ status: 'completed', attempt: 1 });
  });

  it('writes its record with the role of its claim, and commits with that of its handler', async () => {
    await store.database.query(`
      CREATE TABLE IF NOT EXISTS written (role text);
      GRANT INSERT ON written, notes TO PUBLIC;
      CREATE OR REPLACE FUNCTION note_role() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO written VALUES (current_user); RETURN NULL; END';
      CREATE CONSTRAINT TRIGGER note_role AFTER INSERT ON notes INITIALLY DEFERRED FOR EACH ROW
        EXECUTE FUNCTION note_role()`);
    try {
      const execution = await store.execution(TRANSACTION);
      await execution.run(async () => {
        await store.dataSource.query('SET LOCAL ROLE pg_monitor');
        await store.note('a');
      });
      await complete(execution);
      expect(await left()).toEqual([['a'], 'completed']);
      expect(await store.database.query('SELECT role FROM written')).toEqual([{ role: 'pg_monitor' }]);
    } finally {
      await store.database.query('DROP FUNCTION note_role CASCADE; DROP TABLE written');
    }
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
    const claimed = new Set<unknown>();
    const stops = [
      proxy.onClientData((chunk, connection) => {
        if (isClaim(chunk)) claimed.add(connection);
      }),
      proxy.onServerData((_chunk, connection) => (claimed.has(connection) ? 'drop' : 'forward')),
    ];
    expect(await codeOf(proxied.claim(TRANSACTION))).toBe(UNAVAILABLE);
    expect(claimed.size).toBe(1);
    for (const stop of stops) stop();
    // Before the server's own limit does it.
    const patience = { timeoutMs: 10_000 };
    await eventually(async () => complete(await store.execution(TRANSACTION)), patience);
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
        if (isClaim(chunk)) claims++;
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
    const [row] = await store.database.query<{ free: boolean }>(
      'SELECT pg_try_advisory_xact_lock($1) AS free',
      [store.lockOf()],
    );
    expect(row!.free).toBe(true);
  }
});
