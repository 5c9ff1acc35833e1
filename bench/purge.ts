/*
 * Question: do requests notice the purge, and does the table stay as large as it has to be?
 *
 * Variants: cycles of filling the table with a million expired records and having the library delete them, while requests come
 * at 200 a second, each timed from when it was due. In each cycle the same load is measured
 *
 * 1. before the purge;
 * 2. with the purge, for as long as it takes;
 * 3. with autovacuum, until it has been at the table, which it is kept from before;
 * 4. after it: without purge once more, for as long as the purge took.
 *
 * A checkpoint precedes each, so that all log as many whole pages, and a second of the load. Records expire in the order in which
 * they were made, as with one `ttl`.
 *
 * What requests notice is the p99 of 2 over that of 1 and 4 together; how far 1 and 4 are apart is what the machine does by itself.
 * A disk that stands still for a tenth of a second, as that of a machine which others use does now and then, makes twenty requests
 * late, which is the p99 of ten seconds. So the p99 of each second is taken, too, and of these the median: what requests notice in
 * the usual second. It does not tell of what happens in fewer than half of them, by whosever fault; the other does.
 *
 * Sizes are taken when the table is filled and when autovacuum has been there. Filled, all cycles hold as many records, but for
 * the ones that the load has left: bytes for each record over those of the first cycle are the bloat.
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
import { median, percentile, round } from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  records: 1_000_000,
  rate: 200,
  cycles: 4,
  /** Of the first measurement without purge; the others take as long as the purge before them. */
  seconds: 30,
  /** Seconds between two looks of autovacuum at the database, on a server of our own. */
  naptime: 1,
  /** Seconds to wait for autovacuum before the benchmark does its work. */
  autovacuum: 90,
  side: 'transaction',
  adapter: 'express',
  node: '24',
  'warm-up': 4000,
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
/** Of the load before each measurement. */
const LONGEST_LEAD_MS = 1000;
const POLL_MS = 200;
const TABLE = 'idempotency_records';

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
  const nap = knobs.autovacuum > 0 && (await stage.postgres.set('autovacuum_naptime', `${knobs.naptime}s`));
  const cycles: Cycle[] = [];
  try {
    for (let cycle = 1; cycle <= knobs.cycles; cycle++) {
      const length = cycles.at(-1)?.purged.elapsed ?? knobs.seconds * 1000;
      cycles.push({ cycle, ...(await measureCycle(scene, cycle, length)) });
    }
  } finally {
    if (nap) await stage.postgres.reset('autovacuum_naptime');
  }
  await app.end();
  const first = cycles[0]!;
  const results = cycles.map((each) => rowOf(each, first));
  const p99 = comparisonOf(cycles, results, knobs.rate);
  const settings = { ...knobs, naptime: nap ? knobs.naptime : null };
  print(results, p99, scene);
  return { settings, results, p99, target: TARGET };
}

async function measureCycle(scene: Scene, cycle: number, milliseconds: number) {
  await autovacuum(scene, 'off');
  await makeExpired(scene, cycle);
  const filled = await contentsOf(scene);
  console.error(`Cycle ${cycle} of ${scene.knobs.cycles}: the table is filled`);
  const before = await measured(scene, () => delay(milliseconds));
  const purged = await measured(scene, () => scene.app.ask('purge'));
  if (purged.done !== scene.knobs.records)
    throw new Error(`Of ${scene.knobs.records} expired records ${purged.done} were deleted`);
  console.error(`… purged within ${round(purged.elapsed / 1000)} s`);
  const vacuumed = await measured(scene, () => untilVacuumed(scene));
  console.error(
    `… ${vacuumed.done ? 'autovacuum was there' : 'vacuumed'} after ${round(vacuumed.elapsed / 1000)} s`,
  );
  const left = await contentsOf(scene);
  await autovacuum(scene, 'off');
  const after = await measured(scene, () => delay(purged.elapsed));
  return { filled, left, before, purged, vacuumed, after };
}

type Cycle = Awaited<ReturnType<typeof measureCycle>> & { readonly cycle: number };
type Row = ReturnType<typeof rowOf>;

