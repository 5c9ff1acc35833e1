import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { IdempotencyService } from 'nestjs-pg-idempotency';
import PgBoss from 'pg-boss';
import { DataSource } from 'typeorm';
import { ChargesService } from '../charges/charges.service.js';

/** What is asked of the worker. */
export interface ChargeJob {
  readonly owner: string;
  /** In cents. */
  readonly amount: number;
  readonly ref: string;
}

const QUEUE = 'charges';

/** Seconds after which a job whose worker is silent is delivered again. A charge takes far less. */
const EXPIRY = 2;

/**
 * A queue in PostgreSQL, and its worker. The queue delivers at least once: a worker that dies before it has acknowledged
 * a job makes it come again. The job's id is the key, so that the charge is made once.
 */
@Injectable()
export class ChargeQueue implements OnModuleInit, OnModuleDestroy {
  readonly #logger = new Logger(ChargeQueue.name);
  readonly #boss: PgBoss;

  constructor(
    @InjectDataSource() private readonly dataSource: DataSource,
    private readonly idempotency: IdempotencyService,
    private readonly charges: ChargesService,
  ) {
    const { url: connectionString } = dataSource.options as { url?: string };
    this.#boss = new PgBoss({ connectionString, max: 3, schedule: false, maintenanceIntervalSeconds: 1 });
    // Without a listener, a lost connection would end the process.
    this.#boss.on('error', (error) => this.#logger.warn(error.message));
  }

  async onModuleInit(): Promise<void> {
    await this.#boss.start();
    await this.#boss.createQueue(QUEUE, { name: QUEUE, retryLimit: 20, expireInSeconds: EXPIRY });
    await this.#boss.work<ChargeJob>(QUEUE, { pollingIntervalSeconds: 0.5 }, (jobs) => this.#work(jobs));
  }

  /** Lets running jobs end, before anything that they need is taken away. */
  async onModuleDestroy(): Promise<void> {
    await this.#boss.stop({ graceful: true, wait: true, timeout: 5_000 });
  }

  /**
   * Puts a job into the queue, in the caller's transaction: it is there if and only if that commits.
   *
   * @returns the job's id.
   */
  async send(job: ChargeJob): Promise<string> {
    const id = await this.#boss.send(QUEUE, job, { db: this.#ambient() });
    if (id === null) throw new Error('The queue took no job');
    return id;
  }

  async #work(jobs: readonly PgBoss.Job<ChargeJob>[]): Promise<void> {
    for (const { id, data } of jobs) {
      await this.idempotency.run({ client: 'jobs', endpoint: 'charge', key: id, payload: data }, () =>
        this.charges.create(data.owner, data.amount, data.ref),
      );
    }
  }

  /** What goes through the DataSource joins the transaction of the handler that is running. */
  #ambient(): PgBoss.Db {
    return {
      executeSql: async (text, values) => ({ rows: await this.dataSource.query<object[]>(text, values) }),
    };
  }
}
