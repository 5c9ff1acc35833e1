import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { Injectable, Module, type INestApplication, type ModuleMetadata } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { InjectRepository, TypeOrmModule, type TypeOrmModuleOptions } from '@nestjs/typeorm';
import { IdempotencyModule, sharedClient, type IdempotencyModuleOptions } from 'nestjs-pg-idempotency';
import { Column, Entity, PrimaryGeneratedColumn, Repository } from 'typeorm';
import type { DataSource, DataSourceOptions } from 'typeorm';

// Whatever becomes of the test, its applications end with it.
process.stdin.resume().once('end', () => process.exit());

@Entity('effects')
export class Effect {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  name!: string;

  /** Differs for each execution, so that a second one shows in the answer. */
  @Column('text')
  nonce!: string;
}

/** What the handlers do. */
@Injectable()
export class Effects {
  constructor(@InjectRepository(Effect) readonly repository: Repository<Effect>) {}

  write(name: string): Promise<Effect> {
    return this.repository.save({ name, nonce: randomUUID() });
  }
}

export interface NamedBody {
  readonly name: string;
}

export interface AppOptions extends Pick<ModuleMetadata, 'imports' | 'controllers' | 'providers'> {
  readonly idempotency?: Partial<IdempotencyModuleOptions>;
  /** In place of the module that is made from `idempotency`. */
  readonly idempotencyModule?: ModuleMetadata['imports'];
  readonly typeorm?: Partial<TypeOrmModuleOptions> & {
    readonly dataSourceFactory?: (options: DataSourceOptions) => Promise<DataSource>;
  };
  readonly configure?: (app: INestApplication) => void | Promise<void>;
  readonly bufferLogs?: boolean;
}

@Module({})
class App {}

/** Creates the application, without listening. */
export async function createApp(options: AppOptions): Promise<INestApplication> {
  const { imports = [], controllers = [], providers = [], configure } = options;
  const idempotency = options.idempotencyModule ?? [
    IdempotencyModule.forRoot({ client: sharedClient('interop'), purge: false, ...options.idempotency }),
  ];
  const { dataSourceFactory, ...connection } = options.typeorm ?? {};
  const module = {
    module: App,
    imports: [
      TypeOrmModule.forRootAsync({
        useFactory: () => ({
          type: 'postgres',
          url: process.env['DATABASE_URL'],
          entities: [Effect],
          poolSize: 5,
          retryAttempts: 0,
          ...(connection as object),
        }),
        ...(dataSourceFactory === undefined
          ? {}
          : { dataSourceFactory: (given) => dataSourceFactory(given as DataSourceOptions) }),
      }),
      TypeOrmModule.forFeature([Effect]),
      ...idempotency,
      ...imports,
    ],
    controllers,
    providers: [Effects, ...providers],
  };
  const settings = { logger: ['error' as const, 'warn' as const], abortOnError: false };
  const app = await NestFactory.create(module, await adapter(), {
    ...settings,
    ...(options.bufferLogs ? { bufferLogs: true, logger: undefined } : {}),
  });
  app.enableShutdownHooks();
  await configure?.(app);
  return app;
}

/** Runs the application, and prints where it listens; when it cannot boot, the process fails with the reason. */
export function run(options: AppOptions): void {
  const start = async (): Promise<void> => {
    const app = await createApp(options);
    await app.listen(0, '127.0.0.1');
    const { port } = app.getHttpServer().address() as AddressInfo;
    console.log(`listening http://127.0.0.1:${port}`);
  };
  start().catch(fail);
}

export function fail(error: unknown): void {
  console.error('refused to boot:', error instanceof Error ? error.message : error);
  process.exit(1);
}

async function adapter(): Promise<never> {
  if (process.env['ADAPTER'] === 'fastify') {
    const { FastifyAdapter } = await import('@nestjs/platform-fastify');
    return new FastifyAdapter() as never;
  }
  const { ExpressAdapter } = await import('@nestjs/platform-express');
  return new ExpressAdapter() as never;
}
