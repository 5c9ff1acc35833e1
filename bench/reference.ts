/*
 * Question: how near do first requests come to the bare handler, and replays to Redis, where it is said what is aimed for: on
 * Express, with 16 connections, on the newest of the releases of Node.js?
 *
 * The same as the table of throughput.ts and in the same way, but of that one cell, and for longer: there each of many processes
 * is measured for a moment and then sleeps, and on a machine that others use a few such moments differ by half. Here fewer
 * processes take turns, each runs for a while before it counts, and there are more rounds.
 *
 * Knobs: see KNOBS; each as in throughput.ts.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import { WALLETS } from './apps/shop.js';
import { readFlags } from './kit/flags.js';
import { hasPgbench } from './kit/pgbench.js';
import { hasRedis } from './kit/redis.js';
import { CONTROL, REDIS_SIDE, SIDE_NAMES } from './kit/side-names.js';
import { POOL, type Stage } from './kit/stage.js';
import { resultTable } from './kit/subjects.js';
import { CEILINGS, measureThroughput } from './throughput.js';

const KNOBS = {
  sides: ['bare', CONTROL, ...SIDE_NAMES.slice(1)],
  adapters: ['express'],
  connections: [16],
  phases: ['first', 'replay'],
  rounds: 28,
  seconds: 0.75,
  generations: 4,
  nodes: ['24'],
  seed: 0,
  'warm-up': 6000,
  lead: 250,
  profile: false,
} as const;

export const reference: Benchmark = {
  name: 'reference',
  file: 'reference',
  smoke: [
    ...['--rounds=1', '--seconds=0.1', '--nodes=own', '--connections=4', '--warm-up=10', '--lead=10'],
    `--sides=${hasRedis() ? `bare,${CONTROL},transaction,${REDIS_SIDE}` : `bare,${CONTROL},transaction`}`,
  ],
  run,
};

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const { seed, results } = await measureThroughput(stage, knobs, hasPgbench() ? CEILINGS : []);
  console.log(resultTable(results));
  return { settings: { ...knobs, seed, pool: POOL, wallets: WALLETS }, results };
}
