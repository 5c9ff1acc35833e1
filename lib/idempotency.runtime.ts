import type { BeforeApplicationShutdown, OnApplicationShutdown, OnModuleInit } from '@nestjs/common';
import type { ApplicationConfig, ModuleRef, ModulesContainer } from '@nestjs/core';
import { DataSource } from 'typeorm';
import { parseDuration } from './core/duration.js';
import { IdempotencyEngine } from './core/engine.js';
import { IdempotencyUsageError } from './core/errors.js';
import type { Notify } from './core/events.js';
import { notifier } from './event-notifier.js';
import { IdempotencyInterceptor } from './http/idempotency.interceptor.js';
import { RouteRegistry } from './http/route-registry.js';
import type { IdempotencyModuleOptions } from './idempotency.options.js';
import { validateModuleOptions, validateRouteOptions } from './idempotency.options.validation.js';
import { TypeOrmHost } from './join/typeorm/host.js';
import { TaskRunner } from './run/task-runner.js';
import { inspectDatabase } from './store/boot-checks.js';
import { PostgresStore } from './store/postgres-store.js';
import type { PurgeTarget } from './store/purge.js';
import { Records } from './store/records.js';
import type { PostgresStoreOptions } from './store/store-options.js';
import { noteProtection } from './transports/http/module-check.js';
import { guardClasses } from './transports/http/routes.js';

const DEFAULT_TABLE = 'idempotency_records';
const DEFAULT_ACQUIRE_TIMEOUT = 5_000;
const DEFAULT_MAX_WAITERS = 2_000;
const DEFAULT_PURGE = { interval: 600_000, batchSize: 1_000 } as const;

/** What exists once the database has been looked at. */
interface Started {
  readonly engine: IdempotencyEngine;
  readonly storeOptions: PostgresStoreOptions;
  readonly records: Records;
  /** Resolves when nothing runs any more. */
  readonly drain: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Puts the parts together: checks at boot, and takes apart again at shutdown. */
export class IdempotencyRuntime implements OnModuleInit, BeforeApplicationShutdown, OnApplicationShutdown {
  /** Runs what is no HTTP handler. */
  readonly tasks: TaskRunner;
  readonly #routes: RouteRegistry;
  readonly #notify: Notify;
  #started: Started | undefined;

  constructor(
    private readonly options: IdempotencyModuleOptions,
    config: ApplicationConfig,
    private readonly modules: ModulesContainer,
    private readonly moduleRef: ModuleRef,
  ) {
    // Those of forRoot() were validated there.
    validateModuleOptions(options, 'forRootAsync');
    this.#notify = notifier(options.observer);
    this.tasks = new TaskRunner(options, () => this.#running().engine);
    this.#routes = new RouteRegistry(options, config, validateRouteOptions);
    const interceptors = config.getGlobalInterceptors();
    if (interceptors.some((interceptor) => interceptor instanceof IdempotencyInterceptor)) {
      throw new IdempotencyUsageError(
        'IDEMPOTENCY_MODULE_TWICE',
        'IdempotencyModule is configured twice in one application. It is global: call forRoot() once, in the root module.',
      );
    }
    // Here and not in onModuleInit: by then the routes are built. First, so that a replay passes through nobody else.
    guardClasses(modules);
    noteProtection(modules);
    interceptors.unshift(new IdempotencyInterceptor(this.#routes, () => this.#running().engine));
  }

  async onModuleInit(): Promise<void> {
    this.#routes.scan(this.modules);
    this.#started = await this.#start();
  }

  /** While the server still answers and the DataSource is still open. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.#started?.drain();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.#started?.stop();
  }

  records(): Records {
    return this.#running().records;
  }

  purgeTarget(): PurgeTarget {
    const { purge } = this.options;
    return {
      store: this.#running().storeOptions,
      notify: this.#notify,
      batchSize: (purge && purge.batchSize) || DEFAULT_PURGE.batchSize,
      interval: purge === false ? undefined : (parseDuration(purge?.interval) ?? DEFAULT_PURGE.interval),
    };
  }

  #running(): Started {
    if (this.#started) return this.#started;
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_NOT_STARTED',
      'the application has not been initialised: call init().',
    );
  }

  async #start(): Promise<Started> {
    const { dataSource, close } = await this.#dataSource();
    try {
      const host = new TypeOrmHost(dataSource);
      const { table = DEFAULT_TABLE, schema = host.schema, allowAsynchronousCommit = false } = this.options;
      const acquireTimeout = parseDuration(this.options.acquireTimeout) ?? DEFAULT_ACQUIRE_TIMEOUT;
      const inspection = { table, schema, allowAsynchronousCommit, acquireTimeout };
      const { statements, defaultIsolation } = await inspectDatabase(host.pool, inspection);
      const leave = host.join();
      const storeOptions: PostgresStoreOptions = {
        host,
        pool: host.pool,
        statements,
        isolation: host.isolation ?? defaultIsolation,
        acquireTimeout,
        names: this.options.preparedStatements === false ? undefined : statements.names,
      };
      const store = new PostgresStore(storeOptions);
      const engine = new IdempotencyEngine(
        store,
        this.#notify,
        this.options.maxWaiters ?? DEFAULT_MAX_WAITERS,
      );
      const drain = async (): Promise<void> => {
        await engine.shutdown();
        await store.drained();
      };
      const stop = async (): Promise<void> => {
        await drain();
        await store.close();
        leave();
        await close();
      };
      return { engine, storeOptions, records: new Records(storeOptions), drain, stop };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async #dataSource(): Promise<{ dataSource: DataSource; close: () => Promise<void> }> {
    const { dataSource: choice } = this.options;
    const isOwn = typeof choice === 'object' && !(choice instanceof DataSource);
    const dataSource = isOwn ? new DataSource(choice) : (choice ?? DataSource);
    const resolved = dataSource instanceof DataSource ? dataSource : this.#registered(dataSource);
    if (resolved.options.type !== 'postgres') throw unsuitable(`is of type "${resolved.options.type}"`);
    if (isOwn) await resolved.initialize();
    if (!resolved.isInitialized) throw unsuitable('is not initialised: call its initialize() first');
    return { dataSource: resolved, close: async () => (isOwn ? resolved.destroy() : undefined) };
  }

  /** As `@nestjs/typeorm` registers them: the default by its class, others by their names. */
  #registered(choice: string | typeof DataSource): DataSource {
    const token =
      choice === 'default' ? DataSource : typeof choice === 'string' ? `${choice}DataSource` : choice;
    try {
      return this.moduleRef.get<DataSource>(token, { strict: false });
    } catch (cause) {
      const which = typeof choice === 'string' ? `DataSource named "${choice}"` : 'default DataSource';
      throw new IdempotencyUsageError(
        'IDEMPOTENCY_DATA_SOURCE_MISSING',
        `the application has no ${which}. Import TypeOrmModule.forRoot(…), or set the option "dataSource".`,
        { cause },
      );
    }
  }
}

function unsuitable(why: string): IdempotencyUsageError {
  return new IdempotencyUsageError(
    'IDEMPOTENCY_DATA_SOURCE_UNSUITABLE',
    `the DataSource ${why}. Records are kept in PostgreSQL: set the option "dataSource" to one of type "postgres".`,
  );
}
