import type { Server } from 'node:http';
import {
  applyDecorators,
  Body,
  Controller,
  Headers,
  Module,
  Post,
  Res,
  type DynamicModule,
  type INestApplication,
  type INestApplicationContext,
  type ModuleMetadata,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter, type NestExpressApplication } from '@nestjs/platform-express';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import {
  InjectRepository,
  TypeOrmModule,
  getRepositoryToken,
  type TypeOrmModuleOptions,
} from '@nestjs/typeorm';
import {
  CurrentExecution,
  Idempotent,
  IdempotencyModule,
  IdempotencyService,
  sharedClient,
  type ClientResolver,
  type IdempotencyEvent,
  type IdempotencyExecution,
  type IdempotencyModuleOptions,
  type IdempotentRouteOptions,
} from 'nestjs-pg-idempotency';
import { DataSource, EntityManager, Repository } from 'typeorm';
import { deferred, eventually, type Deferred } from './conditions.js';
import { poolOf, untilIdle } from './connections.js';
import { createTestDatabase, type TestDatabase } from './database.js';
import { postJson, type HttpResponse } from './http.js';
import { createShop, Order, resetShop, shopState, Wallet } from './shop.js';
import { TUNING } from './tuning.js';

export type Adapter = 'express' | 'fastify';

/** The HTTP adapters every end-to-end test runs on; in the quick pass, one of them. */
export const ADAPTERS: readonly Adapter[] =
  process.env['PASS'] === 'quick' ? ['express'] : ['express', 'fastify'];

export interface TestAppOptions {
  readonly adapter: Adapter;
  readonly databaseUrl: string;
  readonly controllers?: Type[];
  readonly providers?: ModuleMetadata['providers'];
  readonly imports?: ModuleMetadata['imports'];
  /** Default: one shared client, no purge timer, the {@link TUNING} of the run. */
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
  /** In place of the module made from `idempotency`. */
  readonly idempotencyModule?: DynamicModule;
  readonly typeorm?: Partial<TypeOrmModuleOptions>;
  /** Size of the connection pool. Default: 10. */
  readonly poolSize?: number;
  /** Has Nest keep the bytes of bodies that it parses. Default: false. */
  readonly rawBody?: boolean;
  /** Called before the application listens, to add filters, pipes, middleware, plugins or versioning. */
  readonly configure?: (app: NestExpressApplication & NestFastifyApplication) => void | Promise<void>;
}

export interface TestApp {
  readonly app: INestApplication;
  /** Such as `http://127.0.0.1:40123`. */
  readonly url: string;
  close(): Promise<void>;
}

/** A Nest application on a real port whose controllers are the test's own. Most tests need no more. */
export async function startApp(options: TestAppOptions): Promise<TestApp> {
  const { adapter, controllers = [], providers = [] } = options;
  const builder = Test.createTestingModule({ imports: modulesOf(options), controllers, providers });
  const module = await builder.compile();
  const app = module.createNestApplication<NestExpressApplication & NestFastifyApplication>(
    (adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter()) as FastifyAdapter,
    { rawBody: options.rawBody ?? false, logger: LOGGER },
  );
  try {
    await options.configure?.(app);
    await app.listen(0, '127.0.0.1');
  } catch (error) {
    await app.close().catch(() => undefined);
    throw error;
  }
  const { port } = app.getHttpServer().address() as { port: number };
  return { app, url: `http://127.0.0.1:${port}`, close: () => app.close() };
}

/** What a handler of an {@link Application} is given. */
export interface Scene {
  readonly application: Application;
  readonly route: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** On the route `plain`: undefined. */
  readonly execution: IdempotencyExecution;
  readonly dataSource: DataSource;
  readonly manager: EntityManager;
  readonly wallets: Repository<Wallet>;
  readonly orders: Repository<Order>;
  /** Sets the status of a response whose body the handler returns. */
  readonly respondWith: (status: number) => void;
}

export type Handler = (scene: Scene) => unknown;

/** Orders a book. */
export function saveOrder({ orders }: Scene): Promise<Order> {
  return orders.save({ item: 'book', price: 1 });
}

/** A handler that has been entered, and waits to be told how to end. */
export interface HeldHandler {
  /** Resolves when the handler was entered. */
  readonly entered: Promise<void>;
  /** Lets it go on, with what it shall do. */
  end(handler?: Handler): void;
}

