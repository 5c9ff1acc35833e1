import { setTimeout as delay } from 'node:timers/promises';
import { Logger, type BeforeApplicationShutdown, type OnApplicationBootstrap } from '@nestjs/common';
import { outside } from '../core/ambient.js';
import { causesOf } from '../core/causes.js';
import type { Notify } from '../core/events.js';
import { restAfter } from '../core/waiting.js';
import type { Answer, Statement } from './batch.js';
import { sendOnce } from './once.js';
import type { PostgresStoreOptions } from './store-options.js';

/** What the purge works on. Times are milliseconds. */
export interface PurgeTarget {
  readonly store: PostgresStoreOptions;
  readonly batchSize: number;
  /** Undefined where the timer is off. */
  readonly interval: number | undefined;
  readonly notify: Notify;
}

/** Milliseconds that a batch may take: a large one on a slow disk takes longer than requests may wait for an answer. */
const BATCH_PATIENCE = 60_000;

/** Runs spread over a tenth of the interval to either side, so that instances started together drift apart. */
const JITTER = 0.1;

/**
 * Deletes expired records, on a timer and on demand.
 *
 * Any number of instances may purge at once: each takes rows that no other has taken. Replays and claims never wait for
 * it. It deletes what has expired by the database's clock, and nothing else.
 */
export class IdempotencyPurgeService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #logger = new Logger('Idempotency');
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<number> | undefined;
  readonly #stop = new AbortController();

  /** @internal */
  constructor(private readonly target: () => PurgeTarget) {}

  /**
   * Deletes every expired record, a batch at a time, each in a transaction of its own, with a rest after each that is four
   * times as long as the batch took, at most five seconds, so that requests hardly notice. A call during a run joins it. A run
   * ends early with the application. It does not wait for disk or standby: what a crash or a failover right afterwards brings
   * back has expired, and is deleted by the next run.
   *
   * @returns how many were deleted, by this instance.
   * @throws IdempotencyFailure when the database cannot or will not; batches that were deleted stay deleted.
   */
  purge(): Promise<number> {
    this.#running ??= outside(() => this.#purge()).finally(() => (this.#running = undefined));
    return this.#running;
  }

  /** @internal */
  onApplicationBootstrap(): void {
    this.#schedule();
  }

  /** @internal */
  async beforeApplicationShutdown(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined);
  }

  async #purge(): Promise<number> {
    const { store, batchSize, notify } = this.target();
    let total = 0;
    let records = batchSize;
    // The last expiry in the batch before, in microseconds.
    let until: string | null = '0';
    while (records === batchSize && !this.#stop.signal.aborted) {
      const started = performance.now();
      const batch: Statement = { text: store.statements.purge, values: [batchSize, until] };
      const { rows }: Answer = await sendOnce(store, batch, BATCH_PATIENCE);
      const [row] = rows;
      records = Number(row?.['records']);
      until = row?.['until'] ?? null;
      total += records;
      if (records === batchSize) await this.#rest(restAfter(performance.now() - started));
    }
    notify({ type: 'purged', records: total });
    return total;
  }

  /** Resolves after so many milliseconds, or when the application ends. */
  async #rest(milliseconds: number): Promise<void> {
    await delay(milliseconds, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }

  #schedule(): void {
    const { interval } = this.target();
    if (interval === undefined || this.#stop.signal.aborted) return;
    const spread = 1 - JITTER + 2 * JITTER * Math.random();
    this.#timer = setTimeout(() => void this.#runAndSchedule(), interval * spread);
    this.#timer.unref();
  }

  async #runAndSchedule(): Promise<void> {
    try {
      await this.purge();
    } catch (error) {
      this.#logger.warn(`The purge failed and is tried again later: ${causesOf(error) ?? String(error)}`);
    }
    this.#schedule();
  }
}
