import { Body, Controller, Post } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Logger, LoggerModule, PinoLogger } from 'nestjs-pino';
import { Effects, run, type Effect, type NamedBody } from './base.js';

@Controller('effects')
class PinoController {
  constructor(
    private readonly effects: Effects,
    private readonly logger: PinoLogger,
  ) {}

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    this.logger.info('the handler runs');
    return this.effects.write(name);
  }
}

/** The library echoes the key in its answer, and pino-http logs both heads. */
const redact = ['req.headers["idempotency-key"]', 'res.headers["idempotency-key"]'];

run({
  imports: [LoggerModule.forRoot({ pinoHttp: process.env['REDACT'] === 'no' ? {} : { redact } })],
  controllers: [PinoController],
  bufferLogs: true,
  configure: (app) => app.useLogger(app.get(Logger)),
});
