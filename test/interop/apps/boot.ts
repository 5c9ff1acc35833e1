import { Body, Controller, Injectable, Module, Post, Scope } from '@nestjs/common';
import { IdempotencyModule, Idempotent, sharedClient } from 'nestjs-pg-idempotency';
import { createApp, Effects, run, type AppOptions, type Effect, type NamedBody } from './base.js';

@Controller('effects')
class BootController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

@Injectable({ scope: Scope.REQUEST })
class RequestLogger {}

@Injectable({ scope: Scope.REQUEST, durable: true })
class DurableLogger {}

@Injectable()
class Settings {
  constructor(readonly logger: RequestLogger) {}
}

@Injectable()
class SettingsTwoHopsAway {
  constructor(readonly settings: Settings) {}
}

const SCOPED = [RequestLogger, DurableLogger, Settings, SettingsTwoHopsAway] as const;

@Module({ providers: [...SCOPED], exports: [...SCOPED] })
class ScopedModule {}

const optionsInject = (token: (typeof SCOPED)[number]): AppOptions['idempotencyModule'] => [
  IdempotencyModule.forRootAsync({
    imports: [ScopedModule],
    inject: [token],
    useFactory: () => ({ client: sharedClient('interop'), purge: false }),
  }),
];

const CASES: Record<string, AppOptions['idempotencyModule']> = {
  forgotten: [],
  'request-scoped': optionsInject(RequestLogger),
  durable: optionsInject(DurableLogger),
  'two hops away': optionsInject(SettingsTwoHopsAway),
  complete: undefined,
};

/** A unit test's way: no container, no request. */
async function callDirectly(): Promise<void> {
  const effects = { write: (name: string) => Promise.resolve({ name }) } as unknown as Effects;
  const { name } = await new BootController(effects).create({ name: 'called directly' });
  console.log(name);
}

async function boot(name: string, idempotencyModule: AppOptions['idempotencyModule']): Promise<void> {
  try {
    const app = await createApp({ controllers: [BootController], idempotencyModule });
    await app.init();
    console.log(`${name}: booted`);
    await app.close();
  } catch (error) {
    console.log(`${name}: refused to boot: ${(error as Error).message.replaceAll('\n', ' ')}`);
  }
}

async function bootAll(): Promise<void> {
  await callDirectly();
  for (const [name, module] of Object.entries(CASES)) await boot(name, module);
  // For the tests, which wait for a server.
  run({});
}

void bootAll();
