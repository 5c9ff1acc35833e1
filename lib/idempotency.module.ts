import {
  Inject,
  Module,
  type DynamicModule,
  type FactoryProvider,
  type NestModule,
  type OnModuleInit,
  type Provider,
} from '@nestjs/common';
import { ApplicationConfig, ModuleRef, ModulesContainer } from '@nestjs/core';
import { IdempotencyUsageError } from './core/errors.js';
import type {
  IdempotencyModuleAsyncOptions,
  IdempotencyModuleOptions,
  IdempotencyOptionsFactory,
} from './idempotency.options.js';
import { validateModuleOptions } from './idempotency.options.validation.js';
import { IdempotencyRuntime } from './idempotency.runtime.js';
import { IdempotencyService } from './idempotency.service.js';
import { describeRoutes } from './openapi/describe-routes.js';
import { IdempotencyPurgeService } from './store/purge.js';
import { assertProtection, OPTIONS } from './transports/http/module-check.js';
import { guardInstances } from './transports/http/routes.js';

const PROVIDERS: Provider[] = [
  {
    provide: IdempotencyRuntime,
    inject: [OPTIONS, ApplicationConfig, ModulesContainer, ModuleRef],
    useFactory: async (
      options: IdempotencyModuleOptions,
      config: ApplicationConfig,
      modules: ModulesContainer,
      moduleRef: ModuleRef,
    ) => {
      const runtime = new IdempotencyRuntime(options, config, modules, moduleRef);
      await describeRoutes(modules, options);
      return runtime;
    },
  },
  {
    provide: IdempotencyPurgeService,
    inject: [IdempotencyRuntime],
    useFactory: (runtime: IdempotencyRuntime) => new IdempotencyPurgeService(() => runtime.purgeTarget()),
  },
  {
    provide: IdempotencyService,
    inject: [IdempotencyRuntime],
    useFactory: (runtime: IdempotencyRuntime) =>
      new IdempotencyService(() => runtime.records(), runtime.tasks),
  },
];

/**
 * Makes handlers marked with `@Idempotent()` run once per (client, endpoint, key). Import it once, in the root module; it
 * is global.
 *
 * The application refuses to boot when an option is unknown or invalid, when the table is missing or outdated, when a
 * marked handler cannot be protected, when two would share an endpoint, and when its options depend on a provider of
 * another scope than the default; the error names the remedy.
 */
@Module({})
export class IdempotencyModule implements NestModule, OnModuleInit {
  /** @internal */
  constructor(@Inject(ModulesContainer) private readonly modules: ModulesContainer) {}

  /**
   * @param options - `client` is required, all else has defaults.
   * @throws IdempotencyUsageError `IDEMPOTENCY_OPTIONS_INVALID`.
   */
  static forRoot(options: IdempotencyModuleOptions): DynamicModule {
    validateModuleOptions(options);
    return dynamicModule([{ provide: OPTIONS, useValue: options }]);
  }

  /**
   * The same with options that are made by the container, for example from a configuration service.
   *
   * @param options - Exactly one of `useFactory`, `useClass` and `useExisting`.
   * @throws IdempotencyUsageError `IDEMPOTENCY_OPTIONS_INVALID`: here for none or several of them, when the application
   *   boots for what they make.
   */
  static forRootAsync(options: IdempotencyModuleAsyncOptions): DynamicModule {
    return { ...dynamicModule(asyncProviders(options)), imports: options.imports ?? [] };
  }

  /**
   * Nest calls it when there are instances, and no routes yet.
   *
   * @internal
   */
  configure(): void {
    guardInstances(this.modules);
  }

  /** @internal */
  onModuleInit(): void {
    assertProtection(this.modules);
  }
}

function dynamicModule(options: Provider[]): DynamicModule {
  return {
    module: IdempotencyModule,
    global: true,
    providers: [...options, ...PROVIDERS],
    exports: [IdempotencyPurgeService, IdempotencyService],
  };
}

function asyncProviders({
  inject = [],
  useFactory,
  useClass,
  useExisting,
}: IdempotencyModuleAsyncOptions): Provider[] {
  if ([useFactory, useClass, useExisting].filter(Boolean).length !== 1) {
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_OPTIONS_INVALID',
      'IdempotencyModule.forRootAsync() needs exactly one of useFactory, useClass and useExisting.',
    );
  }
  if (useFactory)
    return [{ provide: OPTIONS, inject, useFactory: useFactory as FactoryProvider['useFactory'] }];
  const fromFactory: Provider = {
    provide: OPTIONS,
    inject: [useClass ?? useExisting ?? ''],
    useFactory: (factory: IdempotencyOptionsFactory) => factory.createIdempotencyOptions(),
  };
  return useClass ? [useClass, fromFactory] : [fromFactory];
}
