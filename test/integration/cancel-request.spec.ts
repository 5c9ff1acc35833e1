import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { PooledConnection } from '../../lib/store/connection.js';
import { eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';

const ROUNDS = 10;

/** Runs through PgBouncer as well, which ignores such a request once the client is gone, and crashes over a careless one. */
describe('a connection that is discarded in the middle of a statement', () => {
  let database: TestDatabase;
  let dataSource: DataSource;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    dataSource = await new DataSource({ type: 'postgres', url: database.url, poolSize: 4 }).initialize();
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

  /** A connection on which a statement runs, and how that ends. */
  const startOne = async (): Promise<{ connection: PooledConnection; ending: Promise<unknown> }> => {
    const connection = await PooledConnection.acquire(poolOf(dataSource), 5_000);
    await connection.sendAll([{ text: 'BEGIN' }]);
    const ending = connection.send([{ text: 'SELECT pg_sleep(1000)' }]).then(({ error }) => error);
    return { connection, ending };
  };

  it('ends the statement on the server, and the others go on', async () => {
    const bystander = await PooledConnection.acquire(poolOf(dataSource), 5_000);
    await bystander.sendAll([{ text: 'BEGIN' }]);
    for (let round = 0; round < ROUNDS; round++) {
      const discarded = await Promise.all([startOne(), startOne()]);
      await eventually(async () => (await sleepers()) === 2);
      for (const { connection } of discarded) connection.release(true);
      for (const { ending } of discarded) expect(await ending).toBeInstanceOf(Error);
      await eventually(async () => (await sleepers()) === 0);
      expect((await bystander.sendAll([{ text: 'SELECT 1 AS one' }]))[0]?.rows).toEqual([{ one: '1' }]);
    }
    await bystander.sendAll([{ text: 'COMMIT' }]);
    bystander.release();
    expect(await dataSource.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});
