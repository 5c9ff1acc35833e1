import { setTimeout as delay } from 'node:timers/promises';
import type { BadNetwork } from './bad-network.js';
import type { Random } from './fault-run.js';
import type { HistoryRecorder } from './history-recorder.js';
import type { Answer } from './history.js';
import { startRequest, type HttpResponse } from './http.js';

/** Keys that are worked on at the same time. */
const KEYS_AT_ONCE = 6;
/** Clients at most that send one key; the first of them sends what the key belongs to, others may send something else. */
const CLIENTS_PER_KEY = 4;
/** In a hundred: a client sends another request under the key; a client breaks its request off. */
const OTHER_REQUEST = 15;
const BREAKING_OFF = 10;
/** Attempts at most of one client before it gives the request up. */
const ATTEMPTS = 8;
/** Milliseconds that a client waits at most for its answer, and before it tries again. */
const PATIENCE = 3_000;
const PAUSE = 30;
/** Milliseconds in which a key has to be settled when the network is good again. */
const SETTLING = 20_000;

/** What the requests of a load ask for, by the name they have in the history. */
const BODIES = { same: { amount: 1 }, other: { amount: 2 } } as const;
type RequestName = keyof typeof BODIES;

/** Clients that send and retry, and where to. */
export interface Load {
  /** The same route of each instance. */
  readonly urls: readonly string[];
  readonly network: BadNetwork;
  readonly recorder: HistoryRecorder;
  readonly random: Random;
}

/** Several clients send each key, in duplicate and to any instance, while the network is bad; until every fault has struck so often. */
export async function sendUntil(load: Load, rounds: number): Promise<void> {
  let keys = 0;
  const worker = async (random: Random): Promise<void> => {
    while (load.network.rounds < rounds) {
      const key = `key-${++keys}`;
      const clients = Array.from({ length: 1 + random.below(CLIENTS_PER_KEY) }, (_, index) =>
        runClient({ ...load, random: random.fork() }, key, index),
      );
      await Promise.all(clients);
    }
  };
  await Promise.all(Array.from({ length: KEYS_AT_ONCE }, () => worker(load.random.fork())));
}

/** Asks for both requests of every key until they are answered, or the time for that is over. */
export async function settle(load: Load): Promise<void> {
  const keys = load.recorder.keys;
  const worker = async (): Promise<void> => {
    for (let key = keys.pop(); key !== undefined; key = keys.pop()) await settleKey(load, key);
  };
  await Promise.all(Array.from({ length: KEYS_AT_ONCE }, worker));
}

async function runClient(load: Load, key: string, index: number): Promise<void> {
  const { random, network } = load;
  const request = index > 0 && random.percent(OTHER_REQUEST) ? 'other' : 'same';
  const process = `${key}, client ${index}`;
  for (let left = 1 + random.below(ATTEMPTS); left > 0; left--) {
    const patience = random.below(PATIENCE);
    const breaksOff = random.percent(BREAKING_OFF) ? network.passed(1 + random.below(PAUSE)) : undefined;
    const answer = await attempt(load, { process, key, request }, patience, breaksOff);
    if (isFinal(answer)) return;
    await delay(random.below(PAUSE));
  }
}

/** One of the two requests has the key, and the other one must be refused. */
async function settleKey(load: Load, key: string): Promise<void> {
  const deadline = performance.now() + SETTLING;
  const isSettled = async (request: RequestName): Promise<boolean> =>
    isFinal(await attempt(load, { process: `${key}, settler`, key, request, settling: true }));
  for (const request of ['same', 'other'] as const) {
    while (performance.now() < deadline && !(await isSettled(request))) await delay(PAUSE);
  }
}

interface ClientAttempt {
  readonly process: string;
  readonly key: string;
  readonly request: RequestName;
  readonly settling?: boolean;
}

async function attempt(
  { urls, network, recorder, random }: Load,
  what: ClientAttempt,
  patience = PATIENCE,
  breaksOff?: Promise<void>,
): Promise<Answer | 'unknown'> {
  const url = random.pick(urls);
  const answer = await recorder.record(what, () => send(url, what, patience, breaksOff));
  network.attempted();
  return answer;
}

async function send(
  url: string,
  { key, request }: ClientAttempt,
  patience: number,
  breaksOff?: Promise<void>,
): Promise<HttpResponse> {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  const body = JSON.stringify(BODIES[request]);
  const running = startRequest(url, { method: 'POST', headers, body });
  const timer = setTimeout(() => running.destroy(), patience);
  void breaksOff?.then(() => running.destroy());
  try {
    return await running.response;
  } finally {
    clearTimeout(timer);
  }
}

function isFinal(answer: Answer | 'unknown'): boolean {
  return answer !== 'unknown' && (answer.status === 201 || answer.status === 422);
}
