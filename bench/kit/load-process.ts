/*
 * The process that makes the load: HTTP/1.1 over plain sockets, every answer checked.
 *
 * Both cores also run what is measured, so that the cheapest tool that checks every answer is the best one. CPU time per
 * request against a server that answers at once, with 16 connections, a new key in each request, status and body checked, on
 * Node.js 20: wrk 4 with a Lua script 0.024 ms, this file 0.031 ms, undici 7 0.038 ms, autocannon 9 0.052 ms. That is about
 * one part in forty of what a bare request costs the application and the database.
 *
 * wrk is a little cheaper, but it cuts off the requests that are on their way when its time is over, so that answers and
 * effects cannot be counted against each other; its script cannot tell which request an answer belongs to, nor can it keep
 * a constant rate.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Connection } from './load-connection.js';
import type { Load, LoadOrder, LoadReply, LoadResult, Turns, TurnsResult } from './load-messages.js';
import { percentile, seededRandom, shuffled } from './statistics.js';

/** A request as it goes onto the wire, and what must come back. */
interface Exchange {
  readonly text: string;
  /** Says what is wrong with an answer. */
  readonly complaint: (status: number, body: string) => string | undefined;
}

/** Requests and answers that the last remembering load left. */
let remembered: { text: string; body: string }[] = [];

const running = new Map<number, () => void>();

process.on('message', (order: LoadOrder) => {
  if ('end' in order) running.get(order.end)?.();
  else if ('turns' in order) void answer(order.id, async () => ({ times: await takeTurns(order.turns) }));
  else void answer(order.id, async () => ({ result: await perform(order.id, order.load) }));
});
process.on('disconnect', () => process.exit());
// Ctrl-C reaches the whole group: the parent decides when this process ends.
process.on('SIGINT', () => undefined);

async function answer(
  id: number,
  work: () => Promise<{ result: LoadResult } | { times: TurnsResult }>,
): Promise<void> {
  let reply: LoadReply;
  try {
    reply = { id, ...(await work()) };
  } catch (error) {
    reply = { id, failure: error instanceof Error ? error.message : String(error) };
  }
  running.delete(id);
  // Whoever asked may be gone by now.
  process.send?.(reply, () => undefined);
}

