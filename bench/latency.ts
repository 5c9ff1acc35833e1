/*
 * Question: how much later does one request get its answer?
 *
 * Variants: every side and both phases, on one connection, so that nothing waits for anything but its own work; the difference
 * to the bare handler of the same adapter, in milliseconds, at the median and at the 99th percentile.
 *
 * Interleaved in random order over several rounds like the throughput, of which this is the part with one connection,
 * measured for longer.
 *
 * Knobs: see KNOBS.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import { readFlags } from './kit/flags.js';
import { SIDE_NAMES } from './kit/side-names.js';
import type { Stage } from './kit/stage.js';
import { round } from './kit/statistics.js';
import type { Result } from './kit/subjects.js';
import { table } from './kit/table.js';
import { measureThroughput } from './throughput.js';

const KNOBS = {
  sides: SIDE_NAMES,
  adapters: ['express', 'fastify'],
  rounds: 5,
  seconds: 4,
  generations: 1,
  nodes: ['24'],
  seed: 0,
  'warm-up': 4000,
  lead: 250,
} as const;

export const latency: Benchmark = {
  name: 'latency',
  file: 'latency',
  smoke: [
    ...['--rounds=1', '--seconds=0.1', '--nodes=own', '--adapters=fastify', '--warm-up=10', '--lead=10'],
    '--sides=bare,transaction',
  ],
  run,
};

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const all = { ...knobs, connections: [1], phases: ['first', 'replay'], profile: false };
  const { seed, results } = await measureThroughput(stage, all, []);
  const added = results.map((result) => addedTo(result, results));
  console.log(
    table(
      ['node', 'adapter', 'side', 'phase', 'p50 ms', 'p99 ms', 'added p50', 'added p99'],
      added.map((each) => [
        ...[each.node, each.adapter, each.side, each.phase],
        ...[each.p50_ms, each.p99_ms, each.added_p50_ms, each.added_p99_ms],
      ]),
    ),
  );
  return { settings: { ...all, seed }, results: added };
}

type Added = Pick<
  Result,
  'side' | 'phase' | 'adapter' | 'connections' | 'node' | 'p50_ms' | 'p99_ms' | 'rounds'
> & {
  readonly added_p50_ms: number | null;
  readonly added_p99_ms: number | null;
};

function addedTo(result: Result, results: readonly Result[]): Added {
  const { side, phase, adapter, connections, node, p50_ms, p99_ms, rounds } = result;
  const bare = results.find(
    (other) => other.side === 'bare' && other.adapter === adapter && other.node === node,
  );
  return {
    ...{ side, phase, adapter, connections, node, p50_ms, p99_ms, rounds },
    added_p50_ms: bare ? round(p50_ms - bare.p50_ms) : null,
    added_p99_ms: bare ? round(p99_ms - bare.p99_ms) : null,
  };
}
