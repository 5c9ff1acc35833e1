import { Body, Controller, HttpCode, Post, type Type } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  CurrentExecution,
  Idempotent,
  type IdempotencyExecution,
  type IdempotencyModuleOptions,
  type IdempotentRouteOptions,
  type Reconciliation,
  type UnresolvedOutcome,
} from 'nestjs-pg-idempotency';
import { DataSource, Repository } from 'typeorm';
import { startApp, type Adapter, type TestApp, type TestAppOptions } from './application.js';
import { deferred, type Deferred } from './conditions.js';
import { Order } from './shop.js';

/** What a handler of the stage can do. */
export interface Props {
  readonly execution: IdempotencyExecution;
  readonly orders: Repository<Order>;
  readonly dataSource: DataSource;
  readonly body: Readonly<Record<string, unknown>>;
}

/** What the handlers of one application do, and what is known of them. Every part may be replaced by a test. */
export class Stage {
  readonly #closed = new Map<string, Deferred<void>>();
  /** What happened, in order. */
  readonly milestones: string[] = [];

  constructor(private readonly listener: (milestone: string) => void = () => undefined) {}

  tell(milestone: string): void {
    this.milestones.push(milestone);
    this.listener(milestone);
  }

  /** Handlers that come to this place wait there. */
  close(place: string): void {
    if (!this.#closed.has(place)) this.#closed.set(place, deferred());
  }

  open(place: string): void {
    this.#closed.get(place)?.resolve();
    this.#closed.delete(place);
  }

  async pass(place: string): Promise<void> {
    await this.#closed.get(place)?.promise;
  }

  /** An order written in a (fenced) transaction, with places to wait at before, inside and after it. */
  handler = async ({ execution, orders }: Props): Promise<unknown> => {
    await this.pass('handler');
    const order = await execution.transaction(async () => {
      const saved = await orders.save({ item: `attempt ${execution.attempt}`, price: 1 });
      this.tell('wrote');
      await this.pass('transaction');
      return saved;
    });
    this.tell('left');
    await this.pass('end');
    return order;
  };

  reconcile = (_unresolved: UnresolvedOutcome): Reconciliation | Promise<Reconciliation> => ({
    outcome: 'unknown',
  });
}

/** Milliseconds; the shortest lease there is. */
export const LEASE = 1_000;

/** Paths of the stage's handlers, with what they are told apart by. */
const ROUTES = {
  refuse: { mode: 'lease', lease: LEASE },
  rerun: { mode: 'lease', lease: LEASE, onOutcomeUnknown: 'rerun' },
  long: { mode: 'lease', lease: '30s', onOutcomeUnknown: 'rerun' },
  brief: { mode: 'lease', lease: LEASE, onOutcomeUnknown: 'rerun', maxDuration: 1_500 },
  transaction: {},
  'brief-transaction': { maxDuration: 1_500 },
} as const satisfies Record<string, IdempotentRouteOptions>;

export type Route = keyof typeof ROUTES | 'reconcile';

export interface LeaseAppOptions {
  readonly adapter: Adapter;
  readonly databaseUrl: string;
  readonly poolSize?: number;
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
  /** Further routes, and other options for the ones there are. */
  readonly routes?: Readonly<Record<string, IdempotentRouteOptions>>;
  readonly typeorm?: TestAppOptions['typeorm'];
  readonly configure?: TestAppOptions['configure'];
}

/** An application whose handlers do what the stage says. Duplicates do not wait unless it is told so. */
export async function startLeaseApp(options: LeaseAppOptions, stage: Stage): Promise<TestApp> {
  const { adapter, databaseUrl, poolSize, typeorm, configure } = options;
  const reconcile: IdempotentRouteOptions = {
    mode: 'lease',
    lease: LEASE,
    maxDuration: 1_500,
    onOutcomeUnknown: (unresolved) => stage.reconcile(unresolved),
  };
  const routes = Object.entries({ ...ROUTES, reconcile, ...options.routes });
  return startApp({
    adapter,
    databaseUrl,
    poolSize,
    typeorm,
    configure,
    controllers: [
      gateController(stage),
      ...routes.map(([path, route]) => stageController(path, route, stage)),
    ],
    idempotency: { whenInProgress: 'reject', ...options.idempotency },
  });
}

function stageController(path: string, options: IdempotentRouteOptions, stage: Stage): Type {
  @Controller(path)
  class StageController {
    constructor(
      @InjectRepository(Order) private readonly orders: Repository<Order>,
      private readonly dataSource: DataSource,
    ) {}

    @Post()
    @Idempotent(options)
    run(@CurrentExecution() execution: IdempotencyExecution, @Body() body: Props['body']): unknown {
      stage.tell(`entered ${execution.attempt} ${execution.deriveKey('charge')}`);
      execution.signal.addEventListener('abort', () => stage.tell('aborted'));
      const { orders, dataSource } = this;
      return stage.handler({ execution, orders, dataSource, body });
    }
  }
  return StageController;
}

/** For a stage in another process. */
function gateController(stage: Stage): Type {
  @Controller('gates')
  class GateController {
    @Post()
    @HttpCode(204)
    set(@Body() { place, open }: { place: string; open: boolean }): void {
      if (open) stage.open(place);
      else stage.close(place);
    }
  }
  return GateController;
}
