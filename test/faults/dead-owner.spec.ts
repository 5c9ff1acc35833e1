import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Reconciliation } from 'nestjs-pg-idempotency';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { startApplicationProcess } from '../helpers/application-process.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import {
  leaseProgram,
  startLeaseApplication,
  type Reconcile,
  type Route,
} from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow, untilLapsed } from '../helpers/leases.js';
import { createShop, shopState } from '../helpers/shop.js';

/*
 * One owner dies with a request on each of these keys in its handler; the tests then ask another instance for them.
 */
const KEYS = {
  refuse: ['refused', 'refused-other-body'],
  rerun: ['rerun', 'rerun-other-body', 'rerun-rivals'],
  reconcile: ['completed', 'released', 'unknown', 'throwing', 'hanging', 'reconcile-rivals', 'other-body'],
  long: ['held'],
} as const satisfies Partial<Record<Route, readonly string[]>>;

describe.each(ADAPTERS)('an owner that was killed (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;
  /** What the route `reconcile` finds out, whichever instance asks. */
  const unknown: Reconcile = () => ({ outcome: 'unknown' });
  let reconcile = unknown;
  /** The key that each dead attempt had for the outside service. */
  const derived = new Map<string, string>();

  const start = (): Promise<Application> =>
    startLeaseApplication({ adapter, database, reconcile: (unresolved) => reconcile(unresolved) });

  const send = (route: Route, key: string, body: unknown = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, body, { 'Idempotency-Key': key });

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    const owner = await startApplicationProcess(leaseProgram({ adapter, databaseUrl: database.url }));
    await owner.block('handler');
    for (const [route, keys] of Object.entries(KEYS)) {
      for (const key of keys) {
        // Nobody ever answers these.
        postJson(`${owner.url}/${route}`, {}, { 'Idempotency-Key': key }).catch(() => undefined);
        derived.set(key, (await owner.milestone('entered 1')).split(' ')[2]!);
      }
    }
    await owner.kill();
    app = await start();
  });

  afterEach(() => {
    app.reset();
    reconcile = unknown;
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it('is in progress until its lease has run out, and Retry-After says how long that is', async () => {
    const answer = await send('long', 'held');
    expectProblem(answer, 409, 'IDEMPOTENCY_IN_PROGRESS');
    const { locked_until: lockedUntil } = (await leaseRow(database, 'held'))!;
    const remaining = (lockedUntil!.getTime() - Date.now()) / 1_000;
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(Math.ceil(remaining));
    expect(Number(answer.headers['retry-after'])).toBeLessThanOrEqual(Math.ceil(remaining) + 2);
    expect(app.milestones).toEqual([]);
  });

  it('leaves an unknown outcome, which is refused and names the attempt', async () => {
    await untilLapsed(database, 'refused');
    for (const retry of [await send('refuse', 'refused'), await send('refuse', 'refused')]) {
      expectProblem(retry, 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
      expect((retry.json() as { detail: string }).detail).toContain('Attempt 1');
    }
    expect(app.milestones).toEqual([]);
  });

  it.each([
    ['refuse', 'refused-other-body'],
    ['rerun', 'rerun-other-body'],
    ['reconcile', 'other-body'],
  ] as const)('does not lend its key to a different request (%s)', async (route, key) => {
    await untilLapsed(database, key);
    expectProblem(await send(route, key, { other: true }), 422, 'IDEMPOTENCY_KEY_REUSED');
    expect(app.milestones).toEqual([]);
    expect(await leaseRow(database, key)).toMatchObject({ status: 'processing', attempt: 1 });
  });

  it('is succeeded by the next attempt where the route says rerun, with the same derived key', async () => {
    await untilLapsed(database, 'rerun');
    const second = await send('rerun', 'rerun');
    expect(second.status).toBe(201);
    expect(app.milestones[0]).toBe(`entered 2 ${derived.get('rerun')}`);
    expectReplay(await send('rerun', 'rerun'), second);
    expect(app.milestones.filter((milestone) => milestone.startsWith('entered'))).toHaveLength(1);
  });

  it('is succeeded by one of several retries that come at once', async () => {
    await untilLapsed(database, 'rerun-rivals');
    const second = await start();
    for (const each of [app, second]) each.block('handler');
    const urls = [app.url, second.url, app.url, second.url, app.url, second.url];
    const answers = urls.map((url) => postJson(`${url}/rerun`, {}, { 'Idempotency-Key': 'rerun-rivals' }));
    const entered = (): string[] => [...app.milestones, ...second.milestones];
    await eventually(() => entered().length > 0);
    const losers = await Promise.race([Promise.all(answers), firstOf(answers, urls.length - 1)]);
    for (const loser of losers) expectProblem(loser, 409, 'IDEMPOTENCY_IN_PROGRESS');
    for (const each of [app, second]) each.unblock('handler');
    const statuses = (await Promise.all(answers)).map(({ status }) => status).sort();
    expect(statuses).toEqual([201, 409, 409, 409, 409, 409]);
    expect(entered().filter((milestone) => milestone.startsWith('entered'))).toEqual([
      `entered 2 ${derived.get('rerun-rivals')}`,
    ]);
    await second.close();
  });

  describe('whose outcome a handler finds out', () => {
    it('completed: what it says is the answer from now on, and nothing runs', async () => {
      await untilLapsed(database, 'completed');
      const asked: unknown[] = [];
      reconcile = (unresolved) => {
        asked.push({ ...unresolved, derived: unresolved.deriveKey('charge') });
        return {
          outcome: 'completed',
          response: { status: 201, body: { charge: 7 }, headers: { 'X-Charge': '7' } },
        };
      };
      const first = await send('reconcile', 'completed');
      expect({ status: first.status, body: first.json() }).toEqual({ status: 201, body: { charge: 7 } });
      expect(first.headers).toMatchObject({ 'x-charge': '7', 'idempotency-replayed': 'true' });
      expectReplay(await send('reconcile', 'completed'), first);
      expect(asked).toMatchObject([
        { client: 'tests', key: 'completed', attempt: 1, derived: derived.get('completed') },
      ]);
      expect(app.milestones).toEqual([]);
    });

    it('released: it runs as the second attempt', async () => {
      await untilLapsed(database, 'released');
      reconcile = () => ({ outcome: 'released' });
      const second = await send('reconcile', 'released');
      expect(second.status).toBe(201);
      expect(app.milestones[0]).toBe(`entered 2 ${derived.get('released')}`);
      expectReplay(await send('reconcile', 'released'), second);
    });

    it('unknown: it is refused, and asked for again by the next request', async () => {
      await untilLapsed(database, 'unknown');
      const attempts: number[] = [];
      reconcile = ({ attempt }) => {
        attempts.push(attempt);
        return { outcome: 'unknown' };
      };
      for (let request = 0; request < 3; request++) {
        const refused = await send('reconcile', 'unknown');
        expectProblem(refused, 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
        expect((refused.json() as { detail: string }).detail).toContain('Attempt 1');
      }
      expect(attempts).toEqual([1, 1, 1]);
      reconcile = () => ({ outcome: 'released' });
      expect((await send('reconcile', 'unknown')).status).toBe(201);
      expect(app.milestones[0]).toMatch(/^entered 2/);
    });

    it('throwing: as unknown', async () => {
      await untilLapsed(database, 'throwing');
      let asked = 0;
      reconcile = () => {
        asked++;
        throw new Error('the provider is down');
      };
      for (let request = 0; request < 2; request++) {
        expectProblem(await send('reconcile', 'throwing'), 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
      }
      expect(asked).toBe(2);
    });

    it('hanging: as unknown once the time that a request may take is over', async () => {
      await untilLapsed(database, 'hanging');
      reconcile = () => new Promise(() => undefined);
      const startedAt = performance.now();
      expectProblem(await send('reconcile', 'hanging'), 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
      expect(performance.now() - startedAt).toBeGreaterThanOrEqual(1_400);
      reconcile = () => ({ outcome: 'released' });
      expect((await send('reconcile', 'hanging')).status).toBe(201);
    });

    it('asks once for several requests that come at once', async () => {
      await untilLapsed(database, 'reconcile-rivals');
      const second = await start();
      let asked = 0;
      const found = deferred<Reconciliation>();
      reconcile = () => {
        asked++;
        return found.promise;
      };
      const urls = [app.url, second.url, app.url, second.url];
      const answers = urls.map((url) =>
        postJson(`${url}/reconcile`, {}, { 'Idempotency-Key': 'reconcile-rivals' }),
      );
      for (const loser of await firstOf(answers, 3)) expectProblem(loser, 409, 'IDEMPOTENCY_IN_PROGRESS');
      found.resolve({ outcome: 'completed', response: { status: 202 } });
      expect((await Promise.all(answers)).map(({ status }) => status).sort()).toEqual([202, 409, 409, 409]);
      expect(asked).toBe(1);
      await second.close();
    });
  });

  it('has left nothing behind but what its successors did', async () => {
    const attempts = await database.query<{ item: string }>('SELECT item FROM orders');
    expect(new Set(attempts.map(({ item }) => item))).toEqual(new Set(['attempt 2']));
    expect((await shopState(database)).records).toBe(Object.values(KEYS).flat().length);
  });
});

/** The first so many to be answered. */
async function firstOf(answers: readonly Promise<HttpResponse>[], count: number): Promise<HttpResponse[]> {
  const all: HttpResponse[] = [];
  await new Promise<void>((resolve, reject) => {
    for (const answer of answers) {
      answer.then((response) => {
        all.push(response);
        if (all.length === count) resolve();
      }, reject);
    }
  });
  return all.slice(0, count);
}