export interface ApplicationOptions extends Omit<TestAppOptions, 'adapter' | 'databaseUrl'> {
  /** `'none'`: without an HTTP server, as a consumer of a queue is. */
  readonly adapter: Adapter | 'none';
  /** Has to have the shop's tables. Default: a database of its own, unless `databaseUrl` is given. */
  readonly database?: TestDatabase;
  /** Default: that of the database. */
  readonly databaseUrl?: string;
  /** Protected routes by name. `run` is always there, with no options, and so is `plain`, which is not protected. */
  readonly routes?: Readonly<Record<string, IdempotentRouteOptions>>;
  /** What handlers do unless they are told otherwise. Default: {@link saveOrder}. */
  readonly handler?: Handler;
  /** Hears of each milestone at once. */
  readonly onMilestone?: (milestone: string) => void;
}

/** A Nest application whose handlers do what the test tells them to, with what there is to know about it. */
export class Application {
  readonly events: IdempotencyEvent[] = [];
  /** Handlers that were entered, in order. */
  readonly scenes: Scene[] = [];
  /** What handlers say about how far they have come, in order: `entered 1 …` and `aborted` are said for every one. */
  readonly milestones: string[] = [];
  /** Requests that were read, and are decided on next. */
  arrived = 0;
  readonly #defaultHandler: Handler;
  readonly #scripts = new Map<string, Handler>();
  readonly #blocked = new Map<string, Deferred<void>>();
  #handler: Handler;
  #runs = 0;
  #nest: INestApplicationContext | undefined;
  #url: string | undefined;

  private constructor(
    private readonly options: ApplicationOptions,
    private readonly ownDatabase: TestDatabase | undefined,
  ) {
    this.#handler = this.#defaultHandler = options.handler ?? saveOrder;
  }

  static async start(options: ApplicationOptions): Promise<Application> {
    const isGiven = options.database !== undefined || options.databaseUrl !== undefined;
    const own = isGiven ? undefined : await createTestDatabase();
    if (own) await createShop(own);
    const application = new Application(options, own);
    await application.#start();
    return application;
  }

