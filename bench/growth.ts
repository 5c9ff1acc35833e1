/*
 * Question: does it get slower as records pile up?
 *
 * Variants: a table with 10 million live records, and one that is nearly empty, each with an application of its own on the same
 * server.
 *
 * - `first`: new random keys, which go anywhere into the primary key;
 * - `first-by-time`: new keys of one client that begin with the time (UUIDs of version 7), which go next to each other;
 * - `first-by-time-clients`: the same of 20,000 clients, which go next to each other only where the key comes first;
 * - `replay`: of requests that this application has answered a moment ago, as a retry comes in life;
 * - `replay-any`: of records from all over the table, of which this application has not seen one; each is asked for once.
 *
 * The same is asked of both tables. The records are copies of one that the library made, so that their requests really are
 * replayed. Memory of the server and of the machine is smaller or larger than the table: see `size_mb` and the machine.
 *
 * Interleaved in random order over several rounds; ratios are taken within a round. A checkpoint precedes the first round and
 * no other, so that nearly every random key of the large table meets a page that has not changed since, which is then logged
 * as a whole: `wal_bytes`. To be reached: 0.9 of the nearly empty table's throughput, of `first` and of `replay`.
 *
 * Knobs: see KNOBS.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { readFlags, type Settings } from './kit/flags.js';
import type { LoadSource } from './kit/load-messages.js';
import { measureLoad, type Sample } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import { fillRecords, recordSizes, walPosition } from './kit/records.js';
import type { Stage } from './kit/stage.js';
import { chooseSeed, median, round, seededRandom, shuffled, spread } from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  records: 10_000_000,
  /** In the table that counts as empty: as many as `replay-any` may ask for in all rounds. */
  few: 60_000,
  /** That the records are of, and the new requests. */
  clients: 20_000,
  connections: 16,
  rounds: 5,
  seconds: 3,
  side: 'transaction',
  adapter: 'express',
  node: '24',
  seed: 0,
  'warm-up': 4000,
  /** Requests before each measurement; as many keys are replayed. */
  lead: 500,
} as const;

type Knobs = Settings<typeof KNOBS>;

export const growth: Benchmark = {
  name: 'growth',
  file: 'growth',
  smoke: [
    ...['--records=2000', '--few=500', '--clients=50', '--rounds=1', '--seconds=0.1', '--node=own'],
    ...['--warm-up=20', '--lead=20'],
  ],
  run,
};

const WORKLOADS = ['first', 'first-by-time', 'first-by-time-clients', 'replay', 'replay-any'] as const;
type Workload = (typeof WORKLOADS)[number];

const PATH = '/extras/orders';
const BODY = '{"what":"an order of a benchmark"}';
const SERIES = 'old';
const TARGET = 0.9;

interface Scene {
  readonly records: number;
  readonly clients: number;
  readonly database: Database;
  readonly app: App;
  /** The answer that all records have. */
  readonly answer: string;
  readonly samples: Record<Workload, (Sample & { readonly wal: number })[]>;
  /** Records that have been asked for, and series of new keys that have been made. */
  asked: number;
  series: number;
}

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const seed = chooseSeed(knobs.seed);
  if (shareOf(knobs) < 1)
    throw new Error('--few has to be more than --warm-up by one for each round at least');
  const scenes = [
    await sceneOf(stage, knobs, knobs.few),
    await sceneOf(stage, knobs, knobs.records),
  ] as const;
  await stage.postgres.checkpoint();
  const random = seededRandom(seed);
  const turns = scenes.flatMap((scene) => WORKLOADS.map((workload) => ({ scene, workload })));
  for (let index = 1; index <= knobs.rounds; index++) {
    for (const { scene, workload } of shuffled(turns, random)) {
      scene.samples[workload].push(await measureScene(stage, scene, workload, knobs));
    }
    console.error(`Round ${index} of ${knobs.rounds}`);
  }
  const [empty, full] = scenes;
  const results = [];
  for (const workload of WORKLOADS) {
    for (const scene of scenes) results.push(await rowOf(scene, workload));
  }
  const ratios = WORKLOADS.map((workload) => {
    return { phase: workload, ...ratioOf(full.samples[workload], empty.samples[workload]) };
  });
  const byTime = ratioOf(full.samples['first-by-time'], full.samples.first);
  print(results, ratios, byTime);
  for (const { app } of scenes) await app.end();
  return { settings: { ...knobs, seed }, results, ratios, by_time_over_random: byTime, target: TARGET };
}

