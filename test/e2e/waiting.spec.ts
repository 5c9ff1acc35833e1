import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { BadGatewayException, ConflictException } from '@nestjs/common';
import { ADAPTERS, Application as Stage, type HeldHandler } from '../helpers/application.js';
import { isClaim } from '../helpers/commit-faults.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { startRequest, type HttpRequestInFlight, type HttpResponse } from '../helpers/http.js';
import { createShop, resetShop, shopState } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const POOL_SIZE = 2;
const MAX_WAITERS = 1_100;

describe.each(ADAPTERS)('duplicates in one process (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let stage: Stage;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    stage = await Stage.start({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      poolSize: POOL_SIZE,
      routes: {
        slow: { whenInProgress: { wait: '5m' }, maxDuration: '5m' },
        short: { whenInProgress: { wait: 50 } },
        reject: { whenInProgress: 'reject' },
        early: { whenInProgress: 'reject', answers: { inProgress: 425 } },
        unavailable: { whenInProgress: 'reject', answers: { inProgress: 503 } },
        lease: { mode: 'lease', whenInProgress: { wait: '5m' }, maxDuration: '5m' },
      },
      idempotency: { maxWaiters: MAX_WAITERS, acquireTimeout: 2_000 },
    });
  });

  afterEach(async () => {
    stage.reset();
    await resetShop(database);
  });

  afterAll(async () => {
    await stage.close();
    await proxy.close();
    await database.drop();
  });

  const expectReplays = (answers: readonly HttpResponse[], original: HttpResponse): void => {
    const { status, text } = original;
    expect(answers.map((answer) => ({ status: answer.status, text: answer.text }))).toEqual(
      answers.map(() => ({ status, text })),
    );
  };

  it.each(['slow', 'lease'])(
    'run once for 1,000 at a time on a pool of 2, and all get the same bytes (%s)',
    async (route) => {
      const handler = stage.hold();
      const first = stage.send(route, 'thousand');
      await handler.entered;
      const heapBefore = usedHeap();
      const { answers } = await stage.sendAndArrive(999, route, 'thousand');
      // Both ends of every connection are in this process: what one waiter needs is a small part of it.
      expect((usedHeap() - heapBefore) / 999).toBeLessThan(256 * 1024);
      expect(stage.pool().waiting).toBe(0);
      expect(stage.pool().total - stage.pool().idle).toBe(route === 'lease' ? 0 : 1);
      handler.end();
      const original = await first;
      expect(original.status).toBe(201);
      expectReplays(await answers, original);
      expect(stage.scenes).toHaveLength(1);
      expect(stage.eventsOf('waited')).toHaveLength(999);
      expect(stage.eventsOf('replayed')).toHaveLength(999);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    },
  );

  it('refuses those past the cap at once, and answers the others', async () => {
    const handler = stage.hold();
    const first = stage.send('slow', 'cap');
    await handler.entered;
    const { answers } = await stage.sendAndArrive(MAX_WAITERS, 'slow', 'cap');
    const refused = await Promise.all([stage.send('slow', 'cap'), stage.send('slow', 'cap')]);
    for (const answer of refused) expectInProgress(answer, 409);
    handler.end();
    expectReplays(await answers, await first);
    expectReplays([await stage.send('slow', 'cap')], await first);
  });

  it('are told apart without a connection while handlers hold all of them', async () => {
    const held = [stage.hold()];
    const running = [stage.send('reject', 'held-0')];
    await held[0]!.entered;
    held.push(stage.hold());
    running.push(stage.send('slow', 'held-1'));
    await held[1]!.entered;
    expect(stage.pool()).toEqual({ total: POOL_SIZE, idle: 0, waiting: 0 });

    expectInProgress(await stage.send('reject', 'held-0'), 409);
    const { answers } = await stage.sendAndArrive(10, 'slow', 'held-1');
    expect(stage.pool()).toEqual({ total: POOL_SIZE, idle: 0, waiting: 0 });
    held[1]!.end();
    expectReplays(await answers, await running[1]!);
    held[0]!.end();
    expect((await running[0]!).status).toBe(201);
  });

  it.each([
    ['reject', 409],
    ['early', 425],
    ['unavailable', 503],
    ['short', 409],
  ])('get the in-progress answer of the route when waiting ends (%s: %i)', async (route, status) => {
    const handler = stage.hold();
    const first = stage.send(route, `answer-${route}`);
    await handler.entered;
    const duplicate = await stage.send(route, `answer-${route}`);
    expectInProgress(duplicate, status);
    expect(duplicate.headers['idempotency-key']).toBe(`answer-${route}`);
    expect(duplicate.headers['idempotency-replayed']).toBeUndefined();
    expect(stage.eventsOf('waited')).toHaveLength(route === 'short' ? 1 : 0);
    expect(stage.eventsOf('rejected')).toHaveLength(1);
    handler.end();
    expect((await first).status).toBe(201);
  });

  it('are told to come back when the original has probably ended', async () => {
    const handler = stage.hold();
    const first = stage.send('reject', 'retry-after');
    await handler.entered;
    const startedAt = performance.now();
    const early = Number((await stage.send('reject', 'retry-after')).headers['retry-after']);
    expect(early).toBeGreaterThanOrEqual(1);
    expect(early).toBeLessThanOrEqual(Math.ceil((performance.now() - startedAt) / 1_000) + 1);
    await eventually(() => performance.now() - startedAt > 1_100);
    const later = Number((await stage.send('reject', 'retry-after')).headers['retry-after']);
    expect(later).toBeGreaterThanOrEqual(2);
    expect(later).toBeLessThanOrEqual(Math.ceil((performance.now() - startedAt) / 1_000) + 1);
    handler.end();
    await first;
  });

  it('replay a recorded error of the original', async () => {
    const handler = stage.hold();
    const first = stage.send('slow', 'conflict');
    await handler.entered;
    const { answers } = await stage.sendAndArrive(5, 'slow', 'conflict');
    handler.end(() => {
      throw new ConflictException('sold out');
    });
    expect((await first).status).toBe(409);
    expectReplays(await answers, await first);
    expect((await answers).every(({ headers }) => headers['idempotency-replayed'] === 'true')).toBe(true);
  });

  it('run themselves, one of them, when the original fails', async () => {
    const handler = stage.hold();
    const first = stage.send('slow', 'failing');
    await handler.entered;
    const { answers } = await stage.sendAndArrive(20, 'slow', 'failing');
    handler.end(() => {
      throw new BadGatewayException();
    });
    expect((await first).status).toBe(502);
    const originals = (await answers).filter(({ headers }) => headers['idempotency-replayed'] === undefined);
    expect(originals).toHaveLength(1);
    expect(originals[0]!.status).toBe(201);
    expectReplays(await answers, originals[0]!);
    expect(stage.scenes).toHaveLength(2);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('run again one after the other while each of them fails, and all are answered', async () => {
    const handler = stage.hold();
    const first = stage.send('slow', 'hopeless');
    await handler.entered;
    const { answers } = await stage.sendAndArrive(5, 'slow', 'hopeless');
    let running = 0;
    let most = 0;
    const fail = async (): Promise<never> => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      throw new BadGatewayException();
    };
    stage.acts(fail);
    handler.end(fail);
    expect([await first, ...(await answers)].map(({ status }) => status)).toEqual(Array(6).fill(502));
    expect(stage.scenes).toHaveLength(6);
    expect(most).toBe(1);
  });

  it('are refused after the wait when their body is another', async () => {
    const handler = stage.hold();
    const first = stage.send('slow', 'other-body');
    await handler.entered;
    const before = stage.arrived;
    const other = stage.send('slow', 'other-body', { item: 'pen' });
    await eventually(() => stage.arrived === before + 1);
    handler.end();
    expect((await first).status).toBe(201);
    expectProblem(await other, 422, 'IDEMPOTENCY_KEY_REUSED');
    expect(stage.scenes).toHaveLength(1);
  });

  it('are all answered 503 when the store fails the first of them, which alone asks', async () => {
    let claims = 0;
    let cut: () => void = () => undefined;
    const everybodyWaits = new Promise<void>((resolve) => (cut = resolve));
    const disarm = proxy.onClientData(async (chunk) => {
      if (!isClaim(chunk)) return 'forward';
      claims++;
      await everybodyWaits;
      return 'cut-before';
    });
    const { answers } = await stage.sendAndArrive(30, 'slow', 'store-fails');
    await eventually(() => claims === 1);
    cut();
    for (const answer of await answers) expectProblem(answer, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
    expect(claims).toBe(1);
    disarm();
    expect((await stage.send('slow', 'store-fails')).status).toBe(201);
  });

  it('share one look at the store when the answer is recorded already', async () => {
    const original = await stage.send('slow', 'recorded');
    let claims = 0;
    const disarm = proxy.onClientData((chunk) => {
      if (isClaim(chunk)) claims++;
      return 'forward';
    });
    const first = await stage.sendAndArrive(50, 'slow', 'recorded');
    expectReplays(await first.answers, original);
    disarm();
    expect(claims).toBeLessThan(50);
    expect(stage.scenes).toHaveLength(1);
  });
});

