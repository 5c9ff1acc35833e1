import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { HttpException } from '@nestjs/common';
import type { EntityManager, EntitySubscriberInterface, InsertEvent, TransactionCommitEvent } from 'typeorm';
import type { TransactionRollbackEvent } from 'typeorm';
import { outside } from 'nestjs-pg-idempotency';
import { ADAPTERS, Application } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { Order } from '../helpers/shop.js';

const order = (item: string): { item: string; price: number } => ({ item, price: 1 });
const swallow = (): undefined => undefined;

/** Collects entities while a transaction runs, as subscribers that publish events or clear caches do. */
class Recorder implements EntitySubscriberInterface<Order> {
  heard: string[] = [];
  /** What was collected in the transactions that are said to have committed. */
  published: string[] = [];
  onCommit: (event: TransactionCommitEvent) => unknown = swallow;
  onRollback: (event: TransactionRollbackEvent) => unknown = swallow;
  onBeforeStart: () => unknown = swallow;
  onBeforeRollback: () => unknown = swallow;
  onBeforeCommit: (manager: EntityManager) => unknown = swallow;

  listenTo(): typeof Order {
    return Order;
  }

  afterInsert({ entity, queryRunner }: InsertEvent<Order>): void {
    const data = queryRunner.data as { inserted?: string[] };
    (data.inserted ??= []).push(entity.item);
  }

  async beforeTransactionStart(): Promise<void> {
    this.heard.push('before start');
    await this.onBeforeStart();
  }

  afterTransactionStart(): void {
    this.heard.push('after start');
  }

  async beforeTransactionCommit({ manager }: TransactionCommitEvent): Promise<void> {
    this.heard.push('before commit');
    await this.onBeforeCommit(manager);
  }

  async afterTransactionCommit(event: TransactionCommitEvent): Promise<void> {
    this.heard.push('after commit');
    this.published.push(...((event.queryRunner.data as { inserted?: string[] }).inserted ?? []));
    await this.onCommit(event);
  }

  async beforeTransactionRollback(): Promise<void> {
    this.heard.push('before rollback');
    await this.onBeforeRollback();
  }

  async afterTransactionRollback(event: TransactionRollbackEvent): Promise<void> {
    this.heard.push('after rollback');
    await this.onRollback(event);
  }
}

const COMMITTED = ['before start', 'after start', 'before commit', 'after commit'];
const ROLLED_BACK = ['before start', 'after start', 'before rollback', 'after rollback'];

