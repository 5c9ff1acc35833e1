import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { statementsFor } from '../../lib/store/sql.js';
import { ADAPTERS } from '../helpers/application.js';
import type { Place, TracedProcess } from '../helpers/application-process.js';
import { eventually } from '../helpers/conditions.js';
import { amount, chooseSeed, printFigures, seededRandom } from '../helpers/fault-run.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { untilLapsed } from '../helpers/leases.js';
import { concurrently, KillTally } from '../helpers/kill-run.js';
import { retryUntilAnswered } from '../helpers/retrying-client.js';
import { startFaultScene, type FaultScene } from './scene.js';
import { FAULT_ROUTES, type FaultRoute } from './application.js';

/*
 * A process is killed before, within and after each of its writes while it serves one request: each statement that it sends
 * to the database, what it sends to the provider, and its response. Which writes there are is not listed here but found
 * out by tracing a run without a kill. A client retries under the same key, at another instance, until it is answered.
 */

jest.setTimeout(amount({ short: 900_000, full: 3_600_000 }));

const MODES = ['transaction', 'lease'] as const satisfies readonly FaultRoute[];
const MOMENTS = ['before', 'within', 'after'] as const;
/** How many points of each mode a short run takes. */
const SAMPLE = 2;
/** How many processes start or die at a time; most of their life is boot, which wants a core each. */
const AT_ONCE = 4;

const STATEMENTS = statementsFor({
  schema: 'public',
  name: 'idempotency_records',
  isPartitioned: false,
  serverVersion: 180_000,
});
/** What a first request sends. */
const FIRST = ['begin', 'lock', 'look', 'savepoint', 'insert', 'record', 'commit', 'client'];
const LOOK = 'look';
const NAMES = new Map(
  Object.entries(STATEMENTS).flatMap(([name, text]) => (typeof text === 'string' ? [[text, name]] : [])),
);

/** What is behind a request when it reaches the process that is to die. */
type Past =
  /** Nothing. */
  | 'first'
  /** It was answered, and is sent again. */
  | 'replay'
  /** Its owner died in the handler, and its lease has lapsed. */
  | 'takeover';

const PASTS = { transaction: ['first', 'replay'], lease: ['first', 'replay', 'takeover'] } as const;

interface Point {
  readonly route: FaultRoute;
  readonly past: Past;
  readonly moment: (typeof MOMENTS)[number];
  readonly place: Place;
}

interface Strike extends Point {
  /** Where a write is cut in two, in percent. */
  readonly cut: number;
  /** Whether somebody else asks under the same key as soon as the process is dead. */
  readonly hasRival: boolean;
}