describe.each(ADAPTERS)('duplicates across processes (%s)', (adapter) => {
  let database: TestDatabase;
  let stages: readonly Stage[];

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    const start = (): Promise<Stage> =>
      Stage.start({
        adapter,
        database,
        poolSize: POOL_SIZE,
        routes: {
          slow: { whenInProgress: { wait: '5m' } },
          lease: { mode: 'lease', whenInProgress: { wait: '5m' } },
          short: { whenInProgress: { wait: 100 } },
          leaseReject: { mode: 'lease', lease: '7s', whenInProgress: 'reject' },
        },
      });
    stages = await Promise.all([start(), start()]);
  });

  afterEach(async () => {
    stages.forEach((stage) => stage.reset());
    await resetShop(database);
  });

  afterAll(async () => {
    await Promise.all(stages.map((stage) => stage.close()));
    await database.drop();
  });

  it.each(['slow', 'lease'])('answer both clicks of a fast handler with the same 201 (%s)', async (route) => {
    for (let round = 0; round < 20; round++) {
      const [a, b] = await Promise.all(stages.map((stage) => stage.send(route, `fast-${round}`)));
      expect({ status: b!.status, text: b!.text }).toEqual({ status: 201, text: a!.text });
      expect([a, b].filter((answer) => answer!.headers['idempotency-replayed'])).toHaveLength(1);
    }
    expect(await shopState(database)).toMatchObject({ orders: 20, records: 20 });
  });

  it.each(['slow', 'lease'])(
    'wait without a connection for a slow handler elsewhere, and share one look at a time (%s)',
    async (route) => {
      const [one, two] = stages as [Stage, Stage];
      const handler = one.hold();
      const first = one.send(route, 'elsewhere');
      await handler.entered;
      const { answers } = await two.sendAndArrive(100, route, 'elsewhere');
      // It looks from time to time; in between nothing is taken, and never more than one.
      await eventually(() => {
        const { total, idle, waiting } = two.pool();
        if (total - idle > 1 || waiting > 0) throw new Error('a waiter holds a connection');
        return total > 0 && idle === total;
      });
      const open = await database.query<{ count: number }>(
        `SELECT count(*)::int AS count FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'`,
      );
      expect(open[0]!.count).toBe(route === 'lease' ? 0 : 1);
      handler.end();
      const original = await first;
      expect(original.status).toBe(201);
      for (const answer of await answers) {
        expect({ status: answer.status, text: answer.text }).toEqual({ status: 201, text: original.text });
        expect(answer.headers['idempotency-replayed']).toBe('true');
      }
      expect([...one.scenes, ...two.scenes]).toHaveLength(1);
      expect(two.eventsOf('waited')).toHaveLength(100);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    },
  );

  it('run here when the original fails elsewhere', async () => {
    const [one, two] = stages as [Stage, Stage];
    const handler = one.hold();
    const first = one.send('slow', 'fails-elsewhere');
    await handler.entered;
    const { answers } = await two.sendAndArrive(10, 'slow', 'fails-elsewhere');
    handler.end(() => {
      throw new BadGatewayException();
    });
    expect((await first).status).toBe(502);
    expect((await answers).map(({ status }) => status)).toEqual(Array(10).fill(201));
    expect(two.scenes).toHaveLength(1);
  });

  it('get the in-progress answer when the time is up', async () => {
    const [one, two] = stages as [Stage, Stage];
    const handler = one.hold();
    const first = one.send('short', 'time-is-up');
    await handler.entered;
    for (const answer of await (
      await two.sendAndArrive(3, 'short', 'time-is-up')
    ).answers) {
      expectInProgress(answer, 409);
    }
    handler.end();
    expect((await first).status).toBe(201);
  });

  it('are told how long the lease of the original lasts at most', async () => {
    const [one, two] = stages as [Stage, Stage];
    const handler = one.hold();
    const first = one.send('leaseReject', 'remaining');
    await handler.entered;
    const refused = await two.send('leaseReject', 'remaining');
    expectInProgress(refused, 409);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(1);
    expect(Number(refused.headers['retry-after'])).toBeLessThanOrEqual(7);
    handler.end();
    expect((await first).status).toBe(201);
  });
});

