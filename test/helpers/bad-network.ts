import { cutBeforeCommit, loseCommitAnswer, type Fault } from './commit-faults.js';
import { deferred } from './conditions.js';
import type { TestDatabase } from './database.js';
import type { Random } from './fault-run.js';
import type { ProxiedConnection, TcpProxy } from './tcp-proxy.js';

/** In how many ways the network and the server fail. */
export const NETWORK_FAULTS = [
  /** A connection is reset before the server gets what is on its way. */
  'reset',
  /** The server gets it, and the connection is reset. */
  'reset-after',
  /** The server answers, and the connection is reset instead of delivering it. */
  'answer-lost',
  /** The server answers, and the answer vanishes: the connection is silent from then on. */
  'answer-dropped',
  /** All connections are reset at once. */
  'reset-all',
  /** One direction of one connection is held up; what was sent arrives late, perhaps after it was given up. */
  'stall-to-server',
  'stall-to-client',
  /** Nothing passes in either direction, on any connection. */
  'silence',
  /** All connections are reset, and new ones as they arrive. */
  'refuse',
  /** The server ends every session. */
  'terminate',
  /** A COMMIT does not arrive. */
  'commit-lost',
  /** A COMMIT is carried out, and its answer does not arrive. */
  'commit-answer-lost',
] as const;
type NetworkFault = (typeof NETWORK_FAULTS)[number];

/** Chunks that pass at most between two faults. */
const PEACE = 40;
/** Chunks that pass at most before what is held up goes on. */
const STALL = 150;
/** Attempts of clients that come to nothing at most before an outage of the whole network is over. */
const OUTAGE = 12;

/** A network that fails while it is used: how often is counted in what passes through it, not in time. */
export interface BadNetwork {
  /** How often each fault has struck. */
  readonly strikes: Readonly<Record<NetworkFault, number>>;
  /** How often each fault has struck at least. */
  readonly rounds: number;
  /** Tells it that an attempt of a client has ended, whatever came of it. */
  attempted(): void;
  /** Resolves when so many chunks more have passed, or the network is good again. */
  passed(chunks: number): Promise<void>;
  /** Makes the network good for ever: what is held up goes on, and nothing strikes any more. */
  heal(): Promise<void>;
}

/** Begins to do harm: fault after fault, each of them once in an order that is drawn, then again in another order. */
export function spoil(proxy: TcpProxy, database: TestDatabase, random: Random): BadNetwork {
  return new FaultScheduler(proxy, database, random);
}

type Direction = 'to-server' | 'to-client';
type ChunkHook = Parameters<TcpProxy['onClientData']>[0];

class FaultScheduler implements BadNetwork {
  readonly strikes = Object.fromEntries(NETWORK_FAULTS.map((fault) => [fault, 0])) as Record<
    NetworkFault,
    number
  >;
  readonly #chunks = new Counter();
  readonly #attempts = new Counter();
  readonly #healed = deferred();
  #isHealed = false;
  /** What has to be done so that the network is good. */
  readonly #remedies = new Set<() => void>();
  readonly #running: Promise<void>;

