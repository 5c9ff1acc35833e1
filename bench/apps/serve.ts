// The process of one application: its settings are its one argument, the parent is told its port.
import 'reflect-metadata';
import type { Server } from 'node:http';
import { Module, type INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IdempotencyPurgeService } from 'nestjs-pg-idempotency';
import type { AppOrder, AppReply, AppRequests } from './app-messages.js';
import { releaseHeld } from './extras.controller.js';
import { Order, Wallet } from './shop.js';
import type { AppSettings } from './side.js';
import { SIDES } from './sides.js';
import { startTrace, takeTrace } from './trace.js';

const settings = JSON.parse(process.argv[2] ?? '{}') as AppSettings;

// Ctrl-C reaches the whole group; this process ends when its parent has ended, or says so.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit());

if (settings.trace) startTrace();
const app = await start();
process.on('message', ({ id, request }: AppOrder) => void answer(id, request));
const server = app.getHttpServer() as { address(): { port: number } };
tell({ port: server.address().port });

async function start(): Promise<INestApplication> {
  const make = SIDES[settings.side];
  if (make === undefined) throw new Error(`There is no side named ${settings.side}`);
  const side = make(settings);

  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: settings.databaseUrl,
        entities: [Wallet, Order, ...(side.entities ?? [])],
        poolSize: settings.pool,
        retryAttempts: 0,
      }),
      TypeOrmModule.forFeature([Wallet, Order]),
      ...(side.imports ?? []),
    ],
    controllers: side.controllers,
    providers: side.providers ?? [],
  })
  class BenchModule {}

  const adapter = settings.adapter === 'fastify' ? new FastifyAdapter() : new ExpressAdapter();
  const created = await NestFactory.create(BenchModule, adapter, { logger: ['error', 'warn'] });
  // A load of constant rate leaves connections idle, and counts one that is closed as a failure.
  (created.getHttpServer() as Server).keepAliveTimeout = 600_000;
  await created.listen(0, '127.0.0.1');
  return created;
}

async function answer(id: number, request: keyof AppRequests): Promise<void> {
  try {
    tell({ id, result: await perform(request) });
  } catch (error) {
    tell({ id, failure: String(error) });
  }
}

async function perform(request: keyof AppRequests): Promise<AppRequests[keyof AppRequests]> {
  switch (request) {
    case 'memory':
      return memory();
    case 'connections':
      return connections();
    case 'purge':
      return app.get(IdempotencyPurgeService).purge();
    case 'release':
      releaseHeld();
      return null;
    case 'trace':
      return takeTrace();
  }
}

function connections(): Promise<number> {
  const server = app.getHttpServer() as Server;
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  );
}

async function memory(): Promise<AppRequests['memory']> {
  if (globalThis.gc === undefined) throw new Error('Start this process with --expose-gc');
  // What finalisers free is collected by the next one.
  for (let round = 0; round < 3; round++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed + external, rss };
}

function tell(reply: AppReply): void {
  process.send?.(reply);
}