async function sceneOf(stage: Stage, knobs: Knobs, records: number): Promise<Scene> {
  const database = await stage.shop();
  const adapter = knobs.adapter === 'fastify' ? 'fastify' : 'express';
  const app = await stage.app({ side: knobs.side, adapter, database, node: findNode(knobs.node) });
  const key = 'the-record-that-is-copied';
  const source = { kind: 'same', body: BODY, key } as const;
  const { body: answer } = await stage.load.run(app, { path: PATH, connections: 1, requests: 1, source });
  const started = performance.now();
  const expires = `clock_timestamp() + (2 + 22 * random()) * interval '1 hour'`;
  const { clients } = knobs;
  await fillRecords(database, key, { series: SERIES, count: records, expires, clients, inBulk: true });
  await database.query('VACUUM ANALYZE idempotency_records');
  console.error(
    `${records} records are in the table, after ${Math.round((performance.now() - started) / 1000)} s`,
  );
  const samples = {
    first: [],
    'first-by-time': [],
    'first-by-time-clients': [],
    replay: [],
    'replay-any': [],
  };
  const scene = { records, clients, database, app, answer, samples, asked: 0, series: 0 };
  await warmUp(stage, scene, knobs);
  return scene;
}

/** Sends requests of each kind that are not measured until the code is compiled. */
async function warmUp(
  stage: Stage,
  scene: Scene,
  { connections, 'warm-up': requests }: Knobs,
): Promise<void> {
  const load = { path: PATH, connections, requests };
  await stage.load.run(scene.app, { ...load, source: newKeys(scene), remember: true });
  await stage.load.run(scene.app, { ...load, source: { kind: 'again' } });
  await stage.load.run(scene.app, { ...load, source: recorded(scene, requests) });
}

async function measureScene(
  stage: Stage,
  scene: Scene,
  workload: Workload,
  knobs: Knobs,
): Promise<Sample & { wal: number }> {
  const { app, database } = scene;
  const { connections, lead } = knobs;
  await stage.load.run(app, {
    path: PATH,
    connections,
    requests: lead,
    source: newKeys(scene),
    remember: true,
  });
  const load = { path: PATH, connections, milliseconds: knobs.seconds * 1000 };
  const share = shareOf(knobs);
  const limit = workload === 'replay-any' ? { requests: share } : {};
  const source = sourceOf(scene, workload, share);
  const before = await walPosition(database);
  const sample = await measureLoad(stage, app, { ...load, ...limit, source });
  return { ...sample, wal: ((await walPosition(database)) - before) / sample.requests };
}

/**
 * How many records each round may ask for, so that none of the smaller table is asked for twice: the second time would be the
 * shorter way.
 */
function shareOf({ few, rounds, 'warm-up': before }: Knobs): number {
  return Math.floor((few - before) / rounds);
}

function sourceOf(scene: Scene, workload: Workload, share: number): LoadSource {
  switch (workload) {
    case 'first':
      return newKeys(scene);
    case 'first-by-time':
      return { kind: 'series', series: '', body: BODY, keys: 'by-time' };
    case 'first-by-time-clients':
      return { kind: 'series', series: '', body: BODY, keys: 'by-time', clients: scene.clients };
    case 'replay':
      return { kind: 'again' };
    case 'replay-any':
      return recorded(scene, share);
  }
}

function newKeys(scene: Scene): LoadSource {
  return { kind: 'series', series: `new${++scene.series}-`, body: BODY, clients: scene.clients };
}

function recorded(scene: Scene, count: number): LoadSource {
  const skip = scene.asked;
  scene.asked += count;
  const { records: size, clients, answer: expected } = scene;
  return { kind: 'recorded', series: SERIES, size, clients, skip, body: BODY, expected };
}

async function rowOf({ records, database, samples }: Scene, phase: Workload) {
  const { table: heap, indexes } = await recordSizes(database);
  const middle = (value: (sample: Scene['samples'][Workload][number]) => number): number =>
    round(median(samples[phase].map(value)));
  return {
    phase,
    records,
    size_mb: Math.round((heap + indexes) / 2 ** 20),
    rps: Math.round(middle(({ rps }) => rps)),
    p50_ms: middle(({ p50 }) => p50),
    p99_ms: middle(({ p99 }) => p99),
    cpu_app_ms: middle(({ cpuApp }) => cpuApp),
    cpu_db_ms: middle(({ cpuDatabase }) => cpuDatabase ?? Number.NaN),
    wal_bytes: Math.round(middle(({ wal }) => wal)),
    rounds: samples[phase].length,
  };
}

interface Ratio {
  /** Median over the rounds. */
  readonly rps: number;
  readonly spread: readonly [number, number];
}

function ratioOf(samples: readonly Sample[], others: readonly Sample[]): Ratio {
  const ratios = samples.map(({ rps }, index) => rps / others[index]!.rps);
  return { rps: round(median(ratios)), spread: spread(ratios) };
}

function print(
  results: readonly Awaited<ReturnType<typeof rowOf>>[],
  ratios: readonly (Ratio & { phase: Workload })[],
  byTime: Ratio,
): void {
  console.log(
    table(
      Object.keys(results[0]!),
      results.map((row) => Object.values(row)),
    ),
  );
  console.log(
    `\n${table(
      ['full over empty', 'ratio', 'lowest', 'highest'],
      ratios.map(({ phase, rps, spread: ends }) => [phase, rps, ...ends]),
    )}`,
  );
  console.log(`\nTo be reached by first and replay: ${TARGET}.`);
  console.log(
    `In the full table, keys by time over random ones: ${byTime.rps} (${byTime.spread.join(' to ')})`,
  );
}
