import { Body, Controller, HttpCode, Post, type Type } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  CurrentExecution,
  Idempotent,
  type IdempotencyEvent,
  type IdempotencyExecution,
  type IdempotentRouteOptions,
} from 'nestjs-pg-idempotency';
import type { Pool } from 'pg';
import { DataSource, Repository } from 'typeorm';
import { startApp, type TestApp, type TestAppOptions } from './application.js';
import { deferred, eventually } from './conditions.js';
import type { TestDatabase } from './database.js';
import { postJson, type HttpResponse } from './http.js';
import { Order } from './shop.js';

/** What a handler of the stage is given. */
export interface Scene {
  readonly route: string;
  readonly body: unknown;
  readonly orders: Repository<Order>;
  readonly execution: IdempotencyExecution;
}

/** Routes by name, with their options. */
export type Routes = Readonly<Record<string, IdempotentRouteOptions>>;

/** A handler that has been entered, and waits to be told how to end. */
export interface HeldHandler {
  /** Resolves when the handler was entered. */
  readonly entered: Promise<void>;
  /** Lets it go on, with what it shall do. */
  end(act?: (scene: Scene) => unknown): void;
}

/**
 * An application whose handlers do what the test tells them, and which counts the requests that have come as far as to be
 * claimed, so that a test knows when duplicates wait.
 */
export class Stage {
  readonly events: IdempotencyEvent[] = [];
  /** Handlers entered, in order. */
  readonly scenes: Scene[] = [];
  /** Requests that were read, and are decided on next. */
  arrived = 0;
  #act: (scene: Scene) => unknown = saveOrder;

  private constructor(readonly app: TestApp) {}

  static async start(
    options: Omit<TestAppOptions, 'controllers' | 'databaseUrl'> & {
      readonly database: TestDatabase;
      readonly databaseUrl?: string;
      readonly routes?: Routes;
    },
  ): Promise<Stage> {
    const { database, databaseUrl = database.url, routes = { slow: {} }, ...rest } = options;
    let stage: Stage | undefined;
    const current = (): Stage => {
      if (!stage) throw new Error('The stage is not open yet');
      return stage;
    };
    const app = await startApp({
      ...rest,
      databaseUrl,
      controllers: Object.entries(routes).map(([name, route]) => stagedController(name, route, current)),
      idempotency: {
        observer: { observe: (event) => void current().events.push(event) },
        ...rest.idempotency,
        client: () => {
          current().arrived++;
          return 'tests';
        },
      },
    });
    return (stage = new Stage(app));
  }

  /** What handlers do that are entered from now on; without an argument they order a book. */
  acts(act: (scene: Scene) => unknown = saveOrder): void {
    this.#act = act;
  }

  act(scene: Scene): unknown {
    this.scenes.push(scene);
    return this.#act(scene);
  }

  /** Makes the next handler wait; those after it order a book. */
  hold(): HeldHandler {
    const [entered, ending] = [deferred(), deferred<(scene: Scene) => unknown>()];
    this.acts(async (scene) => {
      this.acts();
      entered.resolve();
      return (await ending.promise)(scene);
    });
    return { entered: entered.promise, end: (act = saveOrder) => ending.resolve(act) };
  }

  send(route: string, key: string, body: unknown = { item: 'book' }): Promise<HttpResponse> {
    return postJson(`${this.app.url}/${route}`, body, { 'Idempotency-Key': key });
  }

  /** Sends so many duplicates, and resolves when all of them have arrived; `answers` is what they get. */
  async sendAndArrive(
    count: number,
    route: string,
    key: string,
  ): Promise<{ answers: Promise<HttpResponse[]> }> {
    const before = this.arrived;
    const answers = Promise.all(Array.from({ length: count }, () => this.send(route, key)));
    answers.catch(() => undefined);
    // The look after they have arrived comes in a turn of its own, when they have found the flight they wait for.
    await eventually(() => this.arrived === before + count);
    await new Promise((resolve) => setImmediate(resolve));
    return { answers };
  }

  /** Connections of the pool, and those who wait for one. */
  pool(): { total: number; idle: number; waiting: number } {
    const { master } = this.app.app.get(DataSource).driver as unknown as { master: Pool };
    return { total: master.totalCount, idle: master.idleCount, waiting: master.waitingCount };
  }

  eventsOf<Type extends IdempotencyEvent['type']>(type: Type): Extract<IdempotencyEvent, { type: Type }>[] {
    return this.events.filter(
      (event): event is Extract<IdempotencyEvent, { type: Type }> => event.type === type,
    );
  }

  /** Forgets what happened. */
  reset(): void {
    this.acts();
    this.events.length = 0;
    this.scenes.length = 0;
  }

  close(): Promise<void> {
    return this.app.close();
  }
}

/** Orders a book. */
export function saveOrder({ orders }: Scene): Promise<Order> {
  return orders.save({ item: 'book', price: 1 });
}

function stagedController(route: string, options: IdempotentRouteOptions, stage: () => Stage): Type {
  @Controller(route)
  class StagedController {
    constructor(@InjectRepository(Order) readonly orders: Repository<Order>) {}

    @Post()
    @HttpCode(201)
    @Idempotent(options)
    run(@Body() body: unknown, @CurrentExecution() execution: IdempotencyExecution): unknown {
      return stage().act({ route, body, orders: this.orders, execution });
    }
  }
  return StagedController;
}
