import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import type { ClaimMode } from '../../lib/core/store.js';
import { eventually } from '../helpers/conditions.js';
import { bodiesOf, bodyOf, codeOf, identities, LEASE, TestStore, TRANSACTION } from '../helpers/store.js';
import { holdNext } from '../helpers/tcp-proxy.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const ACQUIRE_TIMEOUT = 2_000;
const POOL_SIZE = 4;

describe.each([
  ['transaction', TRANSACTION],
  ['lease', LEASE],
] as const)('replays that share a statement which fails, in %s mode', (_name, mode: ClaimMode) => {
  let store: TestStore;
  let rival: Client;

  beforeAll(async () => {
    store = await TestStore.start({
      behindProxy: true,
      poolSize: POOL_SIZE,
      acquireTimeout: ACQUIRE_TIMEOUT,
    });
    rival = new Client({ connectionString: store.database.url });
    await rival.connect();
  });

  afterEach(async () => {
    await rival.query('ROLLBACK');
    await store.idle();
    await store.reset();
  });

  afterAll(async () => {
    await rival.end();
    await store.close();
  });

  it('are found by their claims when the connection of the statement is lost', async () => {
    const all = identities(12);
    await store.completeAll(mode, all);
    let cut = 0;
    const stop = store.proxy.onClientData(() => (cut++ === 0 ? 'cut-before' : 'forward'));
    expect(bodiesOf(await store.claimAll(mode, all))).toEqual(all.map(bodyOf));
    stop();
    expect(cut).toBeGreaterThan(0);
  });

  it('are found by their claims when the statement is refused', async () => {
    const all = identities(3);
    await store.completeAll(mode, all);
    await rival.query('BEGIN; LOCK TABLE idempotency_records');
    const claims = store.claimAll(mode, all);
    const waiting = `FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    await eventually(
      async () =>
        (await store.database.query(`SELECT pg_cancel_backend(pid) ${waiting} AND query LIKE '%unnest%'`))
          .length === 1,
    );
    await rival.query('COMMIT');
    expect(bodiesOf(await claims)).toEqual(all.map(bodyOf));
  });

  it('do not wait for a connection that has fallen silent, but for a short while', async () => {
    const all = identities(8);
    await store.completeAll(mode, all);
    const { held, letGo } = holdNext(store.proxy);
    const [first, ...others] = all;
    let isAnswered = false;
    const silent = store.claim(mode, { identity: first }).finally(() => (isAnswered = true));
    await held;
    expect(bodiesOf(await store.claimAll(mode, others))).toEqual(others.map(bodyOf));
    expect(isAnswered).toBe(false);
    // It is found without an answer of that connection.
    expect(bodiesOf([await silent])).toEqual([bodyOf(first)]);
    letGo();
  });

  it('end when the whole database is silent', async () => {
    const all = identities(6);
    await store.completeAll(mode, all);
    store.proxy.pause();
    expect(await Promise.all(all.map((identity) => codeOf(store.claim(mode, { identity }))))).toEqual(
      all.map(() => UNAVAILABLE),
    );
    store.proxy.resume();
    await store.idle();
    expect(bodiesOf(await store.claimAll(mode, all))).toEqual(all.map(bodyOf));
  });

  it('are unavailable when no connection is to be had, each for as long as a request waits', async () => {
    const [late, ...all] = identities(6);
    await store.completeAll(mode, [late, ...all]);
    const taken = Array.from({ length: POOL_SIZE }, () => store.dataSource.createQueryRunner());
    for (const runner of taken) await runner.connect();
    const begun = performance.now();
    const early = all.map((identity) => codeOf(store.claim(mode, { identity })));
    await eventually(() => performance.now() > begun + ACQUIRE_TIMEOUT / 2);
    const later = store.claim(mode, { identity: late });
    expect(await Promise.all(early)).toEqual(all.map(() => UNAVAILABLE));
    for (const runner of taken) await runner.release();
    expect(bodiesOf([await later])).toEqual([bodyOf(late)]);
  });

  it('are unavailable while the database refuses connections', async () => {
    const all = identities(6);
    await store.completeAll(mode, all);
    store.proxy.refuse();
    store.proxy.cut();
    await eventually(() => store.pool.totalCount === 0);
    expect(await Promise.all(all.map((identity) => codeOf(store.claim(mode, { identity }))))).toEqual(
      all.map(() => UNAVAILABLE),
    );
    store.proxy.refuse(false);
    expect(bodiesOf(await store.claimAll(mode, all))).toEqual(all.map(bodyOf));
  });
});
