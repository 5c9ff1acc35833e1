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
import { SIDE_NAMES } from './kit/side-names.js';
import { POOL, type Stage } from './kit/stage.js';
import { resultTable } from './kit/subjects.js';
import { CEILINGS, measureThroughput } from './throughput.js';

const KNOBS = {
  sides: SIDE_NAMES,
  adapters: ['express'],
  connections: [16],
  phases: ['first', 'replay'],
  rounds: 7,
  seconds: 3,
  nodes: ['24'],
  seed: 0,
  'warm-up': 6000,
  lead: 1000,
  profile: false,
} as const;

const WITHOUT_REDIS = SIDE_NAMES.filter((side) => side !== 'node-idempotency-redis');

export const reference: Benchmark = {
  name: 'reference',
  file: 'reference',
  smoke: [
    ...['--rounds=1', '--seconds=0.1', '--nodes=own', '--connections=4', '--warm-up=10', '--lead=10'],
    `--sides=${hasRedis() ? 'bare,transaction-tuned,node-idempotency-redis' : WITHOUT_REDIS.slice(0, 2).join()}`,
  ],
  run,
};

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const { seed, results } = await measureThroughput(stage, knobs, hasPgbench() ? CEILINGS : []);
  console.log(resultTable(results));
  return { settings: { ...knobs, seed, pool: POOL, wallets: WALLETS }, results };
}
