/*
 * Question: what does idempotency cost, beside no idempotency, beside Redis, and beside what teams write themselves?
 *
 * Variants: the sides of apps/sides/, on Express and Fastify, with 1, 16 and 64 connections, on two releases of Node.js; first
 * requests and replays. All do the same work, a wallet's update and an order, in one durable PostgreSQL; the tables are
 * emptied before each round. pgbench sends the same statements without an application, before and after: the ceiling.
 *
 * Each round measures everything once, in random order, so that whatever else the machine does falls on all alike. Ratios are
 * taken within a round, and the median over the rounds is what counts.
 *
 * Knobs: see KNOBS. The first of `nodes` is measured with every number of connections; the others, which are to show what
 * another release changes, with 16.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { readFlags, type Settings } from './kit/flags.js';
import { emptyTables, measure, warmUp, type Phase, type Sample } from './kit/measure.js';
import { findNode } from './kit/nodes.js';
import { hasPgbench, PGBENCH_REMEDY, runPgbench, scriptOf, type PgbenchScript } from './kit/pgbench.js';
import type { Database } from './kit/postgres.js';
import { repository } from './kit/places.js';
import { hasRedis, REDIS_REMEDY } from './kit/redis.js';
import { isUnprotected, REDIS_SIDE, SIDE_NAMES } from './kit/side-names.js';
import { join } from 'node:path';
import { WALLETS } from './apps/shop.js';
import { POOL, type Stage } from './kit/stage.js';
import { chooseSeed, generationsOf, seededRandom, shuffled } from './kit/statistics.js';
import { resultsFrom, resultTable, type Measured, type Result, type Subject } from './kit/subjects.js';

const KNOBS = {
  sides: SIDE_NAMES,
  adapters: ['express', 'fastify'],
  connections: [1, 16, 64],
  phases: ['first', 'replay'],
  rounds: 5,
  seconds: 2,
  /** How often all applications are started anew: no two processes of one side are equally fast. */
  generations: 1,
  nodes: ['24', 'own'],
  seed: 0,
  /** Requests for each phase that each process is warmed up with. */
  'warm-up': 4000,
  /** Requests before each measurement; as many keys are replayed. */
  lead: 250,
  /** Leaves a CPU profile of each application in dist/profiles, which costs a little. */
  profile: false,
} as const;

type Knobs = Settings<typeof KNOBS>;
type Measurements = Map<Subject, Sample[]>;

/** The Node.js that gets all numbers of connections is the first; this is the number for the others. */
const CONNECTIONS_OF_OTHERS = 16;

/** Sides whose statements are sent without an application as well, as they are sent by it: parsed each time, or prepared. */
export const CEILINGS: readonly CeilingSide[] = [
  { side: 'bare', prepared: false },
  { side: 'transaction', prepared: true },
];

export const throughput: Benchmark = {
  name: 'throughput',
  file: 'latest',
  smoke: [
    ...[
      '--rounds=1',
      '--seconds=0.1',
      '--nodes=own',
      '--adapters=express',
      '--connections=4',
      '--warm-up=10',
      '--lead=10',
    ],
    ...(hasRedis() ? [] : [`--sides=${SIDE_NAMES.filter((side) => side !== REDIS_SIDE).join()}`]),
  ],
  run,
};

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const ceilings = hasPgbench() ? CEILINGS : [];
  const { seed, results } = await measureThroughput(stage, knobs, ceilings);
  console.log(resultTable(results));
  if (!hasPgbench()) console.log(`\n${PGBENCH_REMEDY}`);
  return { settings: { ...knobs, seed, pool: POOL, wallets: WALLETS }, results };
}

/** Measures what the knobs say, and pgbench with the statements of some sides; tells with which seed. */
export async function measureThroughput(
  stage: Stage,
  knobs: Knobs,
  ceilingSides: readonly CeilingSide[],
): Promise<{ seed: number; results: Result[] }> {
  const seed = chooseSeed(knobs.seed);
  if (knobs.sides.includes(REDIS_SIDE) && !hasRedis()) {
    throw new Error(`redis-server is not installed. ${REDIS_REMEDY}`);
  }
  const measurements: Measurements = new Map(subjectsOf(knobs).map((subject) => [subject, []]));
  const { rounds, seconds } = knobs;
  console.log(
    `Seed ${seed}: ${measurements.size} measurements of ${seconds} s in each of ${rounds} rounds\n`,
  );
  const database = await stage.shop();
  const ceilings = await ceilingsOf(stage, database, knobs, ceilingSides);
  await measureCeilings(stage, database, ceilings, knobs);
  const random = seededRandom(seed);
  for (const rounds of generationsOf(knobs)) {
    const apps = await startApps(stage, database, shuffled([...measurements.keys()], random), knobs);
    await measureRounds({ stage, database, apps, knobs, measurements, random, rounds });
    for (const app of apps.values()) await app.end();
  }
  await measureCeilings(stage, database, ceilings, knobs);
  const measured = [...measurements].map(([subject, samples]) => ({ ...subject, samples }));
  return { seed, results: resultsFrom([...ceilings, ...measured]) };
}

