import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Get, Post } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest } from '../helpers/http.js';

const SETTINGS = `SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement,
                         current_setting('idle_in_transaction_session_timeout') AS idle,
                         current_setting('transaction_timeout', true) AS transaction`;
const ISOLATION = `SELECT current_setting('transaction_isolation') AS level`;

@Controller('settings')
class SettingsController {
  constructor(private readonly dataSource: DataSource) {}

  @Get()
  outside(): Promise<unknown> {
    return this.dataSource.query(SETTINGS);
  }

  @Post()
  @Idempotent({ maxDuration: '45s' })
  inside(): Promise<unknown> {
    return this.dataSource.query(SETTINGS);
  }

  @Post('isolation')
  @Idempotent()
  isolation(): Promise<unknown> {
    return this.dataSource.query(ISOLATION);
  }
}

describe.each(ADAPTERS)('session settings (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    // On the database, and not when the application connects: behind PgBouncer only what every session has can be relied on.
    await database.query(`ALTER DATABASE "${database.name}" SET lock_timeout = '7s'`);
    // One connection, so that what a handler leaves behind is seen.
    const options = { adapter, databaseUrl: database.url, controllers: [SettingsController], poolSize: 1 };
    // TypeORM 1 has an isolation level for a whole DataSource.
    app = await startApp({ ...options, typeorm: { isolationLevel: 'REPEATABLE READ' } });
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it('bounds a handler by maxDuration but leaves it its own lock timeout, and leaves nothing behind', async () => {
    const url = `${app.url}/settings`;
    const before = await sendRequest(url);
    const inside = await postJson(url, {}, { 'Idempotency-Key': 'settings' });
    const after = await sendRequest(url);
    const isNew =
      (await database.query("SELECT FROM pg_settings WHERE name = 'transaction_timeout'")).length > 0;
    const [unbounded] = before.json() as [object];
    const bounds = isNew ? { transaction: '45s' } : { statement: '45s', idle: '45s' };
    expect(inside.json()).toEqual([{ ...unbounded, ...bounds }]);
    expect(unbounded).toMatchObject({ lock: '7s', statement: '0', idle: '0' });
    expect(after.json()).toEqual(before.json());
  });

  it("runs at the DataSource's isolation level where nothing else is asked for", async () => {
    const answer = await postJson(`${app.url}/settings/isolation`, {}, { 'Idempotency-Key': 'isolation' });
    expect(answer.json()).toEqual([{ level: 'repeatable read' }]);
  });
});
