import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Application } from '../helpers/application.js';
import { cutBeforeCommit, loseCommitAnswer } from '../helpers/commit-faults.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, resetShop, shopState, type Order } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import { failureOf, taskOf } from '../helpers/tasks.js';

describe('a run whose COMMIT', () => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let worker: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  beforeEach(async () => {
    proxy = await startDatabaseProxy(database.url);
    worker = await Application.start({ adapter: 'none', database, databaseUrl: proxy.url(database.url) });
  });

  afterEach(async () => {
    await worker.close();
    await proxy.close();
    await resetShop(database);
  });

  afterAll(() => database.drop());

  const deliver = (item: string): ReturnType<typeof worker.service.run<Order>> =>
    worker.service.run(taskOf('delivered', { payload: { n: 1 } }), () =>
      worker.orders.save({ item, price: 1 }),
    );

  it('was carried out, with its answer lost, is replayed by the redelivery', async () => {
    const fault = loseCommitAnswer(proxy);
    const { error } = await failureOf(deliver('first'));
    await fault.struck;
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNKNOWN', retryAfter: 1 });
    expect(await deliver('second')).toMatchObject({ value: { item: 'first' }, replayed: true });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('never arrived is run again by the redelivery', async () => {
    const fault = cutBeforeCommit(proxy);
    const { error } = await failureOf(deliver('first'));
    await fault.struck;
    expect(error.code).toBe('IDEMPOTENCY_OUTCOME_UNKNOWN');
    expect(await deliver('second')).toMatchObject({ value: { item: 'second' }, replayed: false });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('cannot be sent, because the connection broke under the work, is run again by the redelivery', async () => {
    const broken = worker.service.run(taskOf('broken'), async () => {
      await worker.orders.save({ item: 'first', price: 1 });
      await worker.dataSource.query('SELECT pg_terminate_backend(pg_backend_pid())');
    });
    const { error, cause } = await failureOf(broken);
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_STORE_UNAVAILABLE', retryAfter: 1 });
    expect(cause).toBeInstanceOf(Error);
    const again = worker.service.run(taskOf('broken'), () =>
      worker.orders.save({ item: 'second', price: 1 }),
    );
    expect(await again).toMatchObject({ value: { item: 'second' }, replayed: false });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });
});
