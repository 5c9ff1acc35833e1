import { ValidationPipe, type INestApplication, type LoggerService, type LogLevel } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import helmet from 'helmet';
import { describeApi } from './describe-api.js';
import { SampleModule } from './sample.module.js';
import type { AdapterName } from './settings.js';

/** What the sample application is made of. */
export interface SampleAppOptions {
  /** Connection string. Tables and seeds are created there unless they exist. */
  readonly databaseUrl: string;
  readonly adapter: AdapterName;
  /** As in `NestFactory.create`. Default: warnings and errors. */
  readonly logger?: LoggerService | LogLevel[] | false;
}

/** Builds the application without listening, for `npm start` and for tests. */
export async function createSampleApp({
  databaseUrl,
  adapter,
  logger = ['error', 'warn'],
}: SampleAppOptions): Promise<INestApplication> {
  const httpAdapter = adapter === 'fastify' ? new FastifyAdapter() : new ExpressAdapter();
  const app = await NestFactory.create(SampleModule.forRoot(databaseUrl), httpAdapter, {
    logger,
    // Reject instead of ending the process: the caller has a database to stop.
    abortOnError: false,
    // Webhooks are signed over the bytes that were sent.
    rawBody: true,
  });
  // Without what only makes sense behind TLS.
  app.use(helmet({ contentSecurityPolicy: { directives: { upgradeInsecureRequests: null } }, hsts: false }));
  app.useGlobalPipes(new ValidationPipe({ transform: true, whitelist: true, forbidNonWhitelisted: true }));
  describeApi(app);
  return app;
}