async function perform(id: number, load: Load): Promise<LoadResult> {
  const connections = await Promise.all(
    Array.from({ length: load.connections }, () => Connection.open(load.port)),
  );
  const latencies: number[] = [];
  let [sent, body, ended] = [0, '', false];
  const next = exchanges(load);
  const memory: typeof remembered = [];
  const cpu = process.cpuUsage();
  const start = performance.now();
  const limit = load.requests ?? Infinity;
  const over = (): boolean =>
    ended || sent >= limit || performance.now() - start >= (load.milliseconds ?? Infinity);
  running.set(id, () => (ended = true));

  const exchange = async (connection: Connection, since: number): Promise<void> => {
    sent++;
    const asked = next();
    body = await checked(connection, asked);
    latencies.push(performance.now() - since);
    if (load.remember) memory.push({ text: asked.text, body });
  };
  const closedLoop = async (connection: Connection): Promise<void> => {
    while (!over()) await exchange(connection, performance.now());
  };

  try {
    if (load.rate === undefined) await Promise.all(connections.map(closedLoop));
    else await openLoop(connections, load.rate, start, over, exchange);
    if (load.remember) remembered = memory;
    const elapsed = performance.now() - start;
    return {
      ...summary(latencies),
      latencies: load.latencies ? latencies : [],
      elapsed,
      cpu: cpuSince(cpu),
      body,
    };
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** The body of the answer, which is the right one. */
async function checked(connection: Connection, { text, complaint }: Exchange): Promise<string> {
  const { status, body } = await connection.exchange(text);
  const wrong = complaint(status, body);
  if (wrong === undefined) return body;
  throw new Error(`${wrong}: ${status} ${body.slice(0, 300)}, in answer to\n${text}`);
}

async function takeTurns({ path, apps, cycles, wallets, seed }: Turns): Promise<TurnsResult> {
  const random = seededRandom(seed);
  const asked = await Promise.all(
    apps.map(async ({ port, replays }) => ({
      ...{ connection: await Connection.open(port), replays, last: { text: '', body: '' } },
      ...{ first: [] as number[], replay: [] as number[] },
    })),
  );
  const timed = async (connection: Connection, exchange: Exchange, times: number[]): Promise<string> => {
    const since = performance.now();
    const body = await checked(connection, exchange);
    times.push(performance.now() - since);
    return body;
  };
  try {
    for (let cycle = 0; cycle < cycles; cycle++) {
      for (const each of shuffled(asked, random)) {
        const order = firstOrder(path, 1 + (cycle % wallets));
        each.last = { text: order.text, body: await timed(each.connection, order, each.first) };
      }
      for (const { connection, last, replay } of shuffled(asked, random).filter(({ replays }) => replays)) {
        await timed(connection, { text: last.text, complaint: expecting(last.body) }, replay);
      }
    }
    return { first: asked.map(({ first }) => first), replay: asked.map(({ replay }) => replay) };
  } finally {
    for (const { connection } of asked) connection.close();
  }
}

/**
 * Requests become due at a constant rate; one that finds no connection free waits for it, and its time runs from when it was
 * due. So a server that stalls is not spared the requests that it would have got.
 */
async function openLoop(
  connections: readonly Connection[],
  rate: number,
  start: number,
  over: () => boolean,
  exchange: (connection: Connection, since: number) => Promise<void>,
): Promise<void> {
  const free = [...connections];
  const underWay = new Set<Promise<void>>();
  let due = 0;
  let failure: Error | undefined;
  while (!over() && failure === undefined) {
    while (free.length > 0 && start + (due * 1000) / rate <= performance.now()) {
      const connection = free.pop()!;
      const work = exchange(connection, start + (due++ * 1000) / rate)
        .catch((error: unknown) => (failure ??= error as Error))
        .then(() => {
          free.push(connection);
          underWay.delete(work);
        });
      underWay.add(work);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(underWay);
  if (failure !== undefined) throw failure;
}

function exchanges({ source, path }: Load): () => Exchange {
  let count = 0;
  switch (source.kind) {
    case 'first':
      return () => firstOrder(path, 1 + (count++ % source.wallets));
    case 'again':
      if (remembered.length === 0) throw new Error('Nothing is remembered that could be sent again');
      return () => {
        const { text, body } = remembered[count++ % remembered.length]!;
        return { text, complaint: expecting(body) };
      };
    case 'series':
      return () => {
        const key = source.keys === 'by-time' ? timeKey() : seriesKey(source.series, count++);
        const { clients } = source;
        const client = clients === undefined ? undefined : clientName(Math.floor(Math.random() * clients));
        return { text: requestText(path, key, source.body, client), complaint: expecting(undefined) };
      };
    case 'recorded': {
      const { series, size, clients, skip, body, expected } = source;
      const stride = strideThrough(size);
      return () => {
        const number = 1 + (((skip + count++) * stride) % size);
        const text = requestText(path, seriesKey(series, number), body, clientName(number % clients));
        return { text, complaint: expecting(expected) };
      };
    }
    case 'same': {
      const text = requestText(path, source.key, source.body);
      return () => ({ text, complaint: expecting(undefined) });
    }
  }
}

function firstOrder(path: string, wallet: number): Exchange {
  const key = randomUUID();
  const text = requestText(path, key, JSON.stringify({ wallet, amount: 5, reference: key }));
  return {
    text,
    complaint: (status, body) => {
      if (status !== 201) return 'Expected 201';
      const order = JSON.parse(body) as { id?: unknown; wallet?: unknown; reference?: unknown };
      const right = order.reference === key && order.wallet === wallet && order.id !== undefined;
      return right ? undefined : 'Not the order that was sent';
    },
  };
}

function expecting(expected: string | undefined): Exchange['complaint'] {
  return (status, body) => {
    if (status !== 201) return 'Expected 201';
    return expected === undefined || body === expected ? undefined : `Expected ${expected}`;
  };
}

/** The same as `md5(series || number)::uuid` in SQL. */
function seriesKey(series: string, number: number): string {
  const hash = createHash('md5').update(`${series}${number}`).digest('hex');
  return hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** The same as in SQL: see records.ts. */
function clientName(number: number): string {
  return `client-${number}`;
}

/** A UUID of version 7: milliseconds first, so that keys made one after the other are neighbours in an index. */
function timeKey(): string {
  const random = randomBytes(10).toString('hex');
  const hex = `${Date.now().toString(16).padStart(12, '0')}7${random.slice(0, 3)}8${random.slice(3, 18)}`;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** Steps that meet every number below the size once, none of them near the one before. */
function strideThrough(size: number): number {
  let stride = Math.max(1, Math.floor(size * 0.618));
  while (commonDivisor(stride, size) > 1) stride--;
  return stride;
}

function commonDivisor(one: number, other: number): number {
  return other === 0 ? one : commonDivisor(other, one % other);
}

function requestText(path: string, key: string, body: string, client = 'bench-client'): string {
  return (
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: ${client}\r\nIdempotency-Key: ${key}\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  );
}

function summary(latencies: readonly number[]): Pick<LoadResult, 'requests' | 'p50' | 'p99' | 'mean'> {
  if (latencies.length === 0) throw new Error('Not one request was answered');
  const sorted = [...latencies].sort((a, b) => a - b);
  return {
    requests: latencies.length,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    mean: latencies.reduce((sum, latency) => sum + latency, 0) / latencies.length,
  };
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