function rowOf({ cycle, filled, left, before, purged, vacuumed, after }: Cycle, { filled: first }: Cycle) {
  const quiet = [before.load, after.load];
  return {
    cycle,
    p50_quiet_ms: round(pooled(quiet, 0.5)),
    p50_purge_ms: round(purged.load.p50),
    p99_before_ms: round(before.load.p99),
    p99_after_ms: round(after.load.p99),
    p99_quiet_ms: round(pooled(quiet, 0.99)),
    p99_purge_ms: round(purged.load.p99),
    p99_vacuum_ms: round(vacuumed.load.p99),
    purge_s: round(purged.elapsed / 1000),
    deleted_per_s: Math.round((purged.done * 1000) / purged.elapsed),
    vacuum_s: round(vacuumed.elapsed / 1000),
    vacuumed_by: vacuumed.done ? 'autovacuum' : 'the benchmark',
    filled_records: filled.records,
    filled_table_mb: megabytes(filled.table),
    filled_index_mb: megabytes(filled.indexes),
    left_records: left.records,
    left_table_mb: megabytes(left.table),
    left_index_mb: megabytes(left.indexes),
    dead_rows: left.dead,
    free_percent: left.free,
    table_bloat: round(filled.table / filled.records / (first.table / first.records)),
    index_bloat: round(filled.indexes / filled.records / (first.indexes / first.records)),
  };
}

/** Of all requests of the loads together. */
function pooled(loads: readonly LoadResult[], part: number): number {
  const latencies = loads.flatMap((load) => load.latencies);
  return percentile(
    latencies.sort((a, b) => a - b),
    part,
  );
}

/** The p99 of each second's requests, of all seconds the median. */
function typicalSecond(loads: readonly LoadResult[], rate: number): number {
  const seconds = loads.flatMap(({ latencies }) =>
    Array.from({ length: Math.max(1, Math.floor(latencies.length / rate)) }, (_, second) =>
      latencies.slice(second * rate, (second + 1) * rate).sort((a, b) => a - b),
    ),
  );
  return median(seconds.map((sorted) => percentile(sorted, 0.99)));
}

/** How much later answers come with the purge, and how far apart they are without it. */
interface Comparison extends Readonly<Record<'all' | 'second', Compared>> {
  /** Of each cycle. */
  readonly ratios: readonly number[];
  /** Of the two measurements without purge: the later over the earlier, in each cycle. */
  readonly quiet_ratios: readonly number[];
}

/** Without and with purge, and the one over the other. */
interface Compared {
  readonly quiet_ms: number;
  readonly purge_ms: number;
  readonly ratio: number;
}

function comparisonOf(cycles: readonly Cycle[], rows: readonly Row[], rate: number): Comparison {
  const quiet = cycles.flatMap(({ before, after }) => [before.load, after.load]);
  const purging = cycles.map(({ purged }) => purged.load);
  const compared = (p99: (loads: readonly LoadResult[]) => number): Compared => {
    const [without, within] = [p99(quiet), p99(purging)];
    return { quiet_ms: round(without), purge_ms: round(within), ratio: round(within / without) };
  };
  return {
    all: compared((loads) => pooled(loads, 0.99)),
    second: compared((loads) => typicalSecond(loads, rate)),
    ratios: rows.map(({ p99_purge_ms, p99_quiet_ms }) => round(p99_purge_ms / p99_quiet_ms)),
    quiet_ratios: rows.map(({ p99_before_ms, p99_after_ms }) => round(p99_after_ms / p99_before_ms)),
  };
}

