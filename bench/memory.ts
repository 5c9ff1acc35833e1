/*
 * Question: does the library keep memory, and what does a waiting duplicate cost?
 *
 * Variants: 200,000 requests, first ones and replays in turns, with the memory of the application after a garbage collection
 * from time to time. And, in an application of its own each time:
 *
 * - 1,000 duplicates that wait for one request;
 * - 1,000 requests that a handler without this library keeps waiting just as long: sockets, HTTP, Nest and the adapter. What
 *   remains when those are taken away is the library's;
 * - 1,000 connections on which nothing is asked: the part that any server pays.
 *
 * Only the application's process counts: the clients' ends of the connections are in another one.
 *
 * To be reached: no growth; under 20 MB for the 1,000.
 *
 * Knobs: see KNOBS.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { WALLETS } from './apps/shop.js';
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { cpuOf } from './kit/cpu.js';
import { readFlags, type Settings } from './kit/flags.js';
import { warmUp } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import type { Stage } from './kit/stage.js';
import { round } from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  requests: 200_000,
  steps: 20,
  connections: 16,
  waiting: 1000,
  side: 'transaction',
  adapter: 'express',
  node: '24',
  'warm-up': 4000,
} as const;

type Knobs = Settings<typeof KNOBS>;

export const memory: Benchmark = {
  name: 'memory',
  file: 'memory',
  smoke: ['--requests=200', '--steps=2', '--waiting=20', '--node=own', '--warm-up=20'],
  run,
};

const TARGET_MB = 20;
const IDLE_PATIENCE_MS = 60_000;

interface Memory {
  readonly heap_mb: number;
  readonly rss_mb: number;
}

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const database = await stage.shop();
  const steps = await overTime(stage, database, knobs);
  console.log(
    table(
      Object.keys(steps[0]!),
      steps.map((row) => Object.values(row)),
    ),
  );
  const growth = growthOf(steps);
  console.log(
    `\nPer 100,000 requests, in the later half: heap ${growth.heap_mb} MB, RSS ${growth.rss_mb} MB\n`,
  );

  const held = await whileWaiting(stage, database, knobs, '/extras/held');
  const bare = await whileWaiting(stage, database, knobs, '/extras/held-bare');
  const idle = await whileConnected(stage, database, knobs);
  const library = difference(held, bare);
  console.log(
    table(
      [`${knobs.waiting} waiting`, 'heap MB', 'RSS MB'],
      [
        ['duplicates', held.heap_mb, held.rss_mb],
        ['requests of a handler without this library', bare.heap_mb, bare.rss_mb],
        ['the difference', library.heap_mb, library.rss_mb],
        ['connections alone', idle.heap_mb, idle.rss_mb],
      ],
    ),
  );
  console.log(`\nTo be reached: under ${TARGET_MB} MB`);
  return {
    settings: knobs,
    steps,
    growth_per_100k: growth,
    waiting: { duplicates: held, bare, library, connections: idle },
    target_mb: TARGET_MB,
  };
}

async function overTime(stage: Stage, database: Database, knobs: Knobs) {
  const app = await start(stage, database, knobs);
  const { connections } = knobs;
  const load = { path: '/orders', connections, requests: knobs.requests / knobs.steps / 2 };
  const steps = [{ requests: 0, ...(await memoryOf(app)) }];
  for (let step = 1; step <= knobs.steps; step++) {
    await stage.load.run(app, { ...load, source: { kind: 'first', wallets: WALLETS }, remember: true });
    await stage.load.run(app, { ...load, source: { kind: 'again' } });
    const requests = (step * knobs.requests) / knobs.steps;
    steps.push({ requests, ...(await memoryOf(app)) });
    console.error(`${requests} of ${knobs.requests} requests`);
  }
  await app.end();
  return steps;
}

/** From the middle on, when caches are full and code is compiled. */
function growthOf(steps: readonly (Memory & { requests: number })[]): Memory {
  const middle = steps[steps.length >> 1]!;
  const last = steps.at(-1)!;
  const per = (value: number): number => round((value * 100_000) / (last.requests - middle.requests));
  const { heap_mb, rss_mb } = difference(last, middle);
  return { heap_mb: per(heap_mb), rss_mb: per(rss_mb) };
}

/** A new process each time: one that was larger before would not have to grow. */
async function whileWaiting(stage: Stage, database: Database, knobs: Knobs, path: string): Promise<Memory> {
  const app = await start(stage, database, knobs);
  // What the first ones compile is not what the others cost.
  await hold(stage, app, path, Math.ceil(knobs.waiting / 20), () => Promise.resolve());
  const before = await memoryOf(app);
  const during = await hold(stage, app, path, knobs.waiting, () => memoryOf(app));
  await app.end();
  return difference(during, before);
}

/** Does something while so many requests wait. */
async function hold<Done>(
  stage: Stage,
  app: App,
  path: string,
  count: number,
  work: () => Promise<Done>,
): Promise<Done> {
  const source = { kind: 'same', body: '{}', key: `${count} held by ${path}` } as const;
  const load = stage.load.start(app, { path, connections: count, requests: count, source });
  load.result.catch(() => undefined);
  await untilAllWait(app, count);
  const done = await work();
  await app.ask('release');
  await load.result;
  return done;
}

async function whileConnected(stage: Stage, database: Database, knobs: Knobs): Promise<Memory> {
  const app = await start(stage, database, knobs);
  const before = await memoryOf(app);
  // The first request is due at once, the next one long after this has ended.
  const source = { kind: 'first', wallets: WALLETS } as const;
  const load = stage.load.start(app, { path: '/orders', connections: knobs.waiting, rate: 0.001, source });
  load.result.catch(() => undefined);
  await untilAllWait(app, knobs.waiting);
  const during = await memoryOf(app);
  load.end();
  await load.result;
  await app.end();
  return difference(during, before);
}

async function start(stage: Stage, database: Database, knobs: Knobs): Promise<App> {
  const adapter = knobs.adapter === 'fastify' ? 'fastify' : 'express';
  const node = findNode(knobs.node);
  const app = await stage.app({ side: knobs.side, adapter, database, node, nodeOptions: ['--expose-gc'] });
  await warmUp(stage, app, knobs['warm-up']);
  return app;
}

/** Everybody waits when all have come and the application no longer works. */
async function untilAllWait(app: App, count: number): Promise<void> {
  const deadline = performance.now() + IDLE_PATIENCE_MS;
  while ((await app.ask('connections')) < count) {
    if (performance.now() > deadline) throw new Error('Not all have come');
    await delay(50);
  }
  let before = -1;
  for (let now = await cpuOf(app.pid); now !== before; now = await cpuOf(app.pid)) {
    if (performance.now() > deadline) throw new Error('The application did not come to rest');
    before = now ?? 0;
    await delay(300);
  }
}

async function memoryOf(app: App): Promise<Memory> {
  const { heap, rss } = await app.ask('memory');
  return { heap_mb: round(heap / 2 ** 20), rss_mb: round(rss / 2 ** 20) };
}

function difference(later: Memory, earlier: Memory): Memory {
  return { heap_mb: round(later.heap_mb - earlier.heap_mb), rss_mb: round(later.rss_mb - earlier.rss_mb) };
}