describe.each(ADAPTERS)('clients that share a process (%s)', (adapter) => {
  const PLACES = 20;
  let stage: Stage;

  beforeAll(async () => {
    stage = await Stage.start({
      adapter,
      routes: { slow: { whenInProgress: { wait: '5m' }, maxDuration: '5m' } },
      idempotency: {
        maxWaiters: PLACES,
        client: (request: { headers: Record<string, string | undefined> }) => request.headers['x-client'],
      },
    });
  });

  afterEach(() => stage.reset());

  afterAll(async () => stage.close());

  const start = (client: string, key: string): HttpRequestInFlight =>
    startRequest(`${stage.url}/slow`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key, 'X-Client': client },
      body: '{"item":"book"}',
    });

  /** Requests of this client that wait for the first, which is inside. */
  const waitAs = async (client: string, key: string, count: number): Promise<HttpRequestInFlight[]> => {
    const before = stage.arrived;
    const requests = Array.from({ length: count }, () => start(client, key));
    await eventually(() => stage.arrived === before + count);
    await new Promise((resolve) => setImmediate(resolve));
    return requests;
  };

  it.each(['goes away', 'stays'])(
    'have room to wait, although one has taken all of it and %s',
    async (then) => {
      const key = then;
      const run = async (client: string): Promise<{ handler: HeldHandler; first: HttpRequestInFlight }> => {
        const handler = stage.hold();
        const first = start(client, key);
        await handler.entered;
        return { handler, first };
      };
      const greedy = await run('greedy');
      const modest = await run('modest');
      const waiting = await waitAs('greedy', key, PLACES);
      if (then === 'goes away') {
        for (const request of waiting) request.destroy();
        await eventually(async () => (await connectionsOf(stage)) === 2);
      }
      const duplicates = await waitAs('modest', key, PLACES / 2 - 1);
      modest.handler.end();
      expect((await modest.first.response).status).toBe(201);
      for (const { response } of duplicates) {
        expect((await response).headers['idempotency-replayed']).toBe('true');
      }
      greedy.handler.end();
      expect((await greedy.first.response).status).toBe(201);
    },
  );
});

function connectionsOf({ server }: Stage): Promise<number> {
  return promisify(server.getConnections.bind(server))();
}

/** Bytes that are reachable, without what only waits to be collected. */
function usedHeap(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

function expectInProgress(answer: HttpResponse, status: number): void {
  expectProblem(answer, status, 'IDEMPOTENCY_IN_PROGRESS');
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1);
}

/** The status of the answer and the one in its body are the same. */
function expectProblem(answer: HttpResponse, status: number, code: string): void {
  expect({ status: answer.status, body: answer.json() }).toMatchObject({ status, body: { status, code } });
}