describe.each(ADAPTERS)('subscribers of a handler’s transaction (%s)', (adapter) => {
  let app: Application;
  let recorder: Recorder;

  beforeAll(async () => {
    const idempotency = { maxDuration: '5s', acquireTimeout: 500 } as const;
    const routes = { brief: { maxDuration: 300 } };
    app = await Application.start({ adapter, poolSize: 2, idempotency, routes });
  });

  beforeEach(() => {
    recorder = new Recorder();
    app.dataSource.subscribers.splice(0, Infinity, recorder);
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  const heard = (...expected: string[][]): Promise<void> =>
    eventually(() => expect(recorder.heard).toEqual(expected.flat()));

  it('hear of the commit once, when others can see what it wrote', async () => {
    const visible: string[][] = [];
    recorder.onCommit = async () => visible.push(await app.items());
    await app.run(async ({ orders }) => {
      await orders.save(order('saved'));
      await orders.save(order('saved as well'));
      expect(recorder.heard).toEqual(['before start', 'after start']);
    });
    await heard(COMMITTED);
    await eventually(() => expect(visible).toEqual([['saved', 'saved as well']]));
    expect(recorder.published).toEqual(['saved', 'saved as well']);
  });

  it('hear of nothing on a replay', async () => {
    await app.run(({ orders }) => orders.save(order('once')), { key: 'one' });
    await heard(COMMITTED);
    const replay = await app.run(({ orders }) => orders.save(order('twice')), { key: 'one' });
    expect(replay.headers['idempotency-replayed']).toBe('true');
    await heard(COMMITTED);
  });

  it.each([
    ['an error that is recorded', 402],
    ['an error that is not', 500],
  ])('hear of the rollback once, when the handler throws %s', async (_, status) => {
    const answer = await app.run(async ({ orders }) => {
      await orders.save(order('undone'));
      throw new HttpException('no', status);
    });
    expect(answer.status).toBe(status);
    await heard(ROLLED_BACK);
    expect(recorder.published).toEqual([]);
  });

  it('hear of a rollback when the transaction was aborted by a swallowed SQL error', async () => {
    const answer = await app.run(({ wallets }) =>
      wallets.decrement({ id: 1 }, 'balance', 5000).catch(swallow),
    );
    expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_ABORTED' });
    await heard(['before start', 'after start', 'before commit', 'before rollback', 'after rollback']);
  });

  it('hear “committed” of a nested transaction after the real COMMIT only', async () => {
    const visible: string[][] = [];
    recorder.onCommit = async () => visible.push(await app.items());
    await app.run(async ({ dataSource, orders }) => {
      await dataSource.transaction(async (outer) => {
        await outer.transaction((inner) => inner.save(Order, order('inner')));
        await outer.save(Order, order('outer'));
        await orders.save(order('outer, injected'));
      });
      await orders.save(order('root'));
      expect(recorder.heard).not.toContain('after commit');
    });
    const all = ['inner', 'outer', 'outer, injected', 'root'];
    await eventually(() => expect(visible).toEqual(Array(3).fill(all)));
    expect(recorder.published).toEqual(all);
    expect(recorder.heard.filter((each) => each === 'after commit')).toHaveLength(3);
    expect(recorder.heard.filter((each) => each.endsWith('rollback'))).toEqual([]);
  });

  it('hear “rolled back” of a nested transaction at once, also of what it had released', async () => {
    await app.run(async ({ dataSource, orders }) => {
      await dataSource
        .transaction(async (outer) => {
          await outer.transaction((inner) => inner.save(Order, order('inner')));
          throw new Error('undo');
        })
        .catch(swallow);
      expect(recorder.heard.filter((each) => each === 'after rollback')).toHaveLength(2);
      await orders.save(order('kept'));
    });
    await eventually(() => expect(recorder.heard.at(-1)).toBe('after commit'));
    expect(recorder.heard.filter((each) => each === 'after commit')).toHaveLength(1);
    expect(recorder.published).toEqual(['kept']);
  });

  it('hear “rolled back” of a released nested transaction when the handler fails later', async () => {
    await app.run(async ({ dataSource }) => {
      await dataSource.transaction((manager) => manager.save(Order, order('released')));
      throw new Error('after it');
    });
    await eventually(() =>
      expect(recorder.heard.filter((each) => each === 'after rollback')).toHaveLength(2),
    );
    expect(recorder.heard).not.toContain('after commit');
    expect(recorder.published).toEqual([]);
  });

  it.each(['commit', 'rollback'] as const)(
    'may query through the runner of the event after %s',
    async (end) => {
      const results: unknown[] = [];
      const use = async ({ queryRunner, manager }: TransactionCommitEvent): Promise<void> => {
        results.push(await queryRunner.query('SELECT pg_current_xact_id_if_assigned() AS transaction'));
        await manager.transaction((own) =>
          own.query(`INSERT INTO orders (item, price) VALUES ('nested', 1)`),
        );
        results.push(await manager.countBy(Order, { item: 'nested' }));
      };
      let uses = 0;
      const useOnce = async (event: TransactionCommitEvent): Promise<void> => {
        if (++uses === 1) await use(event);
      };
      if (end === 'commit') recorder.onCommit = useOnce;
      else recorder.onRollback = useOnce;
      await app.run(async () => {
        if (end === 'rollback') throw new HttpException('no', 402);
      });
      await eventually(() => expect(results).toEqual([[{ transaction: null }], 1]));
      await app.idle();
      expect(await app.items()).toEqual(['nested']);
    },
  );

  it('that write before the commit write in the handler’s transaction', async () => {
    recorder.onBeforeCommit = (manager) =>
      manager.query(`INSERT INTO orders (item, price) VALUES ('added', 1)`);
    await app.run(() => 'done');
    expect(await app.items()).toEqual(['added']);
  });

  it('that fail before the commit undo it, and leave the key free', async () => {
    recorder.onBeforeCommit = () => {
      throw new Error('not like this');
    };
    const failed = await app.run(({ orders }) => orders.save(order('undone')), { key: 'one' });
    expect(failed.status).toBe(500);
    expect(failed.json()).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_FAILED' });
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    recorder.onBeforeCommit = swallow;
    expect((await app.run(() => 'done', { key: 'one' })).text).toBe('done');
  });

  it('that fail before the start are the application’s failure, and leave the key free', async () => {
    recorder.onBeforeStart = () => {
      throw new Error('not now');
    };
    const failed = await app.run(() => 'never', { key: 'one' });
    expect(failed.status).toBe(500);
    expect(failed.json()).toMatchObject({ code: 'IDEMPOTENCY_RESPONSE_FAILED' });
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    recorder.onBeforeStart = swallow;
    expect((await app.run(() => 'done', { key: 'one' })).text).toBe('done');
  });

  it('may take longer before the start than a claim may', async () => {
    const startedAt = performance.now();
    recorder.onBeforeStart = () => eventually(() => performance.now() - startedAt > 800);
    expect((await app.run(({ orders }) => orders.save(order('kept')))).status).toBe(201);
    expect(await app.items()).toEqual(['kept']);
  });

  it('hear of the rollback before the client does, also when the handler returns meanwhile', async () => {
    const rollingBack = deferred();
    const milestones: string[] = [];
    recorder.onBeforeRollback = async () => {
      rollingBack.resolve();
      // Time enough for an answer that does not wait.
      for (let look = 0; look < 5; look++) await app.run(() => 'looked', { route: 'plain' });
      milestones.push('rolled back');
    };
    const answer = await app.run(
      async ({ orders, respondWith }) => {
        await orders.save(order('undone'));
        await rollingBack.promise;
        respondWith(201);
      },
      { route: 'brief' },
    );
    milestones.push('answered');
    expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' });
    expect(milestones).toEqual(['rolled back', 'answered']);
  });

  it('that fail after the end change nothing', async () => {
    recorder.onCommit = recorder.onRollback = () => {
      throw new Error('too late');
    };
    expect((await app.run(({ orders }) => orders.save(order('kept')))).status).toBe(201);
    const refused = await app.run(() => {
      throw new HttpException('no', 402);
    });
    expect(refused.status).toBe(402);
    expect(await app.state()).toMatchObject({ orders: 1, records: 2 });
  });

  it('hear of transactions outside of the handler’s as ever', async () => {
    await app.run(async ({ dataSource }) => {
      await outside(() => dataSource.transaction((manager) => manager.save(Order, order('outside'))));
      expect(recorder.published).toEqual(['outside']);
      throw new Error('the handler fails');
    });
    expect(await app.items()).toEqual(['outside']);
  });
});
