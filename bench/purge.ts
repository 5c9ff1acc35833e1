/*
 * Question: do requests notice the purge, and does the table stay as large as it has to be?
 *
 * Variants: 200 requests a second at a constant rate, each timed from when it was due, while nothing else happens, and while
 * the library deletes a million expired records. Then the same again, several times over: sizes after each filling and after
 * each purge, once autovacuum has been there. Bloat is told by pgstattuple where the server has it.
 *
 * To be reached: p99 at most 1.25 times what it is without purge; sizes that do not grow from cycle to cycle.
 *
 * Knobs: see KNOBS.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { WALLETS } from './apps/shop.js';
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { readFlags, type Settings } from './kit/flags.js';
import type { AppLoad } from './kit/load-maker.js';
import type { LoadResult } from './kit/load-messages.js';
import { warmUp } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import { fillRecords, recordSizes } from './kit/records.js';
import type { Stage } from './kit/stage.js';
import { median, round } from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  records: 1_000_000,
  rate: 200,
  cycles: 5,
  /** Of each measurement without purge; with it, as long as the purge takes. */
  seconds: 15,
  /** Seconds to wait for autovacuum before the benchmark does its work. */
  autovacuum: 90,
  side: 'transaction',
  adapter: 'express',
  node: '24',
  'warm-up': 1500,
} as const;

type Knobs = Settings<typeof KNOBS>;

export const purge: Benchmark = {
  name: 'purge',
  file: 'purge',
  smoke: ['--records=3000', '--cycles=1', '--seconds=0.2', '--autovacuum=0', '--node=own', '--warm-up=20'],
  run,
};

const TARGET = 1.25;
/** Connections that the requests that are due may take: far more than the rate needs. */
const CONNECTIONS = 64;
const SHORTEST_MS = 100;

interface Scene {
  readonly stage: Stage;
  readonly knobs: Knobs;
  readonly database: Database;
  readonly app: App;
  readonly hasPgstattuple: boolean;
}

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const database = await stage.shop();
  const adapter = knobs.adapter === 'fastify' ? 'fastify' : 'express';
  const node = findNode(knobs.node);
  // Its own timer would purge when it is not to.
  const app = await stage.app({ side: knobs.side, adapter, database, node, purgeTimer: false });
  const hasPgstattuple = await database.query('CREATE EXTENSION pgstattuple').then(
    () => true,
    () => false,
  );
  await warmUp(stage, app, knobs['warm-up']);
  const scene: Scene = { stage, knobs, database, app, hasPgstattuple };
  const results = [];
  for (let cycle = 1; cycle <= knobs.cycles; cycle++) {
    results.push({ cycle, ...(await measureCycle(scene, cycle)) });
    console.error(`Cycle ${cycle} of ${knobs.cycles}`);
  }
  await app.end();
  console.log(
    table(
      Object.keys(results[0]!),
      results.map((row) => Object.values(row)),
    ),
  );
  const ratio = round(median(results.map(({ p99_purge_ms, p99_quiet_ms }) => p99_purge_ms / p99_quiet_ms)));
  console.log(`\np99 with purge over without, median of the cycles: ${ratio}; to be reached: ${TARGET}`);
  if (!hasPgstattuple)
    console.log('pgstattuple is not on this server: bloat is told by the sizes after vacuum alone.');
  return { settings: knobs, results, p99_ratio: ratio, target: TARGET };
}

async function measureCycle(scene: Scene, cycle: number) {
  const { stage, knobs, database, app } = scene;
  await makeExpired(scene, cycle);
  await stage.postgres.checkpoint();
  const filled = await recordSizes(database);
  const milliseconds = knobs.seconds * 1000;
  const quiet = await stage.load.run(app, loadOf(knobs, milliseconds));
  const { result, deleted, seconds } = await whilePurging(scene);
  if (deleted !== knobs.records)
    throw new Error(`Of ${knobs.records} expired records ${deleted} were deleted`);
  const left = await sizesAfterVacuum(scene);
  return {
    p50_quiet_ms: round(quiet.p50),
    p50_purge_ms: round(result.p50),
    p99_quiet_ms: round(quiet.p99),
    p99_purge_ms: round(result.p99),
    purge_s: round(seconds),
    deleted_per_s: Math.round(deleted / seconds),
    filled_table_mb: megabytes(filled.table),
    filled_index_mb: megabytes(filled.indexes),
    ...left,
  };
}

async function makeExpired({ stage, knobs, database, app }: Scene, cycle: number): Promise<void> {
  const key = `the-record-that-is-copied-${cycle}`;
  const source = { kind: 'same', body: '{"what":"an order of a benchmark"}', key } as const;
  await stage.load.run(app, { path: '/extras/orders', connections: 1, requests: 1, source });
  const expires = `clock_timestamp() - random() * interval '1 hour'`;
  await fillRecords(database, key, { series: `expired${cycle}-`, count: knobs.records, expires });
}

function loadOf({ rate }: Knobs, milliseconds?: number): AppLoad {
  const source = { kind: 'first', wallets: WALLETS } as const;
  const load = { path: '/orders', connections: CONNECTIONS, rate, source };
  return milliseconds === undefined ? load : { ...load, milliseconds };
}

/** The load lasts as long as the purge. */
async function whilePurging({
  stage,
  knobs,
  app,
}: Scene): Promise<{ result: LoadResult; deleted: number; seconds: number }> {
  const started = performance.now();
  const load = stage.load.start(app, loadOf(knobs));
  // Waited for at its end only, when there may be something worse to report.
  load.result.catch(() => undefined);
  const deleted = await app.ask('purge');
  const elapsed = performance.now() - started;
  if (elapsed < SHORTEST_MS) await delay(SHORTEST_MS - elapsed);
  load.end();
  return { result: await load.result, deleted, seconds: elapsed / 1000 };
}

async function sizesAfterVacuum({ knobs, database, hasPgstattuple }: Scene) {
  const vacuumed = await autovacuumed(database, knobs.autovacuum);
  if (!vacuumed) await database.query('VACUUM idempotency_records');
  const { table: heap, indexes } = await recordSizes(database);
  const dead = await database.number(
    `SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'idempotency_records'`,
  );
  const free = hasPgstattuple
    ? await database.number(`SELECT free_percent FROM pgstattuple('idempotency_records')`)
    : null;
  return {
    left_table_mb: megabytes(heap),
    left_index_mb: megabytes(indexes),
    dead_rows: dead,
    free_percent: free,
    vacuumed_by: vacuumed ? 'autovacuum' : 'the benchmark',
  };
}

/** Whether autovacuum has been there since now, in as many seconds. */
async function autovacuumed(database: Database, seconds: number): Promise<boolean> {
  const count = (): Promise<number> =>
    database.number(`SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'idempotency_records'`);
  const before = await count();
  const deadline = performance.now() + seconds * 1000;
  while (performance.now() < deadline) {
    if ((await count()) > before) return true;
    await delay(500);
  }
  return false;
}

function megabytes(bytes: number): number {
  return round(bytes / 2 ** 20);
}