function subjectsOf({ sides, phases, adapters, connections, nodes }: Knobs): Subject[] {
  const versions = [...new Set(nodes.map((node) => findNode(node).version))];
  const subjects: Subject[] = [];
  for (const [index, node] of versions.entries()) {
    const isOther = index > 0 && connections.includes(CONNECTIONS_OF_OTHERS);
    for (const adapter of adapters) {
      for (const count of isOther ? [CONNECTIONS_OF_OTHERS] : connections) {
        for (const side of sides) {
          for (const phase of phases as readonly Phase[]) {
            if (isUnprotected(side) && phase === 'replay') continue;
            subjects.push({ side, phase, adapter, connections: count, node });
          }
        }
      }
    }
  }
  return subjects;
}

/**
 * One process for each side, adapter and Node.js, which lives through several rounds: a new one would be measured cold. They
 * are started in random order, because those that wait for the others to be warm are the slower for it.
 */
async function startApps(
  stage: Stage,
  database: Database,
  subjects: readonly Subject[],
  { profile, 'warm-up': requests }: Knobs,
): Promise<Map<string, App>> {
  const apps = new Map<string, App>();
  for (const subject of subjects) {
    const { side, adapter, node } = subject;
    if (apps.has(appName(subject))) continue;
    if (adapter !== 'express' && adapter !== 'fastify')
      throw new Error(`There is no adapter named ${adapter}`);
    const runtime = findNode(node.split('.')[0]!);
    const nodeOptions = profile ? profiling(`${side}-${adapter}-${node}`) : [];
    const app = await stage.app({ side, adapter, database, node: runtime, nodeOptions });
    apps.set(appName(subject), app);
    await warmUp(stage, app, requests);
  }
  console.error(`${apps.size} applications are running and warm`);
  return apps;
}

function profiling(name: string): string[] {
  return [
    '--cpu-prof',
    `--cpu-prof-dir=${join(repository, 'dist', 'profiles')}`,
    `--cpu-prof-name=${name}.cpuprofile`,
  ];
}

function appName({ side, adapter, node }: Subject): string {
  return `${side} ${adapter} ${node}`;
}

interface Rounds {
  readonly stage: Stage;
  readonly database: Database;
  readonly apps: ReadonlyMap<string, App>;
  readonly knobs: Knobs;
  readonly measurements: Measurements;
  readonly random: () => number;
  readonly rounds: readonly number[];
}

async function measureRounds(all: Rounds): Promise<void> {
  const { stage, database, apps, knobs, measurements, random, rounds } = all;
  const started = performance.now();
  for (const round of rounds) {
    await emptyTables(stage, database);
    for (const [subject, samples] of shuffled([...measurements], random)) {
      const { phase, connections } = subject;
      const how = { phase, connections, milliseconds: knobs.seconds * 1000, lead: knobs.lead };
      samples.push(await measure(stage, apps.get(appName(subject))!, database, how));
    }
    const seconds = Math.round((performance.now() - started) / 1000);
    console.error(`Round ${round} of ${knobs.rounds}, ${seconds} s since the applications were warm`);
  }
}

interface CeilingSide {
  readonly side: string;
  readonly prepared: boolean;
}

interface Ceiling extends Measured {
  readonly script: PgbenchScript;
  readonly samples: Sample[];
}

async function ceilingsOf(
  stage: Stage,
  database: Database,
  { sides, connections }: Knobs,
  ceilingSides: readonly CeilingSide[],
): Promise<Ceiling[]> {
  const ceilings: Ceiling[] = [];
  for (const { side, prepared } of ceilingSides.filter((ceiling) => sides.includes(ceiling.side))) {
    const script = await scriptOf(stage, database, side, prepared);
    for (const count of connections) {
      const subject = { side: `pgbench: ${side}`, phase: 'first', adapter: 'none', node: 'none' } as const;
      ceilings.push({ ...subject, connections: count, script, samples: [] });
    }
  }
  return ceilings;
}

async function measureCeilings(
  stage: Stage,
  database: Database,
  ceilings: readonly Ceiling[],
  { seconds }: Knobs,
): Promise<void> {
  await emptyTables(stage, database);
  for (const { script, connections, samples } of ceilings) {
    samples.push(await runPgbench(stage, database, script, connections, seconds * 1000));
  }
}
