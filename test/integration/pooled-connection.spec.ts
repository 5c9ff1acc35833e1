import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { AcquireTimeoutError, PooledConnection } from '../../lib/store/connection.js';
import { deferred, eventually } from '../helpers/conditions.js';
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
    const connection = await PooledConnection.acquire(dataSource, 1000);
    const sleeping = connection.query('SELECT pg_sleep(1000)');
    const ended = expect(sleeping).rejects.toThrow();
    await eventually(async () => (await sleepers()) === 1);
    connection.release(true);
    await ended;
    await eventually(async () => (await sleepers()) === 0);
  });

  it('that comes too late goes back to the pool', async () => {
    const connection = await PooledConnection.acquire(dataSource, 1000);
    await expect(PooledConnection.acquire(dataSource, 1)).rejects.toThrow(AcquireTimeoutError);
    connection.release();
    // The one that nobody waits for any more is handed out first, and given back.
    (await PooledConnection.acquire(dataSource, 1000)).release();
    expect(await dataSource.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('that is not to be had leaves no timer behind', async () => {
    const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const ended = await new DataSource({ type: 'postgres', url: database.url }).initialize();
    await ended.destroy();
    const before = timers();
    await expect(PooledConnection.acquire(ended, 60_000)).rejects.toThrow();
    expect(timers()).toBe(before);
  });

  it('is given back once', async () => {
    const connection = await PooledConnection.acquire(dataSource, 1000);
    await connection.query('BEGIN');
    await connection.rollBackAndRelease();
    connection.release();
    connection.release(true);
    expect(await dataSource.query('SELECT pg_backend_pid() > 0 AS alive')).toEqual([{ alive: true }]);
  });

  it('that the server ends in the moment in which it is made does no harm', async () => {
    const proxy = await startDatabaseProxy(database.url);
    const url = proxy.url(database.url);
    const proxied = await new DataSource({ type: 'postgres', url, poolSize: 2 }).initialize();
    const other = await PooledConnection.acquire(proxied, 10_000);
    const [held, go] = [deferred(), deferred()];
    proxy.onServerData(async (chunk): Promise<undefined> => {
      if (!chunk.includes(READY)) return;
      held.resolve();
      await go.promise;
    });
    const acquiring = PooledConnection.acquire(proxied, 10_000);
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
    const connection = await PooledConnection.acquire(proxied, 10_000);
    const [asked, go] = [deferred(), deferred()];
    const known = proxy.connections();
    proxy.onClientData((_, from) => (known.includes(from) ? undefined : new Promise(() => undefined)));
    proxy.onServerData(async (): Promise<undefined> => {
      asked.resolve();
      await go.promise;
    });
    const answer = connection.query('SELECT 1 AS one').then(
      () => 'answered',
      () => 'given up',
    );
    await asked.promise;
    connection.release(true);
    go.resolve();
    expect(await answer).toBe('given up');
    await expect(connection.query('SELECT 2')).rejects.toThrow('given back');
    await proxy.close();
    await proxied.destroy();
  });
});
