import type { Server } from 'node:http';
import {
  applyDecorators,
  Body,
  Controller,
  Global,
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
import { PREPARED_STATEMENTS } from './prepared-statements.js';

export type Adapter = 'express' | 'fastify';

/**
 * The HTTP adapters every end-to-end test runs on; one of them in the quick pass, and through PgBouncer, where what differs is
 * between the pool and the server.
 */
export const ADAPTERS: readonly Adapter[] = ['quick', 'pgbouncer'].includes(process.env['PASS'] ?? '')
  ? ['express']
  : ['express', 'fastify'];

/** One of them, for tests of what depends on the database and its sessions alone. */
export const ONE_ADAPTER = ADAPTERS.slice(0, 1);

export interface TestAppOptions {
  readonly adapter: Adapter;
  readonly databaseUrl: string;
  readonly controllers?: Type[];
  readonly providers?: ModuleMetadata['providers'];
  readonly imports?: ModuleMetadata['imports'];
  /** Default: one shared client, no purge timer, {@link PREPARED_STATEMENTS}. */
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
  /** In place of the module made from `idempotency`. */
  readonly idempotencyModule?: DynamicModule;
  readonly typeorm?: Partial<TypeOrmModuleOptions>;
  /** Size of the connection pool. Default: 10. */
  readonly poolSize?: number;
  /** Has Nest keep the bytes of bodies that it parses. Default: false. */
  readonly rawBody?: boolean;
  /** Options of Fastify's server. */
  readonly fastify?: ConstructorParameters<typeof FastifyAdapter>[0];
  /** Adds filters, pipes, middleware, plugins or versioning before the application listens. */
  readonly configure?: (app: NestExpressApplication & NestFastifyApplication) => void | Promise<void>;
}

export interface TestApp {
  readonly app: INestApplication;
  /** Such as `http://127.0.0.1:40123`. */
  readonly url: string;
  close(): Promise<void>;
}

/** Starts Nest on a real port, with the test's own controllers. Most tests need no more. */
export async function startApp(options: TestAppOptions): Promise<TestApp> {
  const { adapter, controllers = [], providers = [] } = options;
  const builder = Test.createTestingModule({ imports: modulesOf(options), controllers, providers });
  const module = await builder.compile();
  const app = module.createNestApplication<NestExpressApplication & NestFastifyApplication>(
    (adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter(options.fastify)) as FastifyAdapter,
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

/** What an {@link Application} gives a handler. */
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

/** A handler that waits until the test tells it how to end. */
export interface HeldHandler {
  /** Resolves when the handler was entered. */
  readonly entered: Promise<void>;
  /** Lets it go on and run `handler`. Default: the application's default handler. */
  end(handler?: Handler): void;
}

export interface ApplicationOptions extends Omit<TestAppOptions, 'adapter' | 'databaseUrl'> {
  /** `'none'` starts no HTTP server, as a queue consumer would. */
  readonly adapter: Adapter | 'none';
  /** A database with the shop's tables. Default: a new one, unless `databaseUrl` is given. */
  readonly database?: TestDatabase;
  /** Default: that of the database. */
  readonly databaseUrl?: string;
  /** More protected routes, by name. `run` (no options) and `plain` (unprotected) always exist. */
  readonly routes?: Readonly<Record<string, IdempotentRouteOptions>>;
  /** Default: {@link saveOrder}. */
  readonly handler?: Handler;
  /** Receives each milestone as it is passed. */
  readonly onMilestone?: (milestone: string) => void;
}

/** A Nest application whose handlers do what the test says. It records what happens. */
export class Application {
  readonly events: IdempotencyEvent[] = [];
  /** Handlers that were entered, in order. */
  readonly scenes: Scene[] = [];
  /** What handlers told, in order. Each tells `entered <attempt> <key>`, and `aborted` if it is. */
  readonly milestones: string[] = [];
  /** Requests that were read and are about to be claimed. */
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

  /** Sets what handlers entered from now on do. Without an argument: the default. */
  acts(handler: Handler = this.#defaultHandler): void {
    this.#handler = handler;
  }

  /** Makes the next handler wait. Later ones run the default. */
  hold(): HeldHandler {
    const [entered, ending] = [deferred(), deferred<Handler>()];
    this.acts(async (scene) => {
      this.acts();
      entered.resolve();
      return (await ending.promise)(scene);
    });
    return { entered: entered.promise, end: (handler = this.#defaultHandler) => ending.resolve(handler) };
  }

  /** Handlers that call {@link Application.pass} with this place wait until it is unblocked. */
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

  /** Called by the controllers. A script sent with {@link Application.run} goes first. */
  enter(scene: Scene, script: string | undefined): unknown {
    this.scenes.push(scene);
    // Undefined on `plain`.
    const execution = scene.execution as IdempotencyExecution | undefined;
    this.tell(`entered ${execution?.attempt} ${execution?.deriveKey('charge')}`);
    execution?.signal.addEventListener('abort', () => this.tell('aborted'));
    return (this.#scripts.get(script ?? '') ?? this.#handler)(scene);
  }

  send(route: string, key: string, body: unknown = { item: 'book' }): Promise<HttpResponse> {
    return postJson(`${this.url}/${route}`, body, { 'Idempotency-Key': key });
  }

  /** Sends `count` duplicates. Resolves when all have arrived, with a promise of their answers. */
  async sendAndArrive(
    count: number,
    route: string,
    key: string,
  ): Promise<{ answers: Promise<HttpResponse[]> }> {
    const before = this.arrived;
    const answers = Promise.all(Array.from({ length: count }, () => this.send(route, key)));
    answers.catch(() => undefined);
    // One more turn of the loop: by then they have joined the request they wait for.
    await eventually(() => this.arrived === before + count);
    await new Promise((resolve) => setImmediate(resolve));
    return { answers };
  }

  /** Sends a request whose handler runs `script`. Default: a new key, on the route `run`. */
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

  /** Connections in the pool, and requests that wait for one. */
  pool(): { total: number; idle: number; waiting: number } {
    const pool = poolOf(this.dataSource);
    return { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount };
  }

  /** Resolves when the pool is idle and the server has no open transaction. */
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

  /** Forgets what happened, restores the default handler and unblocks every place. */
  reset(): void {
    this.acts();
    for (const place of this.#blocked.keys()) this.unblock(place);
    for (const list of [this.events, this.scenes, this.milestones]) list.length = 0;
  }

  /** Resets, and restores the tables. */
  clear(): Promise<void> {
    this.reset();
    return resetShop(this.database);
  }

  /** Closes the application, and drops the database if it created it. */
  async close(): Promise<void> {
    await this.nest.close();
    await this.ownDatabase?.drop();
  }
}

const LOGGER: false | ('error' | 'warn')[] = process.env['TEST_LOG'] ? ['error', 'warn'] : false;

const REPOSITORIES = [Wallet, Order].map((entity) => ({
  provide: getRepositoryToken(entity),
  inject: [DataSource],
  useFactory: (dataSource: DataSource) => dataSource.getRepository<Wallet | Order>(entity),
}));

/**
 * As `TypeOrmModule.forFeature` makes them, but that it tells every application of the process of these entities: one that
 * loads its entities by itself, as the sample application does, would get them too.
 */
@Global()
@Module({ providers: REPOSITORIES, exports: REPOSITORIES })
class ShopRepositories {}

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
    ShopRepositories,
    idempotencyModule ??
      IdempotencyModule.forRoot({
        client: sharedClient('tests'),
        purge: false,
        preparedStatements: PREPARED_STATEMENTS,
        ...idempotency,
      }),
    ...imports,
  ];
}

@Module({})
class RootModule {}

/** Starts Nest as a queue consumer's program does. */
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