describe.each(ADAPTERS)('killed at every point (%s)', (adapter) => {
  const seed = chooseSeed();
  let scene: FaultScene;
  /** The writes of a run without a kill, for each path and past. */
  const traces = new Map<string, readonly Place[]>();
  let keys = 0;
  /** Keys whose owner died, and whose lease has lapsed. */
  const orphans: string[] = [];

  const nextKey = (what: string): string => `${what}-${++keys}`;

  const victims: TracedProcess[] = [];
  /** Those that have been started for something that they did not die of. */
  const spare: TracedProcess[] = [];
  const start = async (): Promise<TracedProcess> => {
    const victim = spare.pop() ?? (await scene.startDoomed());
    victims.push(victim);
    return victim;
  };

  beforeAll(async () => {
    scene = await startFaultScene(adapter);
    orphans.push(...(await bereave(1 + SAMPLE)));
    const victim = await start();
    for (const mode of MODES) {
      for (const past of PASTS[mode])
        traces.set(`${mode} ${past}`, await trace(victim, mode, await keyWith(mode, past)));
      const path = FAULT_ROUTES[mode];
      traces.set(path, await trace(victim, path, nextKey('traced')));
    }
    spare.push(victim);
  });

  afterAll(async () => {
    await Promise.all(victims.map((victim) => victim.kill()));
    await scene.close();
  });

  it('knows the points from a traced run', () => {
    const first = [...tags('transaction first')];
    expect(first).toEqual(expect.arrayContaining(FIRST));
    expect(tags('transaction replay')).toEqual(expect.arrayContaining([LOOK, 'client']));
    expect(tags('lease first')).toEqual(
      expect.arrayContaining([
        ...['claim', 'extend', 'provider', 'begin', 'fenceLock', 'fence', 'insert', 'commit'],
        ...['completeLease', 'client'],
      ]),
    );
    expect(tags('lease takeover')).toEqual(
      expect.arrayContaining(['claim', 'takeOver', 'provider', 'completeLease', 'client']),
    );
    expect(first.at(-1)).toBe('client');
  });

  it.each(MODES)('has one effect and one answer (%s)', async (mode) => {
    const random = seededRandom(seed);
    const all = PASTS[mode].flatMap((past) => pointsOf(mode, past, `${mode} ${past}`));
    const points = random
      .shuffle(all)
      .slice(0, amount({ short: SAMPLE, full: all.length }))
      .map((point) => ({ ...point, cut: random.below(100), hasRival: random.percent(50) }));
    const takeovers = points.filter(({ past }) => past === 'takeover').length;
    orphans.push(...(await bereave(takeovers - orphans.length)));
    const tally = new KillTally();
    const violations: string[] = [];
    await concurrently(points, AT_ONCE, async (point) => {
      const key = await keyWith(mode, point.past);
      const { answers, hit } = await strike(point, mode, key, tally);
      if (!hit) violations.push(`${nameOf(point)}: not reached`);
      const found = await scene.violations(mode, key, answers);
      violations.push(...found.map((violation) => `${nameOf(point)}: ${violation}`));
      tally.effects += await scene.effects(mode, key);
    });
    printFigures(`kill at every point, ${mode}, ${adapter}`, seed, {
      points: `${points.length}/${all.length}`,
      ...tally.figures,
      violations: violations.length,
    });
    expect(violations).toEqual([]);
    expect(tally.kills).toBe(points.length);
    expect(tally.effects).toBe(points.length);
  });

  it.each(MODES)('has more than one where nothing protects it (%s)', async (mode) => {
    const random = seededRandom(seed);
    const path = FAULT_ROUTES[mode];
    const all = pointsOf(mode, 'first', path);
    // An effect without an answer: the one point at which an unprotected handler cannot but repeat itself.
    const unanswered = all.find(({ place, moment }) => place.peer === 'client' && moment === 'before')!;
    const others = random.shuffle(all.filter((point) => point !== unanswered));
    const points = [unanswered, ...others]
      .slice(0, amount({ short: 1, full: all.length }))
      .map((point) => ({ ...point, cut: random.below(100), hasRival: false }));
    const tally = new KillTally();
    let duplicates = 0;
    await concurrently(points, AT_ONCE, async (point) => {
      const key = nextKey('control');
      await strike(point, path, key, tally);
      const effects = await scene.effects(mode, key);
      tally.effects += effects;
      duplicates += effects - 1;
    });
    printFigures(`control without protection, ${mode}, ${adapter}`, seed, {
      points: `${points.length}/${all.length}`,
      ...tally.figures,
      duplicates,
    });
    expect(tally.kills).toBe(points.length);
    expect(duplicates).toBeGreaterThan(0);
  });

  /** Has a process serve the key, which dies at that point, and everybody who wants an answer ask the survivor then. */
  async function strike(
    { place, moment, cut, hasRival }: Strike,
    path: string,
    key: string,
    tally: KillTally,
  ): Promise<{ readonly answers: readonly HttpResponse[]; readonly hit: boolean }> {
    const victim = await start();
    const share = { before: 0, within: (1 + cut) / 101, after: 1 }[moment];
    await victim.arm({ place, share }, watchOf(path));
    const urls = [victim.url];
    const first = retryUntilAnswered(() => `${urls.shift() ?? scene.survivor.url}/${path}`, { key });
    const hit = await victim.died();
    const askers = [first];
    if (hasRival) askers.push(retryUntilAnswered(`${scene.survivor.url}/${path}`, { key }));
    const answered = await Promise.all(askers);
    for (const { attempts } of answered) tally.count(attempts);
    if (hit) tally.kills++;
    return { answers: answered.map(({ answer }) => answer), hit };
  }

  async function trace(victim: TracedProcess, path: string, key: string): Promise<readonly Place[]> {
    const serve = async (): Promise<void> => {
      const { status, text } = await postJson(`${victim.url}/${path}`, {}, { 'Idempotency-Key': key });
      expect({ path, status, text }).toMatchObject({ status: 201 });
      // What it has left to do when it has answered belongs to the request, too.
      await eventually(async () => {
        const [busy] = await scene.database.query<{ count: number }>(
          `SELECT count(*)::int FROM pg_stat_activity
            WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()`,
        );
        return busy!.count === 0;
      });
    };
    return (await victim.trace(serve, watchOf(path))).places;
  }

  async function keyWith(mode: FaultRoute, past: Past): Promise<string> {
    if (past === 'takeover') return orphans.shift()!;
    const key = nextKey(past);
    if (past === 'replay') await postJson(`${scene.survivor.url}/${mode}`, {}, { 'Idempotency-Key': key });
    return key;
  }

  /** Keys of an owner that died in its handlers. */
  async function bereave(count: number): Promise<string[]> {
    if (count <= 0) return [];
    const orphaned = Array.from({ length: count }, () => nextKey('orphan'));
    // Waiting for what never comes, it never gets as far as the provider.
    const owner = await start();
    const claimAll = async (): Promise<void> => {
      for (const key of orphaned)
        postJson(`${owner.url}/lease`, {}, { 'Idempotency-Key': key }).catch(() => undefined);
      await eventually(async () => {
        const rows = await scene.database.query('SELECT FROM idempotency_records WHERE key = ANY ($1)', [
          orphaned,
        ]);
        return rows.length === count;
      });
    };
    await owner.trace(claimAll, { holdProviderUntil: 'never' });
    await owner.kill();
    for (const key of orphaned) await untilLapsed(scene.database, key);
    return orphaned;
  }

  function pointsOf(route: FaultRoute, past: Past, traced: string): Point[] {
    return traces.get(traced)!.flatMap((place) => MOMENTS.map((moment) => ({ route, past, moment, place })));
  }

  function tags(traced: string): string[] {
    return traces.get(traced)!.flatMap(tagsOf);
  }
});

/**
 * Short names for what was written: of the library's statements, or the first word of others, or who it went to. One write may
 * hold several statements.
 */
function tagsOf({ peer, what }: Place): string[] {
  if (peer !== 'database') return [peer];
  return what.split('; ').map((text) => NAMES.get(text) ?? /^\s*(\w+)/.exec(text)![1]!.toLowerCase());
}

function nameOf({ route, past, moment, place }: Point): string {
  return `${route}, ${past}, ${moment} ${tagsOf(place).join('+')} ${place.occurrence}`;
}

/** Held up until its lease has been extended, a request in lease mode has a heartbeat to be killed at. */
function watchOf(path: string): { holdProviderUntil?: string } {
  return path === 'lease' ? { holdProviderUntil: STATEMENTS.extend } : {};
}
