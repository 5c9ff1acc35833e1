import { Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getRepositoryToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotencyFailure,
  IdempotencyModule,
  IdempotencyService,
  sharedClient,
  type IdempotencyEvent,
  type IdempotencyModuleOptions,
  type IdempotentTask,
} from 'nestjs-pg-idempotency';
import type { Pool } from 'pg';
import { DataSource, type Repository } from 'typeorm';
import { eventually } from './conditions.js';
import type { TestDatabase } from './database.js';
import { Order, Wallet } from './shop.js';
import { TUNING } from './tuning.js';

export interface WorkerOptions {
  readonly databaseUrl: string;
  /** Default: no purge timer. */
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
  readonly poolSize?: number;
}

@Module({})
class WorkerModule {}

/** An application without an HTTP server, such as a queue's consumer. */
export class Worker {
  private constructor(
    readonly context: INestApplicationContext,
    readonly events: IdempotencyEvent[],
  ) {}

  static async start({ databaseUrl, idempotency, poolSize = 10 }: WorkerOptions): Promise<Worker> {
    const events: IdempotencyEvent[] = [];
    const context = await NestFactory.createApplicationContext(
      {
        module: WorkerModule,
        imports: [
          TypeOrmModule.forRoot({
            type: 'postgres',
            url: databaseUrl,
            entities: [Wallet, Order],
            poolSize,
            retryAttempts: 0,
          }),
          TypeOrmModule.forFeature([Wallet, Order]),
          IdempotencyModule.forRoot({
            client: sharedClient('unused'),
            purge: false,
            tuning: TUNING,
            observer: { observe: (event) => void events.push(event) },
            ...idempotency,
          }),
        ],
      },
      { logger: process.env['TEST_LOG'] ? ['error', 'warn'] : false, abortOnError: false },
    );
    return new Worker(context, events);
  }

  get service(): IdempotencyService {
    return this.context.get(IdempotencyService);
  }

  get orders(): Repository<Order> {
    return this.context.get<Repository<Order>>(getRepositoryToken(Order), { strict: false });
  }

  get dataSource(): DataSource {
    return this.context.get(DataSource, { strict: false });
  }

  eventsOf<Type extends IdempotencyEvent['type']>(type: Type): Extract<IdempotencyEvent, { type: Type }>[] {
    return this.events.filter(
      (event): event is Extract<IdempotencyEvent, { type: Type }> => event.type === type,
    );
  }

  /** Resolves when every connection is back in the pool. */
  async idle(): Promise<void> {
    const { master } = this.dataSource.driver as unknown as { master: Pool };
    await eventually(() => master.idleCount === master.totalCount && master.waitingCount === 0);
  }

  close(): Promise<void> {
    return this.context.close();
  }
}

/** A task of one client and endpoint, whose key is all that differs. */
export function taskOf(key: string, options: Partial<IdempotentTask> = {}): IdempotentTask {
  return { client: 'queue', endpoint: 'orders.create', key, ...options };
}

/** The failure that a promise rejects with; throws when it does anything else. */
export async function failureOf(promise: Promise<unknown>): Promise<IdempotencyFailure> {
  const reason = await promise.then(
    (value) => new Error(`It resolved with ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (reason instanceof IdempotencyFailure) return reason;
  throw reason;
}

/** The records that there are, whatever their state. */
export function recordsOf(
  database: TestDatabase,
): Promise<{ key: string; status: string; mode: string; response_status: number | null }[]> {
  return database.query('SELECT key, status, mode, response_status FROM idempotency_records ORDER BY key');
}
