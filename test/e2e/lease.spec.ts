import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { BadGatewayException, Body, ConflictException, Controller, Post } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  CurrentExecution,
  Idempotent,
  ReleaseIdempotencyKey,
  type IdempotencyExecution,
  type Reconciliation,
  type UnresolvedOutcome,
} from 'nestjs-pg-idempotency';
import { Repository } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';

interface Instruction {
  readonly end: 'return' | 'conflict' | 'fail' | 'release';
}

let runs: { attempt: number; derived: string }[] = [];
let reconcile: (unresolved: UnresolvedOutcome) => Reconciliation;

@Controller('leases')
class LeasesController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post('refuse')
  @Idempotent({ mode: 'lease' })
  refuse(
    @Body() instruction: Instruction,
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<Order> {
    return this.#work(instruction, execution);
  }

  @Post('rerun')
  @Idempotent({ mode: 'lease', onOutcomeUnknown: 'rerun' })
  rerun(
    @Body() instruction: Instruction,
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<Order> {
    return this.#work(instruction, execution);
  }

  @Post('reconcile')
  @Idempotent({ mode: 'lease', onOutcomeUnknown: (unresolved) => reconcile(unresolved) })
  reconcile(
    @Body() instruction: Instruction,
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<Order> {
    return this.#work(instruction, execution);
  }

  async #work({ end }: Instruction, execution: IdempotencyExecution): Promise<Order> {
    runs.push({ attempt: execution.attempt, derived: execution.deriveKey('charge') });
    const order = await execution.transaction(() => this.orders.save({ item: 'book', price: 1 }));
    if (end === 'conflict') throw new ConflictException('already ordered');
    if (end === 'fail' && execution.attempt === 1) throw new Error('the provider timed out');
    if (end === 'release') throw new ReleaseIdempotencyKey(new BadGatewayException('closed'));
    return order;
  }
}

describe.each(ADAPTERS)('lease mode (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startApp({ adapter, databaseUrl: database.url, controllers: [LeasesController] });
  });

  afterEach(async () => {
    runs = [];
    await resetShop(database);
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, end: Instruction['end'], key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/leases/${route}`, { end }, { 'Idempotency-Key': key });

  it('records what the handler returns, and replays it', async () => {
    const first = await send('refuse', 'return', 'k1');
    const retry = await send('refuse', 'return', 'k1');
    expect(first.status).toBe(201);
    expect(retry.text).toBe(first.text);
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('records an error under 500, without undoing what the handler did', async () => {
    const first = await send('refuse', 'conflict', 'k2');
    const retry = await send('refuse', 'conflict', 'k2');
    expect(first.status).toBe(409);
    expect(retry.text).toBe(first.text);
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('refuses a retry of an attempt whose outcome is unknown, and names the attempt', async () => {
    expect((await send('refuse', 'fail', 'k3')).status).toBe(500);
    const retry = await send('refuse', 'fail', 'k3');
    expect(retry.status).toBe(409);
    expect(retry.json()).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
    expect((retry.json() as { detail: string }).detail).toContain('Attempt 1');
    expect(runs).toHaveLength(1);
  });

  it('runs again where the route says so, with the next attempt number and the same derived key', async () => {
    expect((await send('rerun', 'fail', 'k4')).status).toBe(500);
    expect((await send('rerun', 'fail', 'k4')).status).toBe(201);
    expect(runs.map(({ attempt }) => attempt)).toEqual([1, 2]);
    expect(runs[1]!.derived).toBe(runs[0]!.derived);
  });

  it('asks at once what became of an attempt that failed, and replays what it is told', async () => {
    const asked: UnresolvedOutcome[] = [];
    reconcile = (unresolved) => {
      asked.push(unresolved);
      return asked.length === 1
        ? { outcome: 'unknown' }
        : { outcome: 'completed', response: { status: 201, body: { item: 'found' } } };
    };
    expect((await send('reconcile', 'fail', 'k6')).status).toBe(500);
    const refused = await send('reconcile', 'fail', 'k6');
    expect(refused.json()).toMatchObject({ status: 409, code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
    const told = await send('reconcile', 'fail', 'k6');
    const replayed = await send('reconcile', 'fail', 'k6');
    expect({ status: told.status, body: told.json() }).toEqual({ status: 201, body: { item: 'found' } });
    expect(replayed.text).toBe(told.text);
    expect(asked.map(({ attempt }) => attempt)).toEqual([1, 1]);
    expect(asked[0]!.deriveKey('charge')).toBe(runs[0]!.derived);
    expect(asked[0]!.deriveKey('refund')).not.toBe(runs[0]!.derived);
    expect(runs).toHaveLength(1);
  });

  it('does not record what a reconcile handler must not answer with, and asks again', async () => {
    reconcile = () => ({ outcome: 'completed', response: { status: 503 } });
    await send('reconcile', 'fail', 'k7');
    const refused = await send('reconcile', 'fail', 'k7');
    expect(refused.json()).toMatchObject({ status: 409, code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
    reconcile = () => ({ outcome: 'released' });
    expect((await send('reconcile', 'fail', 'k7')).status).toBe(201);
    expect(runs.map(({ attempt }) => attempt)).toEqual([1, 2]);
  });

  it.each(['refuse', 'rerun', 'reconcile'])(
    'does not lend the key of an unknown outcome (%s)',
    async (route) => {
      await send(route, 'fail', 'k8');
      const other = await send(route, 'return', 'k8');
      expect(other.json()).toMatchObject({ status: 422, code: 'IDEMPOTENCY_KEY_REUSED' });
      expect(runs).toHaveLength(1);
    },
  );

  it('frees the key when the handler says that nothing happened', async () => {
    expect((await send('refuse', 'release', 'k5')).status).toBe(502);
    expect(await shopState(database)).toMatchObject({ records: 0 });
    expect((await send('refuse', 'return', 'k5')).status).toBe(201);
  });
});
