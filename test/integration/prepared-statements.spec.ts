import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { currentFrame } from '../../lib/core/ambient.js';
import type { ClaimMode } from '../../lib/core/store.js';
import type { HandlerExecution } from '../../lib/store/handler-execution.js';
import { isPoolerThere, pooledUrlOf } from '../helpers/admin.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { codeOf, LEASE, RESPONSE, TestStore, TRANSACTION, type TestStoreOptions } from '../helpers/store.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
/** What the session keeps prepared of the library's. */
const NAMES = `SELECT substring(name FROM 'idempotency_(.*)_[0-9a-f]{32}$') AS name FROM pg_prepared_statements
                WHERE name LIKE 'idempotency%' ORDER BY 1`;

describe('prepared statements', () => {
  let database: TestDatabase;
  const stores: TestStore[] = [];
  let store: TestStore;
  let requests: number;

  const start = async (options: TestStoreOptions = {}): Promise<void> => {
    // One session, which every request meets.
    store = await TestStore.start({
      ...{ database, url: database.directUrl, poolSize: 1, preparedStatements: true },
      ...options,
    });
    stores.push(store);
  };

  beforeEach(async () => {
    requests = 0;
    database = await createTestDatabase();
  });

  afterEach(async () => {
    for (const each of stores.splice(0)) await each.close();
    await database.drop();
  });

  /** One request with a key of its own, whose handler does that. */
  const request = async (
    mode: ClaimMode,
    handle: () => Promise<unknown> = async () => undefined,
  ): Promise<void> => {
    const execution = await store.execution(mode, {
      identity: { client: 'c', endpoint: 'e', key: String(++requests) },
    });
    execution.run(() => currentFrame())!.enterHandler();
    await execution.run(handle);
    await execution.complete(RESPONSE, 'returned');
    await store.idle();
  };

  const ask = async (sql: string): Promise<Record<string, unknown>[]> => store.dataSource.query(sql);
  const prepared = async (): Promise<unknown[]> => (await ask(NAMES)).map(({ name }) => name);

  describe('on a session of the client’s own', () => {
    it('are the hot ones of a transaction, from its second piece on', async () => {
      await start();
      await request(TRANSACTION);
      expect(await prepared()).toEqual(['record', 'resume_role', 'take_role']);
      await request(TRANSACTION);
      expect(await prepared()).toEqual(['lock', 'look', 'record', 'resume_role', 'take_role']);
    });

    it('are the hot ones of a lease, once its claim was answered', async () => {
      await start();
      const fenced = (): Promise<unknown> =>
        (currentFrame()!.execution as HandlerExecution).transaction(async () => undefined);
      await request(LEASE, fenced);
      expect(await prepared()).toEqual(['completeLease', 'fence', 'fenceLock']);
      await request(LEASE, fenced);
      expect(await prepared()).toEqual(['claim', 'completeLease', 'fence', 'fenceLock']);
    });

    it('are kept and used, not prepared anew', async () => {
      await start();
      for (let round = 0; round < 4; round++) await request(TRANSACTION);
      const [row] = await ask(
        `SELECT generic_plans + custom_plans AS executed FROM pg_prepared_statements WHERE name LIKE 'idempotency_lock%'`,
      );
      expect(Number(row!['executed'])).toBe(3);
    });

    it('are none where nobody wants any', async () => {
      await start({ preparedStatements: false });
      for (const mode of [TRANSACTION, TRANSACTION, LEASE, LEASE]) await request(mode);
      expect(await prepared()).toEqual([]);
    });

    it('are none of a client that sends its statements one by one', async () => {
      await start({ oneByOne: true });
      for (const mode of [TRANSACTION, TRANSACTION, LEASE, LEASE]) await request(mode);
      expect(await prepared()).toEqual([]);
    });
  });

  it('are none where another process answers than the one that greeted', async () => {
    await start();
    store.pool.on('acquire', (client) => Object.assign(client, { processID: 1 }));
    for (const mode of [TRANSACTION, TRANSACTION, LEASE, LEASE]) await request(mode);
    expect(await prepared()).toEqual([]);
  });

  const behindPooler = async (): Promise<void> => {
    await start({ url: pooledUrlOf(database.name), poolSize: 4 });
    for (let round = 0; round < 12; round++) {
      await Promise.all([TRANSACTION, TRANSACTION, LEASE, LEASE].map((mode) => request(mode)));
    }
    const pids = new Set<unknown>();
    // Each transaction may be given another session.
    for (let round = 0; round < 24; round++) {
      const [row] = await ask(
        `SELECT pg_backend_pid() AS pid, count(*)::int AS count FROM pg_prepared_statements WHERE name LIKE 'idempotency%'`,
      );
      expect(row!['count']).toBe(0);
      pids.add(row!['pid']);
    }
    expect(pids.size).toBeGreaterThan(1);
  };
  if (isPoolerThere()) it('are none behind PgBouncer', behindPooler);

  describe.each([
    ['transaction', TRANSACTION],
    ['lease', LEASE],
  ])('that a session has lost, in %s mode', (_name, mode) => {
    beforeEach(async () => {
      await start();
      await request(mode);
      await request(mode);
      expect(await prepared()).not.toEqual([]);
    });

    it.each([
      ['deallocated', 'DEALLOCATE ALL'],
      ['discarded', 'DISCARD ALL'],
      ['changed by a migration', 'ALTER TABLE idempotency_records ALTER format_version TYPE integer'],
    ])('fail no request when they were %s between two', async (_what, statement) => {
      await ask(statement);
      await request(mode);
      await request(mode);
      await request(mode);
    });

    it.each(['DEALLOCATE ALL', 'SELECT 1; DEALLOCATE ALL; SELECT 2'])(
      'fail no request when its own handler made the session forget them, and are never there again: %s',
      async (statement) => {
        await request(mode, () => ask(statement));
        await request(mode);
        await request(mode);
        // In lease mode a handler has no session of the library's.
        if (mode.kind === 'transaction') expect(await prepared()).toEqual([]);
      },
    );

    it('are never there again once it turned out that it had', async () => {
      await ask('DEALLOCATE ALL');
      await request(mode);
      await request(mode);
      expect(await prepared()).toEqual([]);
    });
  });

  it.each([
    ['transaction', TRANSACTION, 'lock'],
    ['lease', LEASE, 'claim'],
  ] as const)(
    'fail no request where another has prepared them in the session, in %s mode',
    async (_name, mode, hot) => {
      await start();
      await ask(`PREPARE "${store.statements.names.get(store.statements[hot])!}" AS SELECT 1`);
      for (let round = 0; round < 3; round++) await request(mode);
    },
  );

  it('that are lost out of sight fail the request, whose last piece finds out, and no other', async () => {
    await start();
    await request(TRANSACTION);
    await request(TRANSACTION);
    const outOfSight = (): Promise<unknown> => ask(`DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$`);
    expect(await codeOf(request(TRANSACTION, outOfSight))).toBe(UNAVAILABLE);
    await store.idle();
    await request(TRANSACTION);
    await request(TRANSACTION);
    expect(await prepared()).toEqual([]);
  });

  it('of replays are those of the look', async () => {
    await start();
    await request(TRANSACTION);
    const claim = (key: string): Promise<unknown> =>
      store.claim(TRANSACTION, { identity: { client: 'c', endpoint: 'e', key } });
    await request(TRANSACTION);
    await store.completeAll(TRANSACTION, [{ client: 'c', endpoint: 'e', key: 'x' }]);
    await ask('DEALLOCATE ALL');
    expect(await claim('1')).toMatchObject({ kind: 'recorded' });
    await store.idle();
    expect(await prepared()).toEqual([]);
    expect(await Promise.all([claim('1'), claim('2'), claim('x')])).toMatchObject([
      { kind: 'recorded' },
      { kind: 'recorded' },
      { kind: 'recorded' },
    ]);
  });
});
