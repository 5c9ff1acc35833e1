import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, HttpException, Post } from '@nestjs/common';
import { CurrentExecution, Idempotent, type IdempotencyExecution } from 'nestjs-pg-idempotency';
import { once } from 'node:events';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';

let derived: string[] = [];
let reasons: unknown[] = [];

@Controller('executions')
class ExecutionsController {
  @Post()
  @Idempotent()
  async write(@Body() { status }: { status: number }, @CurrentExecution() execution: IdempotencyExecution) {
    derived.push(execution.deriveKey('charge'));
    await execution.manager.insert(Order, { item: 'manager', price: 1 });
    const undone = execution.transaction(async (nested) => {
      await nested.insert(Order, { item: 'undone', price: 1 });
      throw new Error('only this is undone');
    });
    await undone.catch(() => undefined);
    if (status !== 201) throw new HttpException('refused', status);
    return { mode: execution.mode, attempt: execution.attempt, aborted: execution.signal.aborted };
  }

  @Post('hanging')
  @Idempotent({ maxDuration: '300ms' })
  async hang(@CurrentExecution() { signal }: IdempotencyExecution) {
    await once(signal, 'abort');
    reasons.push(signal.reason);
    return {};
  }
}

describe.each(ADAPTERS)('the execution of a handler in transaction mode (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startApp({ adapter, databaseUrl: database.url, controllers: [ExecutionsController] });
  });

  afterEach(async () => {
    derived = [];
    reasons = [];
    await resetShop(database);
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (path: string, body: object): Promise<HttpResponse> =>
    postJson(`${app.url}/executions${path}`, body, { 'Idempotency-Key': 'one' });

  it('writes through its manager and nested transactions, which commit with the record', async () => {
    const answer = await send('', { status: 201 });
    expect(answer.json()).toEqual({ mode: 'transaction', attempt: 1, aborted: false });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('undoes what its manager wrote when it throws, and derives the same key again', async () => {
    expect((await send('', { status: 500 })).status).toBe(500);
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    expect((await send('', { status: 402 })).status).toBe(402);
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 1 });
    expect(derived).toHaveLength(2);
    expect(derived[1]).toBe(derived[0]);
  });

  it('has a signal that is aborted at maxDuration', async () => {
    const answer = await send('/hanging', {});
    expect(answer.status).toBe(503);
    expect(reasons).toEqual([
      expect.objectContaining({
        error: expect.objectContaining({ code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' }) as unknown,
      }),
    ]);
  });
});
