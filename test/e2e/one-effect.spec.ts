import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, Post } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Repository } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState, Wallet } from '../helpers/shop.js';

@Controller('orders')
class OrdersController {
  constructor(
    @InjectRepository(Wallet) private readonly wallets: Repository<Wallet>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
  ) {}

  @Post()
  @Idempotent()
  async create(@Body() { item, price }: { item: string; price: number }): Promise<Order> {
    await this.wallets.decrement({ id: 1 }, 'balance', price);
    return this.orders.save({ item, price });
  }
}

describe.each(ADAPTERS)('one effect (%s)', (adapter) => {
  let database: TestDatabase;
  let instances: TestApp[];

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    const start = (): Promise<TestApp> =>
      startApp({ adapter, databaseUrl: database.url, controllers: [OrdersController] });
    instances = await Promise.all([start(), start()]);
  });

  afterEach(() => resetShop(database));

  afterAll(async () => {
    await Promise.all(instances.map((instance) => instance.close()));
    await database.drop();
  });

  const order = (instance: number, key: string): ReturnType<typeof postJson> =>
    postJson(
      `${instances[instance % 2]!.url}/orders`,
      { item: 'book', price: 10 },
      { 'Idempotency-Key': key },
    );

  it('runs once and replays to the retry', async () => {
    const first = await order(0, 'key-1');
    const retry = await order(1, 'key-1');
    expect(first.status).toBe(201);
    expect(retry.status).toBe(201);
    expect(retry.text).toBe(first.text);
    expect(first.headers['idempotency-replayed']).toBeUndefined();
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(retry.headers['idempotency-created-at']).toBe(first.headers['idempotency-created-at']);
    expect(await shopState(database)).toEqual({ balance: 990, orders: 1, records: 1 });
  });

  it('runs once for 50 identical requests at once through two instances', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => order(index, 'double-click')));
    const originals = answers.filter(
      ({ status, headers }) => status === 201 && !headers['idempotency-replayed'],
    );
    const others = answers.filter((answer) => !originals.includes(answer));
    expect(originals).toHaveLength(1);
    for (const { status, text, headers } of others) {
      expect([201, 409]).toContain(status);
      if (status === 201) expect(text).toBe(originals[0]!.text);
      else expect(headers['retry-after']).toBe('1');
    }
    expect(await shopState(database)).toEqual({ balance: 990, orders: 1, records: 1 });
    expect((await order(0, 'double-click')).text).toBe(originals[0]!.text);
  });
});
