import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { ClaimMode } from '../../lib/core/store.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { codeOf, LEASE, RESPONSE, TestStore, TRANSACTION } from '../helpers/store.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';

describe.each([
  ['transaction', TRANSACTION, { pipeline: true }],
  ['transaction', TRANSACTION, { pipeline: false }],
  ['lease', LEASE, { pipeline: true }],
] as const)('statements that a session has lost, in %s mode, %j', (_name, mode: ClaimMode, tuning) => {
  let database: TestDatabase;
  let store: TestStore;

  beforeEach(async () => {
    database = await createTestDatabase();
    // One session, which every request meets; the pooler would prepare anew what it knows of.
    const options = { url: database.directUrl, poolSize: 1, tuning: { ...tuning, preparedStatements: true } };
    store = await TestStore.start({ database, ...options });
  });

  afterEach(async () => {
    await store.close();
    await database.drop();
  });

  const complete = async (key: string): Promise<void> => {
    const identity = { client: 'c', endpoint: 'e', key };
    const execution = await store.execution(mode, { identity });
    await execution.complete(RESPONSE, 'returned');
    await store.idle();
  };

  it.each([
    ['a handler has deallocated them', 'DEALLOCATE ALL'],
    ['a migration has changed what they return', 'ALTER TABLE idempotency_records ALTER attempt TYPE bigint'],
  ])('fail no more than one request where %s', async (_what, statement) => {
    await complete('before');
    await store.dataSource.query(statement);
    // It need not fail: sent one by one, what a claim in transaction mode sends is not prepared.
    const first = await codeOf(complete('first'));
    expect([undefined, UNAVAILABLE]).toContain(first);
    await complete('second');
    await complete('third');
  });
});
