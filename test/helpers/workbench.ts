import { applyDecorators, Controller, Headers, Post, Res, type Type } from '@nestjs/common';
import { DataSource, EntityManager, Repository } from 'typeorm';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent, type IdempotentRouteOptions } from 'nestjs-pg-idempotency';
import type { Pool } from 'pg';
import { startApp, type TestApp, type TestAppOptions } from './application.js';
import { eventually } from './conditions.js';
import { createTestDatabase, type TestDatabase } from './database.js';
import { postJson, type HttpResponse } from './http.js';
import { createShop, Order, resetShop, shopState, Wallet } from './shop.js';

/** What a handler has injected. */
export interface Tools {
  readonly dataSource: DataSource;
  readonly manager: EntityManager;
  readonly wallets: Repository<Wallet>;
  readonly orders: Repository<Order>;
  /** Sets the status of a response whose body the handler returns. */
  readonly respondWith: (status: number) => void;
}

/** The body of a handler, given by the test. */
export type Script = (tools: Tools) => unknown;

/** How a script is sent. */
export interface RunOptions {
  /** Default: a key of its own. */
  readonly key?: string;
  /** Default: `run`, which is protected with no options of its own. */
  readonly route?: string;
}

/** Options of a workbench: those of the application, and further protected routes by name. */
export type WorkbenchOptions = Omit<TestAppOptions, 'databaseUrl'> & {
  readonly databaseUrl?: string;
  readonly routes?: Readonly<Record<string, IdempotentRouteOptions>>;
};

/** An application on a database of its own, whose handlers do what each test tells them to. */
export class Workbench {
  #runs = 0;

  private constructor(
    readonly database: TestDatabase,
    readonly app: TestApp,
    private readonly scripts: Map<string, Script>,
  ) {}

  /** Starts application and database. `plain` is a route without protection. */
  static async start({ routes = {}, ...options }: WorkbenchOptions): Promise<Workbench> {
    const database = await createTestDatabase();
    await createShop(database);
    return Workbench.on(database, { routes, ...options });
  }

  /** Starts one more application on a database that has the tables already. */
  static async on(
    database: TestDatabase,
    { routes = {}, controllers = [], databaseUrl = database.url, ...options }: WorkbenchOptions,
  ): Promise<Workbench> {
    const scripts = new Map<string, Script>();
    const all = Object.entries({ plain: undefined, run: {}, ...routes });
    const own = all.map(([path, route]) => scriptController(path, route, scripts));
    const app = await startApp({ ...options, databaseUrl, controllers: [...own, ...controllers] });
    return new Workbench(database, app, scripts);
  }

  get dataSource(): DataSource {
    return this.app.app.get(DataSource);
  }

  /** Sends a request whose handler does what `script` says. */
  async run(script: Script, { key, route = 'run' }: RunOptions = {}): Promise<HttpResponse> {
    const id = String(++this.#runs);
    this.scripts.set(id, script);
    const headers = { 'Idempotency-Key': key ?? `run-${id}`, 'X-Script': id };
    return postJson(`${this.app.url}/${route}`, {}, headers);
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

  reset(): Promise<void> {
    return resetShop(this.database);
  }

  /** Resolves when every connection is back in the pool, and no transaction is open on the server. */
  async idle(): Promise<void> {
    const { master } = this.dataSource.driver as unknown as { master: Pool };
    await eventually(() => master.idleCount === master.totalCount && master.waitingCount === 0);
    await eventually(async () => {
      const open = await this.database.query(
        `SELECT state, query FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`,
      );
      if (open.length > 0) throw new Error(`open transactions: ${JSON.stringify(open)}`);
    });
  }

  async close(): Promise<void> {
    await this.app.close();
    await this.database.drop();
  }
}

function scriptController(
  path: string,
  options: IdempotentRouteOptions | undefined,
  scripts: ReadonlyMap<string, Script>,
): Type {
  @Controller(path)
  class ScriptController {
    constructor(
      readonly dataSource: DataSource,
      readonly manager: EntityManager,
      @InjectRepository(Wallet) readonly wallets: Repository<Wallet>,
      @InjectRepository(Order) readonly orders: Repository<Order>,
    ) {}

    @Post()
    @applyDecorators(...(options ? [Idempotent(options)] : []))
    run(
      @Headers('x-script') id: string,
      @Res({ passthrough: true }) response: { status(code: number): unknown },
    ): unknown {
      const { dataSource, manager, wallets, orders } = this;
      const respondWith = (status: number): void => void response.status(status);
      return scripts.get(id)?.({ dataSource, manager, wallets, orders, respondWith });
    }
  }
  return ScriptController;
}
