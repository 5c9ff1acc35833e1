import { AsyncLocalStorage } from 'node:async_hooks';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Identity } from '../../lib/core/identity.js';
import type { ClaimMode } from '../../lib/core/store.js';
import {
  bodiesOf,
  bodyOf,
  codeOf,
  executionOf,
  identities,
  LEASE,
  TestStore,
  TRANSACTION,
} from '../helpers/store.js';
import { holdNext } from '../helpers/tcp-proxy.js';

/** More than go into one statement, and fewer than go into two. */
const CROWD = 40;

/** Text that an array in PostgreSQL's notation has to escape, or could take for something else. */
const AWKWARD = ['NULL', '', '{a,b}', '"', '\\', `\\"'`, ',', ' ', 'ключ-🔑', '$1', '{}', '\n'];

describe.each([
  ['transaction', TRANSACTION],
  ['lease', LEASE],
] as const)('replays of what this process completed, in %s mode', (_name, mode: ClaimMode) => {
  let store: TestStore;

  beforeAll(async () => {
    store = await TestStore.start({ behindProxy: true });
  });

  afterEach(async () => {
    await store.idle();
    await store.reset();
  });

  afterAll(() => store.close());

  /** How many connections of the pool were taken at the same time while that was done. */
  const mostTaken = async (work: () => Promise<unknown>): Promise<number> => {
    let most = 0;
    const onAcquire = (): void => void (most = Math.max(most, store.pool.totalCount - store.pool.idleCount));
    store.pool.on('acquire', onAcquire);
    await work().finally(() => store.pool.off('acquire', onAcquire));
    return most;
  };

  it('share a statement and a connection, and have each its own answer', async () => {
    const all = identities(CROWD);
    await store.completeAll(mode, all);
    let most = 0;
    const cost = await store.costOf(async () => {
      most = await mostTaken(async () => {
        expect(bodiesOf(await store.claimAll(mode, all))).toEqual(all.map(bodyOf));
      });
    });
    expect({ most, ...cost }).toEqual({ most: 1, roundTrips: 2, commits: 2 });
  });

  it('that come while a statement is under way go along with the next', async () => {
    const [first, ...others] = identities(9);
    await store.completeAll(mode, [first, ...others]);
    const cost = await store.costOf(async () => {
      const { held, letGo } = holdNext(store.proxy);
      const leader = store.claim(mode, { identity: first });
      await held;
      const rest = store.claimAll(mode, others);
      letGo();
      expect(bodiesOf([await leader])).toEqual([bodyOf(first)]);
      expect(bodiesOf(await rest)).toEqual(others.map(bodyOf));
    });
    expect(cost).toEqual({ roundTrips: 2, commits: 2 });
  });

  it('are told apart whatever their identities look like', async () => {
    const all = AWKWARD.flatMap((text, index) => {
      const other = AWKWARD[(index + 1) % AWKWARD.length]!;
      return [
        { client: text, endpoint: 'e', key: other },
        { client: other, endpoint: text, key: 'k' },
      ];
    });
    await store.completeAll(mode, all);
    const cost = await store.costOf(async () =>
      expect(bodiesOf(await store.claimAll(mode, all))).toEqual(all.map(bodyOf)),
    );
    expect(cost).toEqual({ roundTrips: 1, commits: 1 });
  });

  it('leave to the claim what is not there any more, each by itself', async () => {
    const all = identities(6);
    const [released, expired, ...others] = all as [Identity, Identity, ...Identity[]];
    await store.completeAll(mode, all);
    const where = 'WHERE (client, endpoint, key) = ($1, $2, $3)';
    const values = ({ client, endpoint, key }: Identity): string[] => [client, endpoint, key];
    await store.database.query(`DELETE FROM idempotency_records ${where}`, values(released));
    await store.database.query(
      `UPDATE idempotency_records SET expires_at = clock_timestamp() ${where}`,
      values(expired),
    );
    const [first, second, ...rest] = await store.claimAll(mode, all);
    expect(bodiesOf(rest)).toEqual(others.map(bodyOf));
    for (const outcome of [first, second]) await executionOf(outcome!).release();
  });

  it('are looked for no more once they were not found', async () => {
    const [identity] = identities(1);
    await store.completeAll(mode, [identity]);
    await store.database.query('TRUNCATE idempotency_records');
    const tripsOf = async (of: Identity): Promise<number> => {
      const release = async (): Promise<void> =>
        executionOf(await store.claim(mode, { identity: of })).release();
      return (await store.costOf(release)).roundTrips;
    };
    const [withLook, without] = [await tripsOf(identity), await tripsOf(identity)];
    expect(withLook).toBe(without + 1);
  });

  it('leave to the claim what has come in its place', async () => {
    const [identity] = identities(1);
    await store.completeAll(mode, [identity]);
    await store.age('expires_at');
    const running = await store.execution(LEASE, { identity });
    expect(await store.claim(mode, { identity })).toMatchObject({ kind: 'in-progress' });
    await store.age('locked_until');
    expect(await store.claim(mode, { identity })).toMatchObject({ kind: 'unresolved' });
    running.abandon();
  });

  it('are refused each by itself where a newer release wrote the record', async () => {
    const all = identities(5);
    const [newer, ...others] = all;
    await store.completeAll(mode, all);
    await store.database.query(
      'UPDATE idempotency_records SET format_version = 99 WHERE (client, endpoint, key) = ($1, $2, $3)',
      [newer.client, newer.endpoint, newer.key],
    );
    const [code, rest] = await Promise.all([
      codeOf(store.claim(mode, { identity: newer })),
      store.claimAll(mode, others),
    ]);
    expect(code).toBe('IDEMPOTENCY_RECORD_UNREADABLE');
    expect(bodiesOf(rest)).toEqual(others.map(bodyOf));
  });

  it('find a tombstone as the claim does', async () => {
    const [identity] = identities(1);
    await store.completeAll(mode, [identity]);
    await store.database.query(
      `UPDATE idempotency_records SET status = 'failed', response_status = NULL, response_headers = NULL, response_body = NULL`,
    );
    const tombstone = { kind: 'recorded', record: { status: 'failed', response: undefined } };
    const cost = await store.costOf(async () =>
      expect(await store.claim(mode, { identity })).toMatchObject(tombstone),
    );
    expect(cost).toEqual({ roundTrips: 1, commits: 1 });
  });

  it('are looked for in the context of none of their requests', async () => {
    const [identity] = identities(1);
    await store.completeAll(mode, [identity]);
    const request = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    store.pool.once('acquire', () => seen.push(request.getStore()));
    const outcome = await request.run('one of many', async () => {
      const found = await store.claim(mode, { identity });
      seen.push(request.getStore());
      return found;
    });
    expect(bodiesOf([outcome])).toEqual([bodyOf(identity)]);
    expect(seen).toEqual([undefined, 'one of many']);
  });
});
