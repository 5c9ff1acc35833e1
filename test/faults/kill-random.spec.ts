import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { ADAPTERS } from '../helpers/application.js';
import type { TracedProcess } from '../helpers/application-process.js';
import { amount, chooseSeed, printFigures, seededRandom, type Random } from '../helpers/fault-run.js';
import type { HttpResponse } from '../helpers/http.js';
import { KillTally } from '../helpers/kill-run.js';
import { retryUntilAnswered } from '../helpers/retrying-client.js';
import { startFaultScene, type FaultScene } from './scene.js';
import { FAULT_ROUTES, type FaultRoute } from './application.js';

/*
 * A process is killed under load, in one half of the rounds after a number of bytes that it wrote to whomever, in the other
 * half at a moment. For some keys a second client asks a second instance from the start. All clients retry until they are
 * answered; those whose instance has died go to the other one.
 */

jest.setTimeout(amount({ short: 900_000, full: 3_600_000 }));

/** Requests at a time. More than a pool has connections, so that some die while they wait for one. */
const KEYS = 14;
/** How often an unprotected handler may get away with it before a run counts as having shown nothing. */
const MAX_CONTROL_ROUNDS = 20;

interface Load {
  readonly key: string;
  readonly route: FaultRoute;
  readonly hasRival: boolean;
}

describe.each(ADAPTERS)('killed under load (%s)', (adapter) => {
  const seed = chooseSeed();
  let scene: FaultScene;
  let keys = 0;
  const victims: TracedProcess[] = [];
  /** Started for something that it did not die of. */
  const spare: TracedProcess[] = [];
  /** What a load takes that nobody disturbs. */
  const whole = { bytes: 0, milliseconds: 0 };

  beforeAll(async () => {
    scene = await startFaultScene(adapter);
    const victim = await start();
    const load = drawLoad(seededRandom(seed), 'measured');
    const startedAt = performance.now();
    const { bytes } = await victim.trace(() =>
      Promise.all(load.map(({ route, key }) => retryUntilAnswered(`${victim.url}/${route}`, { key }))),
    );
    Object.assign(whole, { bytes, milliseconds: Math.ceil(performance.now() - startedAt) });
    spare.push(victim);
  });

  afterAll(async () => {
    await Promise.all(victims.map((victim) => victim.kill()));
    await scene.close();
  });

  it('has one effect and one answer for each key', async () => {
    const random = seededRandom(seed);
    const tally = new KillTally();
    const violations: string[] = [];
    const kills = amount({ short: 2, full: 24 });
    let rounds = 0;
    // A process may be through with its load before it dies; such rounds count for nothing but their violations.
    for (; tally.kills < kills && rounds < 3 * kills; rounds++) {
      const load = drawLoad(random, 'loaded');
      const answers = await killUnder(load, random.fork(), rounds % 2 === 0, (route) => route, tally);
      for (const { route, key } of load) {
        violations.push(...(await scene.violations(route, key, answers.get(key)!)));
        tally.effects += await scene.effects(route, key);
      }
    }
    printFigures(`kill under load, ${adapter}`, seed, { ...tally.figures, violations: violations.length });
    expect(violations).toEqual([]);
    expect(tally.kills).toBe(kills);
    expect(tally.effects).toBe(rounds * KEYS);
  });

  it('has more than one where nothing protects them', async () => {
    const random = seededRandom(seed);
    const tally = new KillTally();
    let duplicates = 0;
    const rounds = amount({ short: 1, full: 8 });
    for (let round = 0; round < rounds || (duplicates === 0 && round < MAX_CONTROL_ROUNDS); round++) {
      // Who asks twice gets two effects without any fault, which would prove nothing.
      const load = drawLoad(random, 'control').map((each) => ({ ...each, hasRival: false }));
      await killUnder(load, random.fork(), round % 2 === 0, (route) => FAULT_ROUTES[route], tally);
      for (const { route, key } of load) {
        const effects = await scene.effects(route, key);
        tally.effects += effects;
        duplicates += effects - 1;
      }
    }
    printFigures(`control under load without protection, ${adapter}`, seed, {
      ...tally.figures,
      duplicates,
    });
    expect(duplicates).toBeGreaterThan(0);
  });

  /** Kills a process that serves the load, and resolves with everybody's answers when they have them. */
  async function killUnder(
    load: readonly Load[],
    random: Random,
    atByte: boolean,
    pathOf: (route: FaultRoute) => string,
    tally: KillTally,
  ): Promise<Map<string, HttpResponse[]>> {
    const victim = await start();
    const death = { isPast: false };
    void victim.gone.then(() => (death.isPast = true));
    if (atByte) await victim.armAtByte(random.below(whole.bytes));
    const anywhere = (): string => (death.isPast ? scene.survivor.url : victim.url);
    const answers = new Map<string, HttpResponse[]>(load.map(({ key }) => [key, []]));
    const ask = async (origin: () => string, { key, route }: Load): Promise<void> => {
      const { answer, attempts } = await retryUntilAnswered(() => `${origin()}/${pathOf(route)}`, { key });
      answers.get(key)!.push(answer);
      tally.count(attempts);
    };
    const all = load.flatMap((each) => [
      ask(anywhere, each),
      ...(each.hasRival ? [ask(() => scene.survivor.url, each)] : []),
    ]);
    const moment = atByte
      ? undefined
      : setTimeout(() => void victim.kill(), random.below(whole.milliseconds));
    await Promise.all(all);
    clearTimeout(moment);
    if (death.isPast) tally.kills++;
    await victim.kill();
    return answers;
  }

  function drawLoad(random: Random, name: string): Load[] {
    return Array.from({ length: KEYS }, () => ({
      key: `${name}-${++keys}`,
      route: random.pick(['transaction', 'lease'] as const),
      hasRival: random.percent(40),
    }));
  }

  async function start(): Promise<TracedProcess> {
    const victim = spare.pop() ?? (await scene.startDoomed());
    victims.push(victim);
    return victim;
  }
});
