import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { AcquireTimeoutError, PooledConnection } from '../../lib/postgres/pooled-connection.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';

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

  it('is given back once', async () => {
    const connection = await PooledConnection.acquire(dataSource, 1000);
    await connection.query('BEGIN');
    await connection.rollBackAndRelease();
    connection.release();
    connection.release(true);
    expect(await dataSource.query('SELECT pg_backend_pid() > 0 AS alive')).toEqual([{ alive: true }]);
  });
});