  async #start(): Promise<void> {
    const { adapter, routes, controllers = [], idempotency, ...options } = this.options;
    const { client = sharedClient('tests') } = idempotency ?? {};
    const common = {
      ...options,
      databaseUrl: this.options.databaseUrl ?? this.database.url,
      idempotency: {
        observer: { observe: (event: IdempotencyEvent) => void this.events.push(event) },
        ...idempotency,
        client: ((...request) => {
          this.arrived++;
          return client(...request);
        }) as ClientResolver,
      },
    };
    if (adapter === 'none') {
      this.#nest = await startContext(common);
      return;
    }
    const own = Object.entries({ plain: undefined, run: {}, ...routes });
    const app = await startApp({
      ...common,
      adapter,
      controllers: [...own.map(([route, of]) => controllerFor(route, of, this)), ...controllers],
    });
    this.#nest = app.app;
    this.#url = app.url;
  }

  /** Such as `http://127.0.0.1:40123`. */
  get url(): string {
    return this.#url ?? fail('This application has no HTTP server');
  }

  get server(): Server {
    return (this.nest as INestApplication).getHttpServer() as Server;
  }

  get nest(): INestApplicationContext {
    return this.#nest ?? fail('This application has not started yet');
  }

  get database(): TestDatabase {
    return this.options.database ?? this.ownDatabase ?? fail('Only the URL of its database was given');
  }

  get dataSource(): DataSource {
    return this.nest.get(DataSource);
  }

  get orders(): Repository<Order> {
    return this.nest.get<Repository<Order>>(getRepositoryToken(Order));
  }

  get service(): IdempotencyService {
    return this.nest.get(IdempotencyService);
  }

  /** What handlers do that are entered from now on; without an argument, what they do by default. */
  acts(handler: Handler = this.#defaultHandler): void {
    this.#handler = handler;
  }

  /** Makes the next handler wait; those after it do what they do by default. */
  hold(): HeldHandler {
    const [entered, ending] = [deferred(), deferred<Handler>()];
    this.acts(async (scene) => {
      this.acts();
      entered.resolve();
      return (await ending.promise)(scene);
    });
    return { entered: entered.promise, end: (handler = this.#defaultHandler) => ending.resolve(handler) };
  }

  /** Handlers that come to this place wait there: that is where they call {@link Application.pass}. */
  block(place: string): void {
    if (!this.#blocked.has(place)) this.#blocked.set(place, deferred());
  }

  unblock(place: string): void {
    this.#blocked.get(place)?.resolve();
    this.#blocked.delete(place);
  }

  async pass(place: string): Promise<void> {
    await this.#blocked.get(place)?.promise;
  }

  tell(milestone: string): void {
    this.milestones.push(milestone);
    this.options.onMilestone?.(milestone);
  }

  /** What a route's handler does: what its request was sent with, or else what all handlers do now. */
  enter(scene: Scene, script: string | undefined): unknown {
    this.scenes.push(scene);
    // On `plain` there is none.
    const execution = scene.execution as IdempotencyExecution | undefined;
    this.tell(`entered ${execution?.attempt} ${execution?.deriveKey('charge')}`);
    execution?.signal.addEventListener('abort', () => this.tell('aborted'));
    return (this.#scripts.get(script ?? '') ?? this.#handler)(scene);
  }

  send(route: string, key: string, body: unknown = { item: 'book' }): Promise<HttpResponse> {
    return postJson(`${this.url}/${route}`, body, { 'Idempotency-Key': key });
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

  /** Sends a request whose handler does what `script` says. Default: to `run`, with a key of its own. */
  run(
    script: Handler,
    { key, route = 'run' }: { readonly key?: string; readonly route?: string } = {},
  ): Promise<HttpResponse> {
    const id = String(++this.#runs);
    this.#scripts.set(id, script);
    const headers = { 'Idempotency-Key': key ?? `run-${id}`, 'X-Script': id };
    return postJson(`${this.url}/${route}`, {}, headers);
  }

  eventsOf<Type extends IdempotencyEvent['type']>(type: Type): Extract<IdempotencyEvent, { type: Type }>[] {
    return this.events.filter(
      (event): event is Extract<IdempotencyEvent, { type: Type }> => event.type === type,
    );
  }

  /** Connections of the pool, and those who wait for one. */
  pool(): { total: number; idle: number; waiting: number } {
    const pool = poolOf(this.dataSource);
    return { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount };
  }

  /** Resolves when every connection is back in the pool, and no transaction is open on the server. */
  idle(): Promise<void> {
    return untilIdle(this.dataSource, this.database);
  }

  /** What the handlers have left behind. */
  state(): ReturnType<typeof shopState> {
    return shopState(this.database);
  }

  /** Names of the ordered items, as another connection sees them. */
  async items(): Promise<string[]> {
    const rows = await this.database.query<{ item: string }>('SELECT item FROM orders ORDER BY item');
    return rows.map(({ item }) => item);
  }

  /** Forgets what happened. Handlers do what they do by default, and no place is blocked. */
  reset(): void {
    this.acts();
    for (const place of this.#blocked.keys()) this.unblock(place);
    for (const list of [this.events, this.scenes, this.milestones]) list.length = 0;
  }

  /** As {@link Application.reset}, and the tables are as they were in the beginning. */
  clear(): Promise<void> {
    this.reset();
    return resetShop(this.database);
  }

  /** Ends the application, and drops the database where it is the application's own. */
  async close(): Promise<void> {
    await this.nest.close();
    await this.ownDatabase?.drop();
  }
}

const LOGGER: false | ('error' | 'warn')[] = process.env['TEST_LOG'] ? ['error', 'warn'] : false;

function modulesOf(options: Omit<TestAppOptions, 'adapter'>): NonNullable<ModuleMetadata['imports']> {
  const { databaseUrl, poolSize = 10, imports = [], typeorm, idempotency, idempotencyModule } = options;
  return [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: databaseUrl,
      entities: [Wallet, Order],
      poolSize,
      retryAttempts: 0,
      ...typeorm,
    } as TypeOrmModuleOptions),
    TypeOrmModule.forFeature([Wallet, Order]),
    idempotencyModule ??
      IdempotencyModule.forRoot({
        client: sharedClient('tests'),
        purge: false,
        tuning: TUNING,
        ...idempotency,
      }),
    ...imports,
  ];
}

@Module({})
class RootModule {}

/** As the program of a queue's consumer starts it. */
function startContext(options: Omit<TestAppOptions, 'adapter'>): Promise<INestApplicationContext> {
  const { providers = [] } = options;
  return NestFactory.createApplicationContext(
    { module: RootModule, imports: modulesOf(options), providers },
    { logger: LOGGER, abortOnError: false },
  );
}

function controllerFor(
  route: string,
  options: IdempotentRouteOptions | undefined,
  application: Application,
): Type {
  @Controller(route)
  class ToldController {
    constructor(
      readonly dataSource: DataSource,
      readonly manager: EntityManager,
      @InjectRepository(Wallet) readonly wallets: Repository<Wallet>,
      @InjectRepository(Order) readonly orders: Repository<Order>,
    ) {}

    @Post()
    @applyDecorators(...(options ? [Idempotent(options)] : []))
    run(
      @Body() body: Scene['body'],
      @CurrentExecution() execution: IdempotencyExecution,
      @Headers('x-script') script: string | undefined,
      @Res({ passthrough: true }) response: { status(code: number): unknown },
    ): unknown {
      const { dataSource, manager, wallets, orders } = this;
      const respondWith = (status: number): void => void response.status(status);
      const tools = { dataSource, manager, wallets, orders, respondWith };
      return application.enter({ application, route, body, execution, ...tools }, script);
    }
  }
  return ToldController;
}

function fail(message: string): never {
  throw new Error(message);
}
