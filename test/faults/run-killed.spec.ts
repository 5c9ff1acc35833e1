import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { currentExecution, type RunResult } from 'nestjs-pg-idempotency';
import { Application } from '../helpers/application.js';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { untilLapsed } from '../helpers/leases.js';
import { createShop, resetShop, shopState, type Order } from '../helpers/shop.js';
import { taskOf } from '../helpers/tasks.js';

/*
 * A consumer in a process of its own is killed with a message in its hands; the message is delivered again, to another.
 */
describe('a consumer that was killed', () => {
  let database: TestDatabase;
  let worker: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    worker = await Application.start({ adapter: 'none', database });
  });

  afterEach(() => resetShop(database));

  afterAll(async () => {
    await worker.close();
    await database.drop();
  });

  /** A consumer with `worker`, `service` and `order(item)`; it prints what it has come to, and goes no further than `hang`. */
  const consume = (source: string): TypeScriptProcess =>
    runTypeScript(`
      import { currentExecution } from './lib/index.ts';
      import { Application } from './test/helpers/application.ts';
      import { taskOf } from './test/helpers/tasks.ts';
      const worker = await Application.start({ adapter: 'none', databaseUrl: ${JSON.stringify(database.url)} });
      const { service } = worker;
      const order = (item) => worker.orders.save({ item, price: 1 });
      const step = (name, work) =>
        service.run({ client: 'queue', endpoint: 'order/' + name, key: currentExecution().deriveKey(name) }, work);
      const hang = () => new Promise(() => setInterval(() => undefined, 60_000));
      const say = (milestone) => console.log(JSON.stringify(milestone));
      ${source}
    `);

  const saveOrder = (item: string): Promise<Order> => worker.orders.save({ item, price: 1 });

  it.each(['transaction', 'lease'] as const)(
    'between effect and acknowledgement has its recording replayed (%s)',
    async (mode) => {
      const consumer = consume(`
        const task = taskOf('acknowledged', { mode: '${mode}', payload: { n: 1 } });
        say(await service.run(task, async () => ({ order: await order('first'), at: new Date(0) })));
        await hang();
      `);
      const { createdAt, ...first } = JSON.parse(await consumer.nextLine()) as RunResult<unknown>;
      await consumer.kill();
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });

      const task = taskOf('acknowledged', { mode, payload: { n: 1 } });
      const again = await worker.service.run(task, () => saveOrder('second'));
      expect(again).toEqual({ ...first, createdAt: new Date(createdAt), replayed: true });
      expect(again.value).toMatchObject({ order: { item: 'first' }, at: '1970-01-01T00:00:00.000Z' });
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    },
  );

  it('before its transaction committed leaves nothing, and the redelivery runs', async () => {
    const consumer = consume(`
      await service.run(taskOf('rolled back'), async () => {
        say(await order('first'));
        await hang();
      });
    `);
    await consumer.nextLine();
    await consumer.kill();
    // It waits until the server has noticed that its client is gone.
    const again = await worker.service.run(taskOf('rolled back'), () => saveOrder('second'));
    expect(again).toMatchObject({ value: { item: 'second' }, replayed: false });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('after two of three steps does only the third when it is delivered again', async () => {
    const consumer = consume(`
      await service.run(taskOf('steps', { mode: 'lease', lease: '1s', onOutcomeUnknown: 'rerun' }), async () => {
        await step('reserve', () => order('reserve'));
        await step('charge', () => order('charge'));
        say('half way');
        await hang();
      });
    `);
    expect(JSON.parse(await consumer.nextLine())).toBe('half way');
    await consumer.kill();
    await untilLapsed(database, 'steps');

    const done: string[] = [];
    const step = async (name: string): Promise<RunResult<Order>> => {
      const key = currentExecution()!.deriveKey(name);
      return worker.service.run({ client: 'queue', endpoint: `order/${name}`, key }, () => {
        done.push(name);
        return saveOrder(name);
      });
    };
    const task = taskOf('steps', { mode: 'lease', lease: '1s', onOutcomeUnknown: 'rerun' });
    const { value } = await worker.service.run(task, async ({ attempt }) => {
      const steps = [await step('reserve'), await step('charge'), await step('ship')];
      return { attempt, replayed: steps.map(({ replayed }) => replayed) };
    });
    expect(value).toEqual({ attempt: 2, replayed: [true, true, false] });
    expect(done).toEqual(['ship']);
    expect(await shopState(database)).toMatchObject({ orders: 3, records: 4 });
  });
});
