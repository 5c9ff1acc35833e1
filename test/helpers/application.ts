import type { DynamicModule, INestApplication, ModuleMetadata, Type } from '@nestjs/common';
import { ExpressAdapter, type NestExpressApplication } from '@nestjs/platform-express';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { TypeOrmModule, type TypeOrmModuleOptions } from '@nestjs/typeorm';
import { IdempotencyModule, sharedClient, type IdempotencyModuleOptions } from 'nestjs-pg-idempotency';
import { Order, Wallet } from './shop.js';
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

/** A real application on a real port, with the entities of {@link Wallet} and {@link Order}. */
export async function startApp(options: TestAppOptions): Promise<TestApp> {
  const { adapter, databaseUrl, controllers = [], providers = [], imports = [], poolSize = 10 } = options;
  const idempotency =
    options.idempotencyModule ??
    IdempotencyModule.forRoot({
      client: sharedClient('tests'),
      purge: false,
      tuning: TUNING,
      ...options.idempotency,
    });
  const builder = Test.createTestingModule({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        entities: [Wallet, Order],
        poolSize,
        retryAttempts: 0,
        ...options.typeorm,
      } as TypeOrmModuleOptions),
      TypeOrmModule.forFeature([Wallet, Order]),
      idempotency,
      ...imports,
    ],
    controllers,
    providers,
  });
  const module = await builder.compile();
  const app = module.createNestApplication<NestExpressApplication & NestFastifyApplication>(
    (adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter()) as FastifyAdapter,
    { rawBody: options.rawBody ?? false, logger: process.env['TEST_LOG'] ? ['error', 'warn'] : false },
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