  constructor(
    private readonly proxy: TcpProxy,
    private readonly database: TestDatabase,
    private readonly random: Random,
  ) {
    this.#remedies.add(
      proxy.onClientData(() => {
        this.#chunks.count();
        return undefined;
      }),
    );
    this.#running = this.#run();
    // Whoever heals the network hears of what went wrong in here.
    this.#running.catch(() => undefined);
  }

  get rounds(): number {
    return Math.min(...Object.values(this.strikes));
  }

  attempted(): void {
    this.#attempts.count();
  }

  passed(chunks: number): Promise<void> {
    return this.#chunks.passed(chunks);
  }

  async heal(): Promise<void> {
    this.#isHealed = true;
    this.#healed.resolve();
    for (const remedy of this.#remedies) remedy();
    this.#chunks.end();
    this.#attempts.end();
    await this.#running;
  }

  async #run(): Promise<void> {
    for (;;) {
      for (const fault of this.random.shuffle(NETWORK_FAULTS)) {
        await this.#chunks.passed(1 + this.random.below(PEACE));
        if (this.#isHealed) return;
        await this.#strike(fault);
      }
    }
  }

  async #strike(fault: NetworkFault): Promise<void> {
    const { proxy } = this;
    const struck = (): void => {
      this.strikes[fault]++;
    };
    switch (fault) {
      case 'reset':
        return this.#next('to-server', () => 'cut-before', struck);
      case 'reset-after':
        return this.#next('to-server', () => 'cut-after', struck);
      case 'answer-lost':
        return this.#loseAnswer(() => 'cut-before', struck);
      case 'answer-dropped':
        return this.#loseAnswer((_, connection) => this.#silenceFromNowOn(connection), struck);
      case 'stall-to-server':
        return this.#next('to-server', () => this.#heldUp(), struck);
      case 'stall-to-client':
        return this.#next('to-client', () => this.#heldUp(), struck);
      case 'reset-all':
        struck();
        proxy.cut();
        return;
      case 'silence':
        struck();
        proxy.pause();
        await this.#attempts.passed(1 + this.random.below(OUTAGE));
        proxy.resume();
        return;
      case 'refuse':
        struck();
        proxy.refuse();
        proxy.cut();
        await this.#attempts.passed(1 + this.random.below(OUTAGE));
        proxy.refuse(false);
        return;
      case 'terminate':
        if (await this.#terminate()) struck();
        return;
      case 'commit-lost':
        return this.#armed(cutBeforeCommit(proxy), struck);
      case 'commit-answer-lost':
        return this.#armed(loseCommitAnswer(proxy), struck);
    }
  }

  /** What becomes of the next chunk of that direction, on that connection or on any. */
  async #next(
    direction: Direction,
    judge: ChunkHook,
    struck: () => void,
    on?: ProxiedConnection,
  ): Promise<void> {
    const done = deferred();
    const hook: ChunkHook = (chunk, connection) => {
      if (on && connection !== on) return undefined;
      remove();
      struck();
      done.resolve();
      return judge(chunk, connection);
    };
    const remove = direction === 'to-server' ? this.proxy.onClientData(hook) : this.proxy.onServerData(hook);
    // A connection that is meant may be closed before anything more comes of it.
    await Promise.race([done.promise, this.#chunks.passed(STALL)]);
    remove();
  }

  async #loseAnswer(judge: ChunkHook, struck: () => void): Promise<void> {
    let asking: ProxiedConnection | undefined;
    const asked: ChunkHook = (_, connection) => {
      asking = connection;
      return undefined;
    };
    await this.#next('to-server', asked, () => undefined);
    if (asking) await this.#next('to-client', judge, struck, asking);
  }

  /** What was dropped does not come again, so that only an end of the connection helps. */
  #silenceFromNowOn(connection: ProxiedConnection): 'drop' {
    const later = (_: Buffer, other: ProxiedConnection): 'drop' | undefined =>
      other === connection ? 'drop' : undefined;
    this.#remedies.add(this.proxy.onServerData(later));
    this.#remedies.add(() => connection.cut());
    return 'drop';
  }

  async #heldUp(): Promise<undefined> {
    await this.#chunks.passed(1 + this.random.below(STALL));
  }

  async #armed(fault: Fault, struck: () => void): Promise<void> {
    await Promise.race([fault.struck.then(struck), this.#healed.promise]);
    fault.disarm();
  }

  async #terminate(): Promise<boolean> {
    const ended = await this.database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`,
    );
    return ended.length > 0;
  }
}

/** Counts, and lets wait for what is to come. */
class Counter {
  #count = 0;
  #ended = false;
  readonly #waiting = new Set<{ readonly until: number; readonly resolve: () => void }>();

  count(): void {
    this.#count++;
    for (const waiter of this.#waiting) {
      if (waiter.until > this.#count) continue;
      this.#waiting.delete(waiter);
      waiter.resolve();
    }
  }

  async passed(number: number): Promise<void> {
    if (this.#ended) return;
    await new Promise<void>((resolve) => this.#waiting.add({ until: this.#count + number, resolve }));
  }

  /** Nobody waits any more, now and from now on. */
  end(): void {
    this.#ended = true;
    for (const { resolve } of this.#waiting) resolve();
  }
}
