import { randomUUID } from 'node:crypto';
import { Controller, Headers, Post } from '@nestjs/common';
import {
  CurrentExecution,
  Idempotent,
  type IdempotencyExecution,
  type IdempotencyModuleOptions,
} from 'nestjs-pg-idempotency';
import { DataSource, type EntityManager } from 'typeorm';
import { startApp, type TestApp, type TestAppOptions } from '../helpers/application.js';
import type { Program } from '../helpers/application-process.js';
import type { TestDatabase } from '../helpers/database.js';

/** Milliseconds; the shortest lease there is. */
const LEASE = 1_000;

/** Paths of the protected handlers, each with the path of the same handler unprotected, for control runs. */
export const FAULT_ROUTES = {
  /** Its effect is a row, written in the transaction of its record. */
  transaction: 'unprotected-transaction',
  /** Its effect is a charge at a provider, under a key derived from the identity; it is run again when in doubt. */
  lease: 'unprotected-lease',
} as const;

export type FaultRoute = keyof typeof FAULT_ROUTES;

/** What every handler answers; the nonce is drawn anew by each execution, so that a second one shows. */
export interface FaultAnswer {
  readonly key: string;
  readonly nonce: string;
  /** In lease mode, the number that the provider gave the charge. */
  readonly charge?: number;
}

export interface FaultAppOptions extends Pick<TestAppOptions, 'adapter' | 'databaseUrl' | 'poolSize'> {
  /** Where the provider of `startProvider` is. Only the lease routes need one. */
  readonly providerUrl?: string;
  /** Only what JSON can carry when the application runs in a process of its own. */
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
}

/** Creates the table of effects: one row for each time that a handler's write was committed. */
export async function createEffects(database: TestDatabase): Promise<void> {
  await database.query(
    `CREATE TABLE effects (id bigserial PRIMARY KEY, key text NOT NULL, nonce text NOT NULL,
                           committed_at timestamptz NOT NULL DEFAULT clock_timestamp())`,
  );
}

/** An application to do harm to. Duplicates wait for a running request, as they do by default. */
export async function startFaultApp(options: FaultAppOptions): Promise<TestApp> {
  const { adapter, databaseUrl, poolSize, idempotency, providerUrl = '' } = options;
  return startApp({
    adapter,
    databaseUrl,
    poolSize,
    idempotency,
    controllers: [FaultController],
    providers: [{ provide: Provider, useValue: new Provider(providerUrl) }],
  });
}

/** The same, for `startTracedProcess`. */
export function faultProgram(options: FaultAppOptions): Program {
  return { module: './test/faults/application.ts', start: 'startFaultApp', options };
}

/** The outside service, as handlers reach it. */
class Provider {
  constructor(private readonly url: string) {}

  async charge(idempotencyKey: string, key: string, signal?: AbortSignal): Promise<number> {
    const answer = await fetch(`${this.url}/charges`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': idempotencyKey },
      body: JSON.stringify({ key }),
      signal,
    });
    if (!answer.ok) throw new Error(`The provider answered ${answer.status}`);
    const { charge } = (await answer.json()) as { charge: number };
    return charge;
  }
}

@Controller()
class FaultController {
  constructor(
    private readonly dataSource: DataSource,
    private readonly provider: Provider,
  ) {}

  @Post('transaction')
  @Idempotent()
  async transaction(@Headers('idempotency-key') key: string): Promise<FaultAnswer> {
    return this.#write(key);
  }

  @Post('unprotected-transaction')
  async unprotectedTransaction(@Headers('idempotency-key') key: string): Promise<FaultAnswer> {
    return this.dataSource.transaction((manager) => this.#write(key, manager));
  }

  @Post('lease')
  @Idempotent({ mode: 'lease', lease: LEASE, onOutcomeUnknown: 'rerun' })
  async lease(
    @Headers('idempotency-key') key: string,
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<FaultAnswer> {
    const charge = await this.provider.charge(execution.deriveKey('charge'), key, execution.signal);
    const { nonce } = await execution.transaction(() => this.#write(key));
    return { key, nonce, charge };
  }

  @Post('unprotected-lease')
  async unprotectedLease(@Headers('idempotency-key') key: string): Promise<FaultAnswer> {
    const charge = await this.provider.charge(randomUUID(), key);
    const { nonce } = await this.dataSource.transaction((manager) => this.#write(key, manager));
    return { key, nonce, charge };
  }

  async #write(key: string, database: DataSource | EntityManager = this.dataSource): Promise<FaultAnswer> {
    const nonce = randomUUID();
    await database.query('INSERT INTO effects (key, nonce) VALUES ($1, $2)', [key, nonce]);
    return { key, nonce };
  }
}