function print(results: readonly Row[], p99: Comparison, { knobs, hasPgstattuple }: Scene): void {
  const last = results.at(-1)!;
  const names = Object.keys(last);
  const rows = results.map((row) => Object.values(row));
  const middle = names.indexOf('vacuumed_by') + 1;
  console.log(
    table(
      names.slice(0, middle),
      rows.map((row) => row.slice(0, middle)),
    ),
  );
  console.log(
    `\n${table(
      ['cycle', ...names.slice(middle)],
      rows.map((row) => [row[0]!, ...row.slice(middle)]),
    )}`,
  );
  const told = ({ ratio, purge_ms, quiet_ms }: Compared): string =>
    `${ratio} (${purge_ms} over ${quiet_ms} ms)`;
  console.log(
    `\np99 with purge over without, of all requests: ${told(p99.all)}; of a second, median: ${told(p99.second)}; to be reached: ` +
      `${TARGET}. Of each cycle: ${p99.ratios.join(', ')}. After over before, both without purge: ${p99.quiet_ratios.join(', ')}.`,
  );
  console.log(
    `Bytes for each record when filled, last cycle over first: table ${last.table_bloat}, indexes ${last.index_bloat}.`,
  );
  console.log(`Autovacuum looks every ${knobs.naptime} s on a server of our own.`);
  if (!hasPgstattuple) console.log('pgstattuple is not on this server: free space is not told.');
}

async function makeExpired({ stage, knobs, database, app }: Scene, cycle: number): Promise<void> {
  const key = `the-record-that-is-copied-${cycle}`;
  const source = { kind: 'same', body: '{"what":"an order of a benchmark"}', key } as const;
  await stage.load.run(app, { path: '/extras/orders', connections: 1, requests: 1, source });
  const expires = `now() - interval '1 hour' * (1 - n / ${knobs.records}.0)`;
  await fillRecords(database, key, { series: `expired${cycle}-`, count: knobs.records, expires });
  await database.query(`ANALYZE ${TABLE}`);
}

/** What is answered while something else is done, and how long that takes. */
async function measured<Done>(
  { stage, knobs, app }: Scene,
  work: () => Promise<Done>,
): Promise<{ load: LoadResult; done: Done; elapsed: number }> {
  const source = { kind: 'first', wallets: WALLETS } as const;
  const order: AppLoad = { path: '/orders', connections: CONNECTIONS, rate: knobs.rate, source };
  await stage.postgres.checkpoint();
  await stage.load.run(app, { ...order, milliseconds: Math.min(knobs.seconds * 1000, LONGEST_LEAD_MS) });
  const load = stage.load.start(app, { ...order, latencies: true });
  // Waited for at its end only, when there may be something worse to report.
  load.result.catch(() => undefined);
  const started = performance.now();
  const done = await work();
  const elapsed = performance.now() - started;
  if (elapsed < SHORTEST_MS) await delay(SHORTEST_MS - elapsed);
  load.end();
  return { load: await load.result, done, elapsed };
}

async function contentsOf({ database, hasPgstattuple }: Scene) {
  const [found] = await database.query<{ dead: string; free: string | null }>(
    hasPgstattuple
      ? `SELECT dead_tuple_count AS dead, free_percent AS free FROM pgstattuple('${TABLE}')`
      : `SELECT n_dead_tup AS dead, NULL AS free FROM pg_stat_user_tables WHERE relname = '${TABLE}'`,
  );
  return {
    ...(await recordSizes(database)),
    records: await database.number(`SELECT count(*) FROM ${TABLE}`),
    dead: Number(found!.dead),
    free: found!.free === null ? null : Number(found!.free),
  };
}

async function autovacuum({ database }: Scene, to: 'on' | 'off'): Promise<void> {
  await database.query(`ALTER TABLE ${TABLE} SET (autovacuum_enabled = ${to})`);
}

/** Whether autovacuum has been there in time; otherwise the benchmark has. */
async function untilVacuumed(scene: Scene): Promise<boolean> {
  const { database, knobs } = scene;
  const count = (): Promise<number> =>
    database.number(`SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = '${TABLE}'`);
  const before = await count();
  await autovacuum(scene, 'on');
  const deadline = performance.now() + knobs.autovacuum * 1000;
  while (performance.now() < deadline) {
    if ((await count()) > before) return true;
    await delay(POLL_MS);
  }
  await database.query(`VACUUM ${TABLE}`);
  return false;
}

function megabytes(bytes: number): number {
  return round(bytes / 2 ** 20);
}
