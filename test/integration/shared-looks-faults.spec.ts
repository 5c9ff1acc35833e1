import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import type { ClaimMode } from '../../lib/core/store.js';
import { eventually } from '../helpers/conditions.js';
import { bodiesOf, bodyOf, holdNext, identities, ReplayBench } from '../helpers/replay-bench.js';
import { codeOf, LEASE, TRANSACTION } from '../helpers/store-bench.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';
const ACQUIRE_TIMEOUT = 2_000;
const POOL_SIZE = 4;

describe.each([
  ['transaction', TRANSACTION],
  ['lease', LEASE],
] as const)('replays that share a statement which fails, in %s mode', (_name, mode: ClaimMode) => {
  let bench: ReplayBench;
  let rival: Client;

  beforeAll(async () => {
    bench = await ReplayBench.start(mode, { poolSize: POOL_SIZE, acquireTimeout: ACQUIRE_TIMEOUT });
    rival = new Client({ connectionString: bench.store.database.url });
    await rival.connect();
  });

  afterEach(async () => {
    await rival.query('ROLLBACK');
    await bench.store.idle();
    await bench.store.reset();
  });

  afterAll(async () => {
    await rival.end();
    await bench.close();
  });

  it('are found by their claims when the connection of the statement is lost', async () => {
    const all = identities(12);
    await bench.complete(all);
    let cut = 0;
    const stop = bench.proxy.onClientData(() => (cut++ === 0 ? 'cut-before' : 'forward'));
    expect(bodiesOf(await bench.claimAll(all))).toEqual(all.map(bodyOf));
    stop();
    expect(cut).toBeGreaterThan(0);
  });

  it('are found by their claims when the statement is refused', async () => {
    const all = identities(3);
    await bench.complete(all);
    await rival.query('BEGIN; LOCK TABLE idempotency_records');
    const claims = bench.claimAll(all);
    const waiting = `FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    await eventually(
      async () =>
        (
          await bench.store.database.query(
            `SELECT pg_cancel_backend(pid) ${waiting} AND query LIKE '%unnest%'`,
          )
        ).length === 1,
    );
    await rival.query('COMMIT');
    expect(bodiesOf(await claims)).toEqual(all.map(bodyOf));
  });

  it('do not wait for a connection that has fallen silent, but for a short while', async () => {
    const all = identities(8);
    await bench.complete(all);
    const { held, letGo } = holdNext(bench.proxy);
    const [first, ...others] = all;
    let isAnswered = false;
    const silent = bench.claim(first).finally(() => (isAnswered = true));
    await held;
    expect(bodiesOf(await bench.claimAll(others))).toEqual(others.map(bodyOf));
    expect(isAnswered).toBe(false);
    // It is found without an answer of that connection.
    expect(bodiesOf([await silent])).toEqual([bodyOf(first)]);
    letGo();
  });

  it('end when the whole database is silent', async () => {
    const all = identities(6);
    await bench.complete(all);
    bench.proxy.pause();
    expect(await Promise.all(all.map((identity) => codeOf(bench.claim(identity))))).toEqual(
      all.map(() => UNAVAILABLE),
    );
    bench.proxy.resume();
    await bench.store.idle();
    expect(bodiesOf(await bench.claimAll(all))).toEqual(all.map(bodyOf));
  });

  it('are unavailable when no connection is to be had, each for as long as a request waits', async () => {
    const [late, ...all] = identities(6);
    await bench.complete([late, ...all]);
    const taken = Array.from({ length: POOL_SIZE }, () => bench.store.dataSource.createQueryRunner());
    for (const runner of taken) await runner.connect();
    const begun = performance.now();
    const early = all.map((identity) => codeOf(bench.claim(identity)));
    await eventually(() => performance.now() > begun + ACQUIRE_TIMEOUT / 2);
    const later = bench.claim(late);
    expect(await Promise.all(early)).toEqual(all.map(() => UNAVAILABLE));
    for (const runner of taken) await runner.release();
    expect(bodiesOf([await later])).toEqual([bodyOf(late)]);
  });

  it('are unavailable while the database refuses connections', async () => {
    const all = identities(6);
    await bench.complete(all);
    bench.proxy.refuse();
    bench.proxy.cut();
    await eventually(() => bench.pool.totalCount === 0);
    expect(await Promise.all(all.map((identity) => codeOf(bench.claim(identity))))).toEqual(
      all.map(() => UNAVAILABLE),
    );
    bench.proxy.refuse(false);
    expect(bodiesOf(await bench.claimAll(all))).toEqual(all.map(bodyOf));
  });
});
