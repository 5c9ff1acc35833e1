import { Body, Controller, Get, Post } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';
import { spans } from './otel-preload.js';

@Controller()
class OtelController {
  constructor(private readonly effects: Effects) {}

  @Post('effects')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  @Get('spans')
  spans(): object[] {
    return spans.getFinishedSpans().map((span) => ({
      name: span.name,
      scope: span.instrumentationScope.name,
      trace: span.spanContext().traceId,
    }));
  }
}

run({ controllers: [OtelController] });
