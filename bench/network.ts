/*
 * Question: what does idempotency cost where the database is not on the same machine?
 *
 * Variants: straight, and with 1 and 2 ms for the way to the database (or Redis) and back, as between machines of one data
 * centre and between zones. Every side, on one connection; first requests, and replays of what was answered a moment ago.
 *
 * All sides are asked in turn, request by request in random order, so that whatever else the machine does falls on all alike.
 * `bare-again` is the bare handler in a second process: what its ratio is off from 1.00 is noise.
 *
 * The way is made longer by kit/delay-process.ts. What it really adds is measured with a bare `SELECT 1`, once to correct it by
 * what the process itself takes, and before and after each distance to be told.
 *
 * To be reached by `transaction`: first requests at 0.88 of the bare handler with 1 ms and 0.93 with 2 ms, and ahead of the Redis
 * package in first requests and in replays.
 *
 * Knobs: see KNOBS.
 */
import { Client } from 'pg';
import { WALLETS } from './apps/shop.js';
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import type { Delays } from './kit/delays.js';
import { readFlags, type Settings } from './kit/flags.js';
import type { TurnsResult } from './kit/load-messages.js';
import { emptyTables, ordersIn, warmUp } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import { hasRedis, REDIS_REMEDY } from './kit/redis.js';
import { CONTROL, isUnprotected, REDIS_SIDE, SIDE_NAMES } from './kit/side-names.js';
import { POOL, type Stage } from './kit/stage.js';
import {
  chooseSeed,
  generationsOf,
  median,
  percentile,
  round,
  seededRandom,
  shuffled,
  spread,
} from './kit/statistics.js';
import { table } from './kit/table.js';

const KNOBS = {
  sides: ['bare', CONTROL, ...SIDE_NAMES.slice(1)],
  /** Milliseconds for the way there and back. */
  'round-trips': [0, 1, 2],
  /** Parts of a distance, each with its ratios: how far they are apart is told. */
  rounds: 6,
  /** How often all applications are started anew at each distance, in random order. */
  generations: 3,
  /** Of each side and phase in each round. */
  requests: 300,
  adapter: 'express',
  node: '24',
  seed: 0,
  'warm-up': 2500,
} as const;

type Knobs = Settings<typeof KNOBS>;

export const network: Benchmark = {
  name: 'network',
  file: 'network',
  smoke: [
    ...['--round-trips=0,1', '--rounds=2', '--generations=1', '--requests=5', '--node=own', '--warm-up=20'],
    `--sides=bare,transaction${hasRedis() ? `,${REDIS_SIDE}` : ''}`,
  ],
  run,
};

const PATH = '/orders';
const TARGETS = [
  { round_trip_ms: 1, ratio: 0.88 },
  { round_trip_ms: 2, ratio: 0.93 },
] as const;
const PROBES = 400;
const QUICK = 0.1;

/** Where servers are, at one distance. */
interface Distance {
  readonly roundTrip: number;
  readonly databaseUrl: string;
  readonly redisUrl: string | undefined;
}

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  if (knobs.sides.includes(REDIS_SIDE) && !hasRedis())
    throw new Error(`redis-server is not installed. ${REDIS_REMEDY}`);
  const seed = chooseSeed(knobs.seed);
  const database = await stage.shop();
  const delays = await stage.delays();
  const [results, distances] = [[] as Row[], [] as object[]];
  for (const roundTrip of knobs['round-trips']) {
    const distance = await distanceOf(stage, database, delays, roundTrip, knobs);
    const before = round(await addedBy(distance.databaseUrl, database));
    const times = await measureAt(stage, database, distance, knobs, seed + roundTrip);
    const after = round(await addedBy(distance.databaseUrl, database));
    distances.push({ round_trip_ms: roundTrip, added_before_ms: before, added_after_ms: after });
    console.error(`At ${roundTrip} ms SELECT 1 took ${before} ms longer before, and ${after} ms after`);
    results.push(...rowsOf(roundTrip, knobs.sides, times));
  }
  await delays.end();
  print(results, distances);
  return { settings: { ...knobs, seed, pool: POOL, wallets: WALLETS }, distances, results, targets: TARGETS };
}

/** Lines of the wanted length, which is what they add to a bare round trip, and not what their process means to add. */
async function distanceOf(
  stage: Stage,
  database: Database,
  delays: Delays,
  roundTrip: number,
  { sides }: Knobs,
): Promise<Distance> {
  const redis = sides.includes(REDIS_SIDE) ? (await stage.redis()).url : undefined;
  if (roundTrip === 0) return { roundTrip, databaseUrl: database.url, redisUrl: redis };
  // What the process itself takes is in the quick ones; the slow ones are other work of the machine, which comes and goes.
  const added = await addedBy(await delays.lengthen(database.url, roundTrip), database, QUICK);
  const corrected = Math.max(0, 2 * roundTrip - added);
  return {
    roundTrip,
    databaseUrl: await delays.lengthen(database.url, corrected),
    redisUrl: redis === undefined ? undefined : await delays.lengthen(redis, corrected),
  };
}

