import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { statementsFor } from '../../lib/store/sql.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';

const FINGERPRINT = Buffer.from('the same request');
const { takeOver } = statementsFor({
  ...{ schema: 'public', name: 'idempotency_records', isPartitioned: false, serverVersion: 180_000 },
});

describe('a takeover', () => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  afterEach(() => database.query('TRUNCATE idempotency_records'));

  afterAll(() => database.drop());

  const record = (
    status: string,
    attempt: number,
    expires: string,
    locked: string | null,
  ): Promise<unknown> =>
    database.query(
      `INSERT INTO idempotency_records
         (client, endpoint, key, fingerprint, status, mode, format_version, attempt, expires_at, locked_until)
       VALUES ('c', 'e', 'k', $1, $2, 'lease', 1, $3, now() + $4::interval, now() + $5::interval)`,
      [FINGERPRINT, status, attempt, expires, locked],
    );

  /** Of the attempt that was found lapsed, or with null of a record that was found expired. */
  const take = async (lapsed: number | null, fingerprint = FINGERPRINT): Promise<number[]> => {
    const token = '00000000-0000-4000-8000-000000000001';
    const values = [7, 'c', 'e', 'k', fingerprint, 'lease', 1, 60_000, token, 1_000, lapsed];
    return (await database.query<{ attempt: number }>(takeOver, values)).map(({ attempt }) => attempt);
  };

  it('takes the attempt that was found lapsed, as the next one', async () => {
    await record('processing', 2, '1 hour', '-1 second');
    expect(await take(2)).toEqual([3]);
  });

  it('takes a record that was found expired, as the first attempt', async () => {
    await record('completed', 2, '-1 second', null);
    expect(await take(null)).toEqual([1]);
  });

  it.each([
    ['what lapsed after it was found expired', null, FINGERPRINT],
    ['an attempt that came and lapsed since', 1, FINGERPRINT],
    ['the lapsed attempt of another request', 2, Buffer.from('another request')],
  ])('leaves alone %s', async (_what, lapsed, fingerprint) => {
    await record('processing', 2, '1 hour', '-1 second');
    expect(await take(lapsed, fingerprint)).toEqual([]);
  });

  it('leaves alone an attempt that holds its lease', async () => {
    await record('processing', 2, '1 hour', '1 hour');
    expect(await take(2)).toEqual([]);
    expect(await take(null)).toEqual([]);
  });
});
