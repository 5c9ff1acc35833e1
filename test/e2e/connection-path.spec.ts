import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Client, type QueryResult } from 'pg';
import { CONSOLE } from '../helpers/pgbouncer.js';
import { pooledUrlOf, THROUGH_POOLER, withClient } from '../helpers/admin.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';

/** More than PgBouncer keeps connections to the server. */
const CLIENTS = 20;

/** What every other end-to-end test relies on: that its application is connected in the way this pass is about. */
describe(`what is between applications and PostgreSQL: ${THROUGH_POOLER ? 'PgBouncer' : 'nothing'}`, () => {
  let database: TestDatabase;
  let clients: Client[];

  beforeAll(async () => {
    database = await createTestDatabase();
    clients = await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        const client = new Client({ connectionString: database.url });
        await client.connect();
        return client;
      }),
    );
  });

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.end()));
    await database.drop();
  });

  const everybody = (sql: string): Promise<QueryResult[]> =>
    Promise.all(clients.map((client) => client.query(sql)));

  /** The server's process that each client is served by, in a transaction that takes a moment. */
  const backends = async (): Promise<number[]> => {
    const results = await everybody('SELECT pg_backend_pid() AS pid FROM pg_sleep(0.05)');
    return results.map(({ rows }) => (rows as { pid: number }[])[0]!.pid);
  };

  it('clients share connections to the server, or have one each', async () => {
    const distinct = new Set(await backends()).size;
    if (THROUGH_POOLER) expect(distinct).toBeLessThan(CLIENTS);
    else expect(distinct).toBe(CLIENTS);
  });

  it('the next transaction of a client is on another connection, or on the same', async () => {
    const [first, second] = [await backends(), await backends()];
    if (THROUGH_POOLER) expect(second).not.toEqual(first);
    else expect(second).toEqual(first);
  });

  it('what a session keeps is lost, or kept', async () => {
    const [client] = clients;
    const seen = new Set<string>();
    await client!.query(`SET idempotency_test.session = 'mine'`);
    for (let count = 0; count < CLIENTS; count++) {
      const { rows } = await client!.query<{ setting: string | null }>(
        `SELECT current_setting('idempotency_test.session', true) AS setting`,
      );
      seen.add(rows[0]!.setting ?? '');
    }
    expect([...seen].sort()).toEqual(THROUGH_POOLER ? ['', 'mine'] : ['mine']);
  });

  it('the console of PgBouncer knows the database in transaction mode, or is not there', async () => {
    const pools = async (): Promise<unknown[]> =>
      withClient(pooledUrlOf(CONSOLE), async (console) => (await console.query('SHOW POOLS')).rows);
    const mine = expect.objectContaining({ database: database.name, pool_mode: 'transaction' });
    if (THROUGH_POOLER) expect(await pools()).toContainEqual(mine);
    else if (process.env['IDEMPOTENCY_TEST_POOLER_URL']) expect(await pools()).not.toContainEqual(mine);
    else await expect(pools()).rejects.toThrow('IDEMPOTENCY_TEST_POOLER_URL is not set');
  });
});
