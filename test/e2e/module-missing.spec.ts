import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  Controller,
  Inject,
  Injectable,
  Module,
  Post,
  Scope,
  type DynamicModule,
  type Type,
} from '@nestjs/common';
import { ContextIdFactory, REQUEST } from '@nestjs/core';
import { Test, type TestingModule } from '@nestjs/testing';
import {
  Idempotent,
  IdempotencyModule,
  sharedClient,
  type IdempotencyModuleOptions,
} from 'nestjs-pg-idempotency';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';

let runs = 0;

@Controller('things')
class ThingsController {
  @Post()
  @Idempotent()
  create(): number {
    return ++runs;
  }
}

@Idempotent()
@Controller('marked')
class MarkedController {
  @Post()
  create(): number {
    return ++runs;
  }
}

@Controller('leaf')
class LeafController extends ThingsController {}

@Controller('proxied')
@((type) => new Proxy(type, {}))
class ProxiedController {
  @Post()
  @Idempotent()
  create(): number {
    return ++runs;
  }
}

@Controller('copied')
class CopiedController {}
Object.defineProperty(
  CopiedController.prototype,
  'create',
  Object.getOwnPropertyDescriptor(ThingsController.prototype, 'create')!,
);

@Injectable({ scope: Scope.REQUEST })
class Logger {
  constructor(@Inject(REQUEST) readonly request: unknown) {}
}

@Injectable()
class Tenants {
  constructor(@Inject(Logger) readonly logger: Logger) {}
}

@Injectable()
class Settings {
  constructor(@Inject(Tenants) readonly tenants: Tenants) {}

  createIdempotencyOptions(): IdempotencyModuleOptions {
    return OPTIONS;
  }
}

@Injectable({ scope: Scope.REQUEST, durable: true })
class Durable {}

@Module({ providers: [Logger, Tenants, Settings, Durable], exports: [Logger, Tenants, Settings, Durable] })
class SettingsModule {}

const OPTIONS: IdempotencyModuleOptions = { client: sharedClient('tests'), purge: false };
const imports = [SettingsModule];

const NOT_STATIC: [string, () => DynamicModule, RegExp][] = [
  [
    'the request',
    () => IdempotencyModule.forRootAsync({ inject: [REQUEST], useFactory: () => OPTIONS }),
    /depend on REQUEST,/,
  ],
  [
    'a provider of each request',
    () => IdempotencyModule.forRootAsync({ imports, inject: [Logger], useFactory: () => OPTIONS }),
    /depend on Logger,/,
  ],
  [
    'a provider two hops away',
    () => IdempotencyModule.forRootAsync({ imports, inject: [Tenants], useFactory: () => OPTIONS }),
    /depend on Tenants, which injects Logger,/,
  ],
  [
    'a factory three hops away',
    () => IdempotencyModule.forRootAsync({ imports, useExisting: Settings }),
    /depend on Settings, which injects Tenants, which injects Logger,/,
  ],
  [
    'a durable provider',
    () => IdempotencyModule.forRootAsync({ imports, inject: [Durable], useFactory: () => OPTIONS }),
    /depend on Durable,/,
  ],
];

describe.each(ADAPTERS)('an application that protects nothing (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp | undefined;

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  afterEach(async () => {
    await app?.close();
    app = undefined;
  });

  afterAll(() => database.drop());

  async function refusal(controller: Type, idempotencyModule: DynamicModule): Promise<string> {
    const outcome = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [controller],
      idempotencyModule,
    }).then(
      (started) => {
        app = started;
        return undefined;
      },
      (error: unknown) => error,
    );
    expect(outcome).toBeInstanceOf(Error);
    return (outcome as Error).message;
  }

  it.each([ThingsController, MarkedController, LeafController, ProxiedController, CopiedController])(
    'does not boot without the module (%p)',
    async (controller) => {
      class NoModule {
        readonly protectsNothing = true;
      }
      const message = await refusal(controller, { module: NoModule });
      expect(message).toMatch(/^IDEMPOTENCY_MODULE_MISSING: .*Import IdempotencyModule\.forRoot\(…\)/);
    },
  );

  it.each(NOT_STATIC)('does not boot when the options depend on %s', async (_what, module, chain) => {
    const message = await refusal(ThingsController, module());
    expect(message).toMatch(/^IDEMPOTENCY_MODULE_NOT_STATIC: .*Inject providers of the default scope/);
    expect(message).toMatch(chain);
  });

  it('does not boot although it marks nothing, when the options depend on a request', async () => {
    @Controller('plain')
    class PlainController {
      readonly marksNothing = true;
    }
    const [, module] = NOT_STATIC[1]!;
    expect(await refusal(PlainController, module())).toMatch(/^IDEMPOTENCY_MODULE_NOT_STATIC/);
  });

  it('boots with options of the container', async () => {
    const idempotencyModule = IdempotencyModule.forRootAsync({ useFactory: () => OPTIONS });
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [ThingsController],
      idempotencyModule,
    });
    const send = async (): Promise<string> =>
      (await postJson(`${app!.url}/things`, {}, { 'Idempotency-Key': adapter })).text;
    expect(await send()).toBe(await send());
  });
});

describe('a unit test of a controller', () => {
  let module: TestingModule;

  beforeAll(async () => {
    module = await Test.createTestingModule({ controllers: [ThingsController] }).compile();
  });

  it('hears nothing until it is initialised', async () => {
    const before = runs;
    expect(module.get(ThingsController).create()).toBe(before + 1);
    const scoped = await module.resolve(ThingsController, ContextIdFactory.create());
    expect(scoped.create()).toBe(before + 2);
    await expect(module.init()).rejects.toThrow(
      /IDEMPOTENCY_MODULE_MISSING: .*in a test, in the testing module/,
    );
  });
});
