import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Post } from '@nestjs/common';
import { CurrentExecution, Idempotent, type IdempotencyExecution } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

/** Milliseconds: short beside what the test may take, and long beside what a boot takes on a busy machine. */
const CONNECT_TIMEOUT = 6_000;

let inside = deferred();

@Controller('fenced')
class FencedController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @Idempotent({ mode: 'lease', lease: '1s', maxDuration: '2s' })
  async run(@CurrentExecution() execution: IdempotencyExecution): Promise<object> {
    await execution.transaction(async () => {
      await this.dataSource.query('SELECT 1');
      inside.resolve();
      // It ends with the signal, as a call to the outside world would.
      await new Promise((resolve) => execution.signal.addEventListener('abort', resolve));
      await this.dataSource.query('SELECT 2');
    });
    return {};
  }
}

describe.each(ADAPTERS)('a network that falls silent inside a fenced transaction (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    proxy = await startDatabaseProxy(database.url);
    app = await startApp({
      adapter,
      databaseUrl: proxy.url(database.url),
      controllers: [FencedController],
      poolSize: 2,
      idempotency: { acquireTimeout: '500ms' },
      // As docs/operations.md advises: the pool itself would wait for a new connection for ever.
      typeorm: { connectTimeoutMS: CONNECT_TIMEOUT },
    });
    inside = deferred();
  });

  afterAll(async () => {
    await proxy.close();
    await database.drop();
  });

  it('keeps neither the client, nor its connection, nor the shutdown waiting', async () => {
    const answer = postJson(`${app.url}/fenced`, {}, { 'Idempotency-Key': 'silent' });
    await inside.promise;
    proxy.pause();
    const { status } = await answer;
    expect(status).toBe(503);
    const pool = poolOf(app.app.get(DataSource));
    // A connection that was being made gives up by itself.
    await eventually(() => expect(pool.totalCount).toBe(pool.idleCount), {
      timeoutMs: 2 * CONNECT_TIMEOUT,
    });
    await app.close();
  });
});
