import { Body, Controller, Get, HttpException, Post } from '@nestjs/common';
import { SentryModule } from '@sentry/nestjs/setup';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';
import { sent } from './sentry-preload.js';

@Controller()
class SentryController {
  constructor(private readonly effects: Effects) {}

  @Post('effects')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  @Post('refusals')
  @Idempotent()
  async refuse(@Body() { name }: NamedBody): Promise<never> {
    await this.effects.write(name);
    throw new HttpException('Payment required', 402);
  }

  @Get('spans')
  spans(): string[] {
    return sent;
  }
}

run({ imports: [SentryModule.forRoot()], controllers: [SentryController] });
