/*
 * The process that stands between applications and servers and makes the way longer, for want of `netem`, which not every
 * machine has: everything that arrives leaves a constant time later, in the order in which it came.
 *
 * The timers of Node.js count whole milliseconds, which is as much as is to be added here. So a thread sleeps on a futex until
 * shortly before the first is due, and the rest of the time, which is less than the futex is inexact by, is spent looking at
 * the clock between two looks at the sockets. What arrives meanwhile is noted at once. `network.ts` measures what it adds.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { join } from 'node:path';
import type { Alarm } from './delay-clock.js';

/** Where a line leads. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** What the process is asked for: a line to a server, on which each way takes that long. */
interface DelayOrder {
  readonly id: number;
  readonly target: Target;
  readonly milliseconds: number;
}

/** What the process answers: the port to connect to. The first message, without an id, says that it is ready. */
export interface DelayReply {
  readonly id?: number;
  readonly port?: number;
  readonly failure?: string;
}

/** How long before it is due the thread is to wake us: about what waking takes. */
const EARLY_MS = 0.15;

/** What is on its way: bytes, or the end of what one side sends. */
interface Transit {
  readonly due: number;
  readonly arrive: () => void;
}

/** Everything that is on its way through lines of one length, so that what comes first is due first. */
class Lines {
  readonly #queue: Transit[] = [];
  #watching = false;

  constructor(
    private readonly milliseconds: number,
    private readonly clock: Clock,
  ) {}

  send(arrive: () => void): void {
    this.#queue.push({ due: now() + this.milliseconds, arrive });
    if (!this.#watching) this.#watch();
  }

  #watch(): void {
    this.#watching = true;
    const first = this.#queue[0]!;
    if (first.due - now() > EARLY_MS) this.clock.wakeAt(first.due - EARLY_MS, () => this.#deliver());
    else setImmediate(() => this.#deliver());
  }

  #deliver(): void {
    while (this.#queue.length > 0 && this.#queue[0]!.due <= now()) this.#queue.shift()!.arrive();
    this.#watching = this.#queue.length > 0;
    if (this.#watching) this.#watch();
  }
}

/** A thread of its own that sleeps more exactly than a timer. One alarm at a time for each. */
class Clock {
  readonly #alarm: Alarm = {
    turns: new Int32Array(new SharedArrayBuffer(4)),
    due: new Float64Array(new SharedArrayBuffer(8)),
  };
  readonly #thread = new Worker(join(import.meta.dirname, 'delay-clock.js'), { workerData: this.#alarm });
  #wake: () => void = () => undefined;

  constructor() {
    this.#thread.on('message', () => this.#wake());
  }

  wakeAt(due: number, wake: () => void): void {
    this.#wake = wake;
    this.#alarm.due[0] = due;
    Atomics.add(this.#alarm.turns, 0, 1);
    Atomics.notify(this.#alarm.turns, 0);
  }
}

function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Listens for connections to a target; resolves with the port. */
function listen({ target, milliseconds }: DelayOrder): Promise<number> {
  const lines = new Lines(milliseconds, new Clock());
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const beyond = connect({ ...target, allowHalfOpen: true, noDelay: true });
    pass(client, beyond, lines);
    pass(beyond, client, lines);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}

/** What one side sends reaches the other. */
function pass(from: Socket, to: Socket, lines: Lines): void {
  from.on('data', (chunk) => lines.send(() => to.write(chunk)));
  from.on('end', () => lines.send(() => to.end()));
  from.on('error', () => to.destroy());
}

async function answer(order: DelayOrder): Promise<void> {
  const reply: DelayReply = await listen(order).then(
    (port) => ({ id: order.id, port }),
    (error: unknown) => ({ id: order.id, failure: String(error) }),
  );
  tell(reply);
}

function tell(reply: DelayReply): void {
  process.send?.(reply);
}

process.on('message', (order: DelayOrder) => void answer(order));
process.on('disconnect', () => process.exit());
// Ctrl-C reaches the whole group: the parent decides when this process ends.
process.on('SIGINT', () => undefined);
tell({});
