import { Logger, type BeforeApplicationShutdown, type OnApplicationBootstrap } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { outside } from '../core/ambient.js';
import type { Notify } from '../core/events.js';

/** What the purge works on. Times are milliseconds. */
export interface PurgeTarget {
  readonly dataSource: DataSource;
  /** Deletes one batch; its parameters are the size, and the expiry that the batch before has come to. */
  readonly statement: string;
  readonly batchSize: number;
  /** Undefined where the timer is off. */
  readonly interval: number | undefined;
  readonly notify: Notify;
}

/** What a batch has deleted, and how far it has come. */
interface Batch {
  readonly records: number;
  /** The last expiry in it; null where it deleted nothing. */
  readonly until: string | null;
}

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
  #stopped = false;

  /** @internal */
  constructor(private readonly target: () => PurgeTarget) {}

  /**
   * Deletes every expired record, a batch at a time, each in a transaction of its own. A call during a run joins it.
   *
   * @returns how many were deleted, by this instance.
   * @throws whatever the database reports; batches that were deleted stay deleted.
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
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined);
  }

  async #purge(): Promise<number> {
    const { dataSource, statement, batchSize, notify } = this.target();
    let total = 0;
    let batch: Batch = { records: batchSize, until: '-infinity' };
    while (batch.records === batchSize && !this.#stopped) {
      [batch] = await dataSource.query<[Batch]>(statement, [batchSize, batch.until]);
      total += batch.records;
    }
    notify({ type: 'purged', records: total });
    return total;
  }

  #schedule(): void {
    const { interval } = this.target();
    if (interval === undefined || this.#stopped) return;
    const spread = 1 - JITTER + 2 * JITTER * Math.random();
    this.#timer = setTimeout(() => void this.#runAndSchedule(), interval * spread);
    this.#timer.unref();
  }

  async #runAndSchedule(): Promise<void> {
    try {
      await this.purge();
    } catch (error) {
      this.#logger.warn(`The purge failed and is tried again later: ${String(error)}`);
    }
    this.#schedule();
  }
}
