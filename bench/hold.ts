/*
 * Question: what does it cost to hold a response back and to send it a moment later, without a database?
 *
 * Variants: a bare answer of node:http, and the same held, looked at as for a record, and delivered two turns of the event loop
 * later. Both are called by a client in this process, so that only their difference says something.
 *
 * To be reached: half of the 40 µs that it was before.
 *
 * Knobs: see KNOBS.
 */
import { once } from 'node:events';
import { Agent, createServer, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { HeaderPolicy } from '../lib/http/header-policy.js';
import { recordedResponse } from '../lib/transports/http/recorded.js';
import { HeldResponse } from '../lib/transports/http/response.js';
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import { readFlags } from './kit/flags.js';
import type { Stage } from './kit/stage.js';
import { table } from './kit/table.js';

const KNOBS = { requests: 4000, rounds: 5, connections: 8 };
const BODY = JSON.stringify({ id: 1, item: 'book', price: 10, note: 'x'.repeat(60) });
const OWN = { 'idempotency-key': 'key', 'idempotency-created-at': '2026-01-21T10:30:00Z' };

export const hold: Benchmark = {
  name: 'hold',
  file: 'hold',
  smoke: ['--requests=200', '--rounds=1'],
  run,
};

async function run(_stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const policy = new HeaderPolicy();
  let isHeld = false;
  const server = createServer((_request, raw) => {
    raw.setHeader('X-Powered-By', 'Express');
    if (isHeld) holdBack(raw, policy);
    answer(raw);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const agent = new Agent({ keepAlive: true, maxSockets: knobs.connections });
  const { port } = server.address() as AddressInfo;
  const measure = async (held: boolean): Promise<number> => {
    isHeld = held;
    let left = knobs.requests;
    const before = process.cpuUsage();
    const work = async (): Promise<void> => {
      while (left-- > 0) await call(agent, port);
    };
    await Promise.all(Array.from({ length: knobs.connections }, work));
    const { user, system } = process.cpuUsage(before);
    return (user + system) / knobs.requests;
  };
  for (const held of [false, true]) await measure(held);
  const rounds: { bare_us: number; held_us: number; difference_us: number }[] = [];
  for (let round = 0; round < knobs.rounds; round++) {
    const [bare, held] = [await measure(false), await measure(true)];
    rounds.push({ bare_us: bare, held_us: held, difference_us: held - bare });
  }
  agent.destroy();
  await new Promise((resolve) => server.close(resolve));
  rounds.sort((one, other) => one.difference_us - other.difference_us);
  const median = rounds[rounds.length >> 1]!;
  const cells = Object.entries(median).map(([name, value]) => [name, Number(value.toFixed(1))] as const);
  console.log(table(['CPU for each request', 'median'], cells));
  return { settings: knobs, median, rounds };
}

function answer(raw: ServerResponse): void {
  raw.statusCode = 201;
  raw.setHeader('Content-Type', 'application/json; charset=utf-8');
  raw.setHeader('ETag', 'W/"2d"');
  raw.setHeader('Content-Length', BODY.length);
  raw.end(BODY);
}

function holdBack(raw: ServerResponse, policy: HeaderPolicy): void {
  const baseline = raw.getHeaders();
  const held = new HeldResponse(raw, 1_048_576, () => {
    recordedResponse(held.held(), policy, baseline);
    setImmediate(() => setImmediate(deliver));
  });
  const deliver = (): void =>
    held.deliver(held.held(), OWN, (cause) => {
      throw cause;
    });
}

async function call(agent: Agent, port: number): Promise<void> {
  const sent = request({ port, host: '127.0.0.1', agent, method: 'POST' }).end();
  const [response] = (await once(sent, 'response')) as [NodeJS.ReadableStream];
  await once(response.resume(), 'end');
}
