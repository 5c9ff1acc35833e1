import type { App } from './app.js';
import { cpuOfFamily, preciseCpuOf } from './cpu.js';
import type { AppLoad } from './load-maker.js';
import type { Database } from './postgres.js';
import { WALLETS } from '../apps/shop.js';
import { isUnprotected } from './side-names.js';
import type { Stage } from './stage.js';

/** First requests, each under a new key, or repetitions of what was answered before. */
export type Phase = 'first' | 'replay';

/** One measurement of one application. Times are milliseconds; CPU time is per request. */
export interface Sample {
  readonly rps: number;
  readonly p50: number;
  readonly p99: number;
  readonly cpuApp: number;
  /** Of PostgreSQL, and of Redis where it is used. Undefined where the server is not ours. */
  readonly cpuDatabase: number | undefined;
  readonly cpuLoad: number;
  readonly requests: number;
}

/** How to measure. */
export interface Measurement {
  readonly phase: Phase;
  readonly connections: number;
  readonly milliseconds: number;
  /** Requests that are sent before and not counted: they open connections, and leave what is replayed. */
  readonly lead: number;
}

const PATH = '/orders';
const LEAD_CONNECTIONS = 16;

/**
 * Sends requests that are not measured until the code is compiled, in both phases: as many to a side that has no replays, for
 * it to be no colder than those that it is compared with.
 */
export async function warmUp(stage: Stage, app: App, requests: number): Promise<void> {
  if (requests === 0) return;
  const load = { path: PATH, connections: LEAD_CONNECTIONS, requests };
  const first = { kind: 'first', wallets: WALLETS } as const;
  await stage.load.run(app, { ...load, source: first, remember: true });
  const source = isUnprotected(app.settings.side) ? first : ({ kind: 'again' } as const);
  await stage.load.run(app, { ...load, source });
}

/**
 * Measures one phase of one application.
 *
 * @throws Error for a wrong answer, and when the answers are not what happened in the database.
 */
export async function measure(stage: Stage, app: App, database: Database, how: Measurement): Promise<Sample> {
  const first = { kind: 'first', wallets: WALLETS } as const;
  const lead = {
    path: PATH,
    connections: LEAD_CONNECTIONS,
    requests: how.lead,
    source: first,
    remember: true,
  };
  await stage.load.run(app, lead);
  const orders = await ordersIn(database);
  const { connections, milliseconds } = how;
  const source = how.phase === 'first' ? first : ({ kind: 'again' } as const);
  const sample = await measureLoad(stage, app, { path: PATH, connections, milliseconds, source });
  const made = (await ordersIn(database)) - orders;
  const expected = how.phase === 'first' ? sample.requests : 0;
  if (made !== expected) {
    throw new Error(`${app.name}: ${sample.requests} requests were answered, and ${made} orders were made`);
  }
  return sample;
}

/** Measures one load. */
export async function measureLoad(stage: Stage, app: App, load: AppLoad): Promise<Sample> {
  const before = await cpuTimes(stage, app);
  const result = await stage.load.run(app, load);
  const after = await cpuTimes(stage, app);
  const perRequest = (start: number | undefined, end: number | undefined): number | undefined =>
    start === undefined || end === undefined ? undefined : (end - start) / result.requests;
  return {
    rps: (result.requests * 1000) / result.elapsed,
    p50: result.p50,
    p99: result.p99,
    cpuApp: perRequest(before.app, after.app) ?? 0,
    cpuDatabase: perRequest(before.servers, after.servers),
    cpuLoad: result.cpu / result.requests,
    requests: result.requests,
  };
}

/** Makes every round begin with the same tables, so that those measured late do not work on larger ones. */
export async function emptyTables(stage: Stage, database: Database): Promise<void> {
  await database.query('TRUNCATE orders, idempotency_records, handwritten_requests');
  await database.query('VACUUM ANALYZE wallets');
  await stage.postgres.checkpoint();
}

/** Orders that were made since the tables were emptied. */
export function ordersIn(database: Database): Promise<number> {
  return database.number('SELECT count(*) FROM orders');
}

async function cpuTimes(
  stage: Stage,
  app: App,
): Promise<{ app: number | undefined; servers: number | undefined }> {
  const pids = stage.serversOf(app.settings.side);
  const servers = await Promise.all(
    pids.map(async (pid) => (pid === undefined ? undefined : cpuOfFamily(pid))),
  );
  const total = servers.includes(undefined) ? undefined : servers.reduce<number>((sum, cpu) => sum + cpu!, 0);
  return { app: await preciseCpuOf(app.pid), servers: total };
}
