import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { PooledConnection } from '../../lib/store/connection.js';
import { AcquireTimeoutError } from '../../lib/store/problems.js';
import { BEGIN_LOOK } from '../../lib/store/sql.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { startDatabaseProxy } from '../helpers/tcp-proxy.js';

/** What the server says when it waits for a statement. */
const READY = 'Z\0\0\0\x05I';

describe('a connection of the pool', () => {
  let database: TestDatabase;
  let dataSource: DataSource;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    dataSource = await new DataSource({ type: 'postgres', url: database.url, poolSize: 1 }).initialize();
  });

  afterAll(async () => {
    await dataSource.destroy();
    await database.drop();
  });

  const sleepers = async (): Promise<number> => {
    const [row] = await database.query<{ count: number }>(
      "SELECT count(*)::int AS count FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    );
    return row!.count;
  };

  it('that is discarded in the middle of a statement ends it on the server', async () => {
    const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
    const sleeping = connection.sendAll([{ text: 'SELECT pg_sleep(1000)' }]);
    const ended = expect(sleeping).rejects.toThrow();
    await eventually(async () => (await sleepers()) === 1);
    connection.release(true);
    await ended;
    await eventually(async () => (await sleepers()) === 0);
  });

  it('that comes too late goes back to the pool', async () => {
    const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
    await expect(PooledConnection.acquire(poolOf(dataSource), 1)).rejects.toThrow(AcquireTimeoutError);
    connection.release();
    // The one that nobody waits for any more is handed out first, and given back.
    (await PooledConnection.acquire(poolOf(dataSource), 1000)).release();
    expect(await dataSource.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('that is not to be had leaves no timer behind', async () => {
    const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const ended = await new DataSource({ type: 'postgres', url: database.url }).initialize();
    await ended.destroy();
    const before = timers();
    await expect(PooledConnection.acquire(poolOf(ended), 60_000)).rejects.toThrow();
    expect(timers()).toBe(before);
  });

  it('is given back once', async () => {
    const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
    await connection.sendAll([{ text: 'BEGIN' }]);
    await connection.rollBackAndRelease();
    connection.release();
    connection.release(true);
    expect(await dataSource.query('SELECT pg_backend_pid() > 0 AS alive')).toEqual([{ alive: true }]);
  });

  it('that the server ends in the moment in which it is made does no harm', async () => {
    const proxy = await startDatabaseProxy(database.url);
    const url = proxy.url(database.url);
    const proxied = await new DataSource({ type: 'postgres', url, poolSize: 2 }).initialize();
    const other = await PooledConnection.acquire(poolOf(proxied), 10_000);
    const [held, go] = [deferred(), deferred()];
    proxy.onServerData(async (chunk): Promise<undefined> => {
      if (!chunk.includes(READY)) return;
      held.resolve();
      await go.promise;
    });
    const acquiring = PooledConnection.acquire(poolOf(proxied), 10_000);
    await held.promise;
    await database.query(
      "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query = ''",
    );
    // Its greeting and its end arrive together, and are taken in before any code that awaits the connection.
    go.resolve();
    const connection = await acquiring;
    expect(connection.lost).toBe(true);
    connection.release();
    other.release();
    expect(await proxied.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await proxied.destroy();
    await proxy.close();
  });

  it('that is discarded answers nothing any more, although it stays open for the request to cancel', async () => {
    const proxy = await startDatabaseProxy(database.url);
    const url = proxy.url(database.url);
    const proxied = await new DataSource({ type: 'postgres', url, poolSize: 1 }).initialize();
    const connection = await PooledConnection.acquire(poolOf(proxied), 10_000);
    const [asked, go] = [deferred(), deferred()];
    const known = proxy.connections();
    proxy.onClientData((_, from) => (known.includes(from) ? undefined : new Promise(() => undefined)));
    proxy.onServerData(async (): Promise<undefined> => {
      asked.resolve();
      await go.promise;
    });
    const answer = connection.sendAll([{ text: 'SELECT 1 AS one' }]).then(
      () => 'answered',
      () => 'given up',
    );
    await asked.promise;
    connection.release(true);
    go.resolve();
    expect(await answer).toBe('given up');
    await expect(connection.sendAll([{ text: 'SELECT 2' }])).rejects.toThrow('given back');
    await proxy.close();
    await proxied.destroy();
  });

  describe('whose statement', () => {
    /** A table on which something may be refused. */
    beforeAll(() => database.query('CREATE TABLE notes (text text UNIQUE)'));

    afterEach(() => database.query('TRUNCATE notes'));

    const notes = (): Promise<unknown[]> => database.query('SELECT text FROM notes');
    const note = { text: 'INSERT INTO notes VALUES ($1)', values: ['a'] };

    it('goes alone is in a transaction of its own, whatever the session has for its default', async () => {
      const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
      await connection.sendAll([
        { text: `SET default_transaction_isolation = 'serializable'` },
        { text: 'SET default_transaction_read_only = on' },
      ]);
      const asked = { text: `SELECT current_setting('transaction_isolation') AS level` };
      expect((await connection.sendAlone(asked)).rows).toEqual([{ level: 'read committed' }]);
      expect((await connection.sendAlone(asked, BEGIN_LOOK)).rows).toEqual([{ level: 'read committed' }]);
      await connection.sendAlone(note);
      expect(await notes()).toEqual([{ text: 'a' }]);
      await expect(connection.sendAlone(note, BEGIN_LOOK)).rejects.toMatchObject({ code: '25006' });
      await connection.rollBack();
      connection.release(true);
    });

    it('fails says so, and what was to follow did not happen', async () => {
      const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
      await connection.sendAlone(note);
      await expect(connection.sendAlone(note)).rejects.toMatchObject({ code: '23505' });
      const piece = [{ text: 'BEGIN' }, { text: 'DELETE FROM notes' }, note, note, { text: 'COMMIT' }];
      const { results, error } = await connection.send([{ text: 'ROLLBACK' }, ...piece]);
      expect([results.length, error]).toEqual([4, expect.objectContaining({ code: '23505' })]);
      await expect(connection.sendAll([{ text: 'ROLLBACK' }, { text: 'x' }])).rejects.toMatchObject({
        code: '42601',
      });
      await connection.rollBackAndRelease();
      expect(await notes()).toEqual([{ text: 'a' }]);
    });
  });

  it('that says what it cannot write is asked whether it is a standby, and kept where it is none', async () => {
    const connection = await PooledConnection.acquire(poolOf(dataSource), 1000);
    const readOnly = [{ text: 'BEGIN READ ONLY' }, { text: 'CREATE TABLE never ()' }];
    const { error } = await connection.send(readOnly);
    expect(error).toMatchObject({ code: '25006' });
    expect(await connection.rollBack()).toBe(true);
    expect(connection.reasonOf(error)).toBe(error);
    connection.release();
  });
});
