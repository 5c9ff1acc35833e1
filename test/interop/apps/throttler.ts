import { Body, Controller, Post } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { ThrottlerGuard, ThrottlerModule } from '@nestjs/throttler';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

@Controller('effects')
class ThrottledController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

run({
  imports: [
    ThrottlerModule.forRoot({
      throttlers: [{ ttl: 600_000, limit: 4 }],
      // The tests speak for several callers.
      getTracker: ({ headers }) => String((headers as Record<string, unknown>)['x-caller']),
    }),
  ],
  controllers: [ThrottledController],
  providers: [{ provide: APP_GUARD, useClass: ThrottlerGuard }],
});
