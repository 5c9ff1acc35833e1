import { DataSource, type EntitySubscriberInterface } from 'typeorm';
import type { Pool } from 'pg';
import type { IdempotencyFailure } from '../../lib/core/errors.js';
import type { RecordedResponse } from '../../lib/core/record.js';
import type { Claim, ClaimMode, ClaimOutcome, Execution, UnresolvedAttempt } from '../../lib/core/store.js';
import { joinDataSource } from '../../lib/postgres/ambient-data-source.js';
import { inspectDatabase } from '../../lib/postgres/boot-checks.js';
import { PostgresStore } from '../../lib/postgres/postgres-store.js';
import { tuningFor } from '../../lib/postgres/tuning.js';
import type { TuningOptions } from '../../lib/idempotency.options.js';
import { eventually } from './conditions.js';
import { createTestDatabase, type TestDatabase } from './database.js';
import { TUNING } from './tuning.js';

export const RESPONSE: RecordedResponse = {
  status: 201,
  headers: [
    ['x-one', '1'],
    ['x-gone', null],
  ],
  body: Buffer.from('made'),
};

export const TRANSACTION: ClaimMode = { kind: 'transaction', isolation: undefined, storesErrors: true };
export const LEASE: ClaimMode = { kind: 'lease', lease: 10_000 };

/** What is not given back by then never will be. */
const PATIENCE = { timeoutMs: 3_000 };

export interface StoreBenchOptions {
  readonly poolSize?: number;
  readonly acquireTimeout?: number;
  readonly url?: string;
  readonly subscribers?: (new () => EntitySubscriberInterface)[];
  /** Default: that of the run. */
  readonly tuning?: TuningOptions;
}

/** The store on a pool of its own, with no HTTP in front of it: what it answers, and what is in the database. */
export class StoreBench {
  private constructor(
    readonly database: TestDatabase,
    readonly dataSource: DataSource,
    readonly store: PostgresStore,
    private readonly leave: () => void,
    private readonly owned: boolean,
  ) {}

  static async start(options: StoreBenchOptions = {}): Promise<StoreBench> {
    const database = await createTestDatabase();
    await database.query(
      'CREATE TABLE notes (text text, CONSTRAINT once UNIQUE (text) DEFERRABLE INITIALLY DEFERRED)',
    );
    return StoreBench.on(database, options, true);
  }

  static async on(
    database: TestDatabase,
    {
      poolSize = 4,
      acquireTimeout = 5_000,
      url = database.url,
      subscribers = [],
      tuning = TUNING,
    }: StoreBenchOptions,
    owned = false,
  ): Promise<StoreBench> {
    const dataSource = new DataSource({ type: 'postgres', url, poolSize, subscribers });
    await dataSource.initialize();
    const settings = { table: 'idempotency_records', schema: undefined, allowAsynchronousCommit: true };
    const inspected = await inspectDatabase(dataSource, settings);
    const leave = joinDataSource(dataSource);
    const store = new PostgresStore({
      dataSource,
      ...inspected,
      acquireTimeout,
      tuning: tuningFor(tuning, inspected.statements),
    });
    return new StoreBench(database, dataSource, store, leave, owned);
  }

  claimOf(mode: ClaimMode, facts: Partial<Claim> = {}): Claim {
    return {
      identity: { client: 'c', endpoint: 'e', key: 'k' },
      fingerprint: Buffer.of(1, 2),
      ttl: 60_000,
      maxDuration: 20_000,
      mode,
      ...facts,
    };
  }

  claim(mode: ClaimMode, facts: Partial<Claim> = {}): Promise<ClaimOutcome> {
    return this.store.claim(this.claimOf(mode, facts));
  }

  /** The execution of a claim that is to succeed. */
  async execution(mode: ClaimMode, facts: Partial<Claim> = {}): Promise<Execution> {
    return executionOf(await this.claim(mode, facts));
  }

  async note(text: string): Promise<void> {
    await this.dataSource.query('INSERT INTO notes VALUES ($1)', [text]);
  }

  /** What was noted and committed. */
  async notes(): Promise<string[]> {
    const rows = await this.database.query<{ text: string }>('SELECT text FROM notes ORDER BY text');
    return rows.map(({ text }) => text);
  }

  async row(): Promise<Record<string, unknown> | undefined> {
    const rows = await this.database.query(
      `SELECT *, extract(epoch FROM expires_at - completed_at)::int AS "secondsKept",
              locked_until <= clock_timestamp() AS lapsed
         FROM idempotency_records`,
    );
    return rows[0];
  }

  /** Makes the attempt, or the record, one that is over. */
  async age(column: 'expires_at' | 'locked_until'): Promise<void> {
    await this.database.query(
      `UPDATE idempotency_records SET ${column} = clock_timestamp() - interval '1 second'`,
    );
  }

  /** Resolves when every connection is back, none of them inside a transaction. */
  async idle(): Promise<void> {
    const { master } = this.dataSource.driver as unknown as { master: Pool };
    await eventually(() => master.idleCount === master.totalCount && master.waitingCount === 0, PATIENCE);
    const open = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                     AND xact_start IS NOT NULL AND backend_type = 'client backend'`;
    await eventually(async () => (await this.database.query(open)).length === 0, PATIENCE);
  }

  /** Ends every session of the pool on the server. */
  async cut(): Promise<void> {
    await this.database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`,
    );
  }

  async reset(): Promise<void> {
    await this.database.query('TRUNCATE idempotency_records, notes');
  }

  async close(): Promise<void> {
    await this.store.drained();
    this.leave();
    // A pool whose connections were not all given back never ends.
    const { master } = this.dataSource.driver as unknown as { master: Pool };
    if (master.idleCount === master.totalCount) await this.dataSource.destroy();
    if (this.owned) await this.database.drop();
  }
}

export function executionOf(outcome: ClaimOutcome): Execution {
  if (outcome.kind !== 'claimed') throw new Error(`expected a claim, not ${outcome.kind}`);
  return outcome.execution;
}

export function attemptOf(outcome: ClaimOutcome): UnresolvedAttempt {
  if (outcome.kind !== 'unresolved') throw new Error(`expected an unresolved attempt, not ${outcome.kind}`);
  return outcome.attempt;
}

/** The code of the failure that a promise is rejected with. */
export async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error as Partial<IdempotencyFailure>).error?.code ?? String(error),
  );
}
