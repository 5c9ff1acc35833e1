import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { withClient } from '../helpers/admin.js';
import { cutBeforeCommit, loseCommitAnswer } from '../helpers/commit-faults.js';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

describe('databases for tests', () => {
  const created: TestDatabase[] = [];

  afterEach(async () => {
    await Promise.all(created.splice(0).map((database) => database.drop()));
  });

  it('have the idempotency table, each its own', async () => {
    created.push(...(await Promise.all(Array.from({ length: 4 }, () => createTestDatabase()))));
    for (const database of created) {
      expect(await database.query('SELECT * FROM idempotency_records')).toEqual([]);
    }
    expect(new Set(created.map(({ url }) => url)).size).toBe(4);
  });

  it('are empty when asked for', async () => {
    const database = await createEmptyDatabase();
    created.push(database);
    const sql = "SELECT to_regclass('idempotency_records') AS found, $1::int AS given";
    expect(await database.query(sql, [7])).toEqual([{ found: null, given: 7 }]);
  });

  it('are dropped whoever is connected', async () => {
    const database = await createEmptyDatabase();
    const stranger = new Client({ connectionString: database.url });
    stranger.on('error', () => undefined);
    await stranger.connect();
    await Promise.all([database.drop(), database.drop()]);
    await expect(withClient(database.url, (client) => client.query('SELECT 1'))).rejects.toMatchObject({
      code: '3D000',
    });
  });
});

describe('faults at COMMIT', () => {
  let database: TestDatabase;
  let proxy: TcpProxy;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    await database.query('CREATE TABLE effects (name text)');
    proxy = await startDatabaseProxy(database.url);
  });

  afterAll(async () => {
    await proxy.close();
    await database.drop();
  });

  async function commitThroughProxy(name: string): Promise<void> {
    const client = new Client({ connectionString: proxy.url(database.url) });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN');
    await client.query('INSERT INTO effects VALUES ($1)', [name]);
    await client.query('COMMIT');
    await client.end();
  }

  it('cut before it: nothing is committed', async () => {
    const fault = cutBeforeCommit(proxy);
    await expect(commitThroughProxy('cut')).rejects.toThrow();
    await fault.struck;
    expect(await database.query("SELECT * FROM effects WHERE name = 'cut'")).toEqual([]);
  });

  it('lose the answer: it is committed, and the client does not know', async () => {
    const fault = loseCommitAnswer(proxy);
    await expect(commitThroughProxy('lost answer')).rejects.toThrow();
    await fault.struck;
    expect(await database.query("SELECT * FROM effects WHERE name = 'lost answer'")).toHaveLength(1);
  });

  it('strike once', async () => {
    await commitThroughProxy('afterwards');
    expect(await database.query("SELECT * FROM effects WHERE name = 'afterwards'")).toHaveLength(1);
  });
});