/** How much longer a bare round trip takes than straight, in milliseconds, both asked in turn. */
async function addedBy(url: string, straight: Database, part = 0.5): Promise<number> {
  const clients = [straight.url, url].map((each) => new Client({ connectionString: each }));
  for (const client of clients) await client.connect();
  const times = clients.map((): number[] => []);
  for (let index = 0; index < PROBES; index++) {
    for (const [which, client] of clients.entries()) {
      const since = performance.now();
      await client.query('SELECT 1');
      // The first ones run code that is not compiled.
      if (index >= PROBES / 4) times[which]!.push(performance.now() - since);
    }
  }
  for (const client of clients) await client.end();
  const [theirs, ours] = times.map((each) =>
    percentile(
      each.sort((a, b) => a - b),
      part,
    ),
  );
  return ours! - theirs!;
}

/** What each round found. */
async function measureAt(
  stage: Stage,
  database: Database,
  distance: Distance,
  knobs: Knobs,
  seed: number,
): Promise<TurnsResult[]> {
  const { sides, requests } = knobs;
  const times: TurnsResult[] = [];
  for (const rounds of generationsOf(knobs)) {
    const apps = await startApps(stage, database, distance, knobs, seededRandom(seed + rounds[0]!));
    const inOrder = sides.map((side) => apps.get(side)!);
    const turns = inOrder.map(({ port, settings }) => ({ port, replays: !isUnprotected(settings.side) }));
    for (const round of rounds) {
      await emptyTables(stage, database);
      const order = { path: PATH, apps: turns, cycles: requests, wallets: WALLETS, seed: seed + 100 * round };
      times.push(await stage.load.takeTurns(order));
      const [made, expected] = [await ordersIn(database), requests * sides.length];
      if (made !== expected)
        throw new Error(`${expected} requests were answered, and ${made} orders were made`);
    }
    for (const app of inOrder) await app.end();
  }
  return times;
}

async function startApps(
  stage: Stage,
  database: Database,
  { databaseUrl, redisUrl }: Distance,
  { sides, adapter, node, 'warm-up': warm }: Knobs,
  random: () => number,
): Promise<Map<string, App>> {
  if (adapter !== 'express' && adapter !== 'fastify') throw new Error(`There is no adapter named ${adapter}`);
  const apps = new Map<string, App>();
  for (const side of shuffled(sides, random)) {
    const choice = {
      side,
      adapter,
      database,
      node: findNode(node),
      through: { databaseUrl, redisUrl },
    } as const;
    const app = await stage.app(choice);
    apps.set(side, app);
    await warmUp(stage, app, warm);
  }
  return apps;
}

/** Ratios are of medians; the spread is that of the rounds. */
interface Row {
  readonly round_trip_ms: number;
  readonly side: string;
  readonly first_p50_ms: number;
  readonly replay_p50_ms: number | null;
  /** Time of a first request of the bare handler over that of one of this side. */
  readonly bare_over_side: number | null;
  readonly bare_over_side_spread: readonly [number, number] | null;
  /** The same of replays, and of the Redis package. */
  readonly redis_over_side: number | null;
  readonly redis_over_side_spread: readonly [number, number] | null;
}

type Phase = keyof TurnsResult;

function rowsOf(roundTrip: number, sides: readonly string[], rounds: readonly TurnsResult[]): Row[] {
  const timesOf = (phase: Phase, side: string): readonly (readonly number[])[] =>
    rounds.map((each) => each[phase][sides.indexOf(side)] ?? []);
  const ratioTo = (other: string, phase: Phase, side: string) => {
    const [theirs, ours] = [timesOf(phase, other), timesOf(phase, side)];
    if (theirs.flat().length === 0 || ours.flat().length === 0) return { ratio: null, ends: null };
    const each = theirs.map((times, index) => median(times) / median(ours[index]!));
    return { ratio: round(median(theirs.flat()) / median(ours.flat())), ends: spread(each) };
  };
  return sides.map((side) => {
    const [first, replay] = [ratioTo('bare', 'first', side), ratioTo(REDIS_SIDE, 'replay', side)];
    return {
      round_trip_ms: roundTrip,
      side,
      first_p50_ms: round(median(timesOf('first', side).flat())),
      replay_p50_ms: isUnprotected(side) ? null : round(median(timesOf('replay', side).flat())),
      bare_over_side: first.ratio,
      bare_over_side_spread: first.ends,
      redis_over_side: replay.ratio,
      redis_over_side_spread: replay.ends,
    };
  });
}

function print(results: readonly Row[], distances: readonly object[]): void {
  console.log(
    table(
      ['round trip ms', 'side', 'first p50 ms', 'replay p50 ms', 'bare ÷ side', 'from', 'to', 'redis ÷ side'],
      results.map((each) => [
        ...[each.round_trip_ms, each.side, each.first_p50_ms, each.replay_p50_ms, each.bare_over_side],
        ...(each.bare_over_side_spread ?? [null, null]),
        each.redis_over_side,
      ]),
    ),
  );
  console.log(`\nWhat a bare SELECT 1 took longer than straight, p50: ${JSON.stringify(distances)}`);
  console.log(
    `To be reached by \`transaction\`: ${TARGETS.map(({ round_trip_ms, ratio }) => `${ratio} at ${round_trip_ms} ms`).join(', ')}`,
  );
}
