/*
 * Question: does it get slower as records pile up?
 *
 * Variants: the table with 10 million live records, and the same one next to empty, each with an application of its own on the
 * same server; first requests, whose new keys go anywhere into the index, and replays, which ask for any of the records. The
 * records are copies of one that the library made, so that their requests really are replayed. Memory of the server and of
 * the machine is smaller or larger than the table: see `size_mb` and the machine.
 *
 * Interleaved in random order over several rounds. To be reached: 0.9 of the empty table's throughput.
 *
 * Knobs: see KNOBS.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { readFlags, type Settings } from './kit/flags.js';
import type { LoadSource } from './kit/load-messages.js';
import { measureLoad, type Phase, type Sample } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import { fillRecords, recordSizes, walPosition } from './kit/records.js';
import type { Stage } from './kit/stage.js';
import { chooseSeed, median, round, seededRandom, shuffled } from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  records: 10_000_000,
  /** In the table that counts as empty: replays need something to ask for. */
  few: 1000,
  connections: 16,
  rounds: 7,
  seconds: 5,
  side: 'transaction',
  adapter: 'express',
  node: '24',
  seed: 0,
} as const;

type Knobs = Settings<typeof KNOBS>;

export const growth: Benchmark = {
  name: 'growth',
  file: 'growth',
  smoke: ['--records=2000', '--few=100', '--rounds=1', '--seconds=0.1', '--node=own'],
  run,
};

const PATH = '/extras/orders';
const BODY = '{"what":"an order of a benchmark"}';
const TARGET = 0.9;

interface Scene {
  readonly records: number;
  readonly database: Database;
  readonly app: App;
  /** The answer that all records have. */
  readonly answer: string;
  readonly samples: Record<Phase, (Sample & { readonly wal: number })[]>;
}

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const seed = chooseSeed(knobs.seed);
  const scenes = [await sceneOf(stage, knobs, knobs.few), await sceneOf(stage, knobs, knobs.records)];
  await stage.postgres.checkpoint();
  const random = seededRandom(seed);
  const turns = scenes.flatMap((scene) => (['first', 'replay'] as const).map((phase) => ({ scene, phase })));
  for (let index = 1; index <= knobs.rounds; index++) {
    for (const { scene, phase } of shuffled(turns, random))
      await measureScene(stage, scene, phase, index, knobs);
    console.error(`Round ${index} of ${knobs.rounds}`);
  }
  const results = await Promise.all(
    scenes.flatMap((scene) => [rowOf(scene, 'first'), rowOf(scene, 'replay')]),
  );
  const ratios = { first: ratioOf(scenes, 'first'), replay: ratioOf(scenes, 'replay'), target: TARGET };
  console.log(
    table(
      Object.keys(results[0]!),
      results.map((row) => Object.values(row)),
    ),
  );
  console.log(
    `\nFull over empty: first requests ${ratios.first}, replays ${ratios.replay}; to be reached: ${TARGET}`,
  );
  for (const { app } of scenes) await app.end();
  return { settings: { ...knobs, seed }, results, ratios };
}

async function sceneOf(stage: Stage, knobs: Knobs, records: number): Promise<Scene> {
  const database = await stage.shop();
  const adapter = knobs.adapter === 'fastify' ? 'fastify' : 'express';
  const app = await stage.app({ side: knobs.side, adapter, database, node: findNode(knobs.node) });
  const key = 'the-record-that-is-copied';
  const source = { kind: 'same', body: BODY, key } as const;
  const { body } = await stage.load.run(app, { path: PATH, connections: 1, requests: 1, source });
  console.error(`Filling a table with ${records} records`);
  const expires = `clock_timestamp() + (2 + 22 * random()) * interval '1 hour'`;
  await fillRecords(database, key, { series: 'old', count: records, expires, inBulk: true });
  return { records, database, app, answer: body, samples: { first: [], replay: [] } };
}

async function measureScene(
  stage: Stage,
  scene: Scene,
  phase: Phase,
  turn: number,
  knobs: Knobs,
): Promise<void> {
  const { app, database, answer, records } = scene;
  const load = (source: LoadSource, milliseconds: number) => {
    return { path: PATH, connections: knobs.connections, milliseconds, source };
  };
  const sourceOf = (lead: boolean): LoadSource =>
    phase === 'replay'
      ? { kind: 'series', series: 'old', size: records, body: BODY, expected: answer }
      : { kind: 'series', series: `${turn}${lead ? 'lead' : 'new'}`, size: 0, body: BODY };
  // Compiles, opens connections, and fills caches.
  await stage.load.run(app, load(sourceOf(true), (turn === 1 ? 1 : 0.2) * knobs.seconds * 1000));
  const before = await walPosition(database);
  const sample = await measureLoad(stage, app, load(sourceOf(false), knobs.seconds * 1000));
  const wal = ((await walPosition(database)) - before) / sample.requests;
  scene.samples[phase].push({ ...sample, wal });
}

async function rowOf({ records, database, samples }: Scene, phase: Phase) {
  const { table: heap, indexes } = await recordSizes(database);
  const middle = (value: (sample: Scene['samples'][Phase][number]) => number): number =>
    round(median(samples[phase].map(value)));
  return {
    records,
    size_mb: Math.round((heap + indexes) / 2 ** 20),
    phase,
    rps: Math.round(middle(({ rps }) => rps)),
    p50_ms: middle(({ p50 }) => p50),
    p99_ms: middle(({ p99 }) => p99),
    cpu_app_ms: middle(({ cpuApp }) => cpuApp),
    cpu_db_ms: middle(({ cpuDatabase }) => cpuDatabase ?? Number.NaN),
    wal_bytes: Math.round(middle(({ wal }) => wal)),
    rounds: samples[phase].length,
  };
}

function ratioOf([empty, full]: readonly Scene[], phase: Phase): number {
  const ratios = full!.samples[phase].map(({ rps }, index) => rps / empty!.samples[phase][index]!.rps);
  return round(median(ratios));
}
