import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { DataSource, EntityManager } from 'typeorm';
import { ADAPTERS, Application } from '../helpers/application.js';
import { deferred } from '../helpers/conditions.js';
import { Order } from '../helpers/shop.js';

const order = (item: string): { item: string; price: number } => ({ item, price: 1 });
const swallow = (): undefined => undefined;
const codeOf = (error: unknown): unknown => (error as { code?: string }).code;

describe.each(ADAPTERS)('nested transactions of a handler (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      poolSize: 1,
      routes: {
        serializable: { isolation: 'SERIALIZABLE' },
        repeatable: { isolation: 'REPEATABLE READ' },
      },
      idempotency: { acquireTimeout: '300ms', maxDuration: '5s' },
    });
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  describe('begun by dataSource.transaction', () => {
    it('commit with the handler, not before', async () => {
      const answer = await app.run(async ({ dataSource, orders }) => {
        await dataSource.transaction((manager) => manager.insert(Order, order('nested')));
        expect(await app.items()).toEqual([]);
        return orders.count();
      });
      expect(answer.text).toBe('1');
      expect(await app.items()).toEqual(['nested']);
    });

    it('are undone with the handler', async () => {
      await app.run(async ({ dataSource }) => {
        await dataSource.transaction((manager) => manager.insert(Order, order('nested')));
        throw new Error('after the nested transaction');
      });
      expect(await app.items()).toEqual([]);
    });

    it('undo only their own writes when the handler catches their error', async () => {
      const answer = await app.run(async ({ dataSource, orders }) => {
        await orders.insert(order('before'));
        const caught: unknown = await dataSource
          .transaction(async (manager) => {
            await manager.insert(Order, order('inside'));
            await orders.insert(order('inside, injected'));
            throw new Error('undo me');
          })
          .catch((error: unknown) => error);
        await orders.insert(order('after'));
        return (caught as Error).message;
      });
      expect(answer.text).toBe('undo me');
      expect(await app.items()).toEqual(['after', 'before']);
    });

    it('save the handler from an SQL error inside them', async () => {
      const answer = await app.run(async ({ dataSource, orders, wallets }) => {
        await orders.insert(order('before'));
        await dataSource
          .transaction(() => wallets.decrement({ id: 1 }, 'balance', 5000))
          .catch(() => orders.insert(order('instead')));
        return 'went on';
      });
      expect(answer.text).toBe('went on');
      expect(await app.items()).toEqual(['before', 'instead']);
    });

    it('fail, and only they, when their function swallows an SQL error', async () => {
      const answer = await app.run(async ({ dataSource, orders, wallets }) => {
        const caught: unknown = await dataSource
          .transaction(async () => {
            await orders.insert(order('inside'));
            await wallets.decrement({ id: 1 }, 'balance', 5000).catch(swallow);
          })
          .catch((error: unknown) => error);
        await orders.insert(order('after'));
        return { failed: caught instanceof Error };
      });
      expect(answer.json()).toEqual({ failed: true });
      expect(await app.items()).toEqual(['after']);
    });

    it('nest in each other, through the manager as through injected repositories', async () => {
      await app.run(async ({ dataSource, orders }) => {
        await dataSource.transaction(async (manager) => {
          await manager.insert(Order, order('1'));
          await manager
            .transaction(async (inner) => {
              await inner.insert(Order, order('1.1'));
              await inner.transaction((innermost) => innermost.insert(Order, order('1.1.1')));
              throw new Error('undo 1.1 with what is in it');
            })
            .catch(swallow);
          await dataSource.transaction(async (inner) => {
            await orders.insert(order('1.2'));
            await inner
              .transaction(async () => {
                await orders.insert(order('1.2.1'));
                throw new Error('undo 1.2.1');
              })
              .catch(swallow);
          });
        });
        await dataSource
          .transaction(async (manager) => {
            await manager.transaction(() => orders.insert(order('2.1')));
            throw new Error('undo 2 with what it has released');
          })
          .catch(swallow);
      });
      expect(await app.items()).toEqual(['1', '1.2']);
    });

    it('return what their function returns', async () => {
      const answer = await app.run(({ dataSource }) =>
        dataSource.transaction('READ COMMITTED', async () => ({ from: 'inside' })),
      );
      expect(answer.json()).toEqual({ from: 'inside' });
    });
  });

  describe('at the same time', () => {
    const transaction = async (
      dataSource: DataSource,
      item: string,
      outcome: 'keep' | 'undo',
    ): Promise<void> => {
      await dataSource.transaction(async (manager) => {
        await manager.insert(Order, order(`${item}, first`));
        await manager.query('SELECT pg_sleep(0.01)');
        await manager.insert(Order, order(`${item}, second`));
        if (outcome === 'undo') throw new Error(`undo ${item}`);
      });
    };

    it('siblings take turns, and one that rolls back takes no other with it', async () => {
      const answer = await app.run(async ({ dataSource }) => {
        const results = await Promise.allSettled([
          transaction(dataSource, 'a', 'keep'),
          transaction(dataSource, 'b', 'undo'),
          transaction(dataSource, 'c', 'keep'),
          transaction(dataSource, 'd', 'undo'),
        ]);
        return results.map(({ status }) => status);
      });
      expect(answer.json()).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected']);
      expect(await app.items()).toEqual(['a, first', 'a, second', 'c, first', 'c, second']);
    });

    it('a plain write beside a sibling that rolls back is kept', async () => {
      await app.run(async ({ dataSource, orders, manager }) => {
        const inside = deferred();
        const sibling = dataSource.transaction(async (own) => {
          await own.insert(Order, order('undone'));
          inside.resolve();
          await own.query('SELECT pg_sleep(0.01)');
          throw new Error('undo');
        });
        const beside = [orders.insert(order('at once')), manager.save(Order, order('saved'))];
        await inside.promise;
        beside.push(orders.insert(order('while it runs')));
        await Promise.allSettled([sibling, ...beside]);
      });
      expect(await app.items()).toEqual(['at once', 'saved', 'while it runs']);
    });

    it('so are plain writes, and transactions, on the manager of an outer nested transaction', async () => {
      await app.run(async ({ dataSource }) => {
        await dataSource.transaction(async (outer) => {
          const inside = deferred();
          const failing = outer.transaction(async (inner) => {
            await inner.insert(Order, order('undone'));
            inside.resolve();
            await inner.query('SELECT pg_sleep(0.01)');
            throw new Error('undo');
          });
          const beside = [outer.insert(Order, order('at once'))];
          await inside.promise;
          beside.push(
            outer.insert(Order, order('while it runs')),
            outer.transaction((own) => own.insert(Order, order('sibling'))),
          );
          await Promise.allSettled([failing, ...beside]);
        });
      });
      expect(await app.items()).toEqual(['at once', 'sibling', 'while it runs']);
    });

    it('a runner from outside works inside of another nested transaction', async () => {
      await app.run(async ({ dataSource }) => {
        const runner = dataSource.createQueryRunner();
        await dataSource.transaction(async () => {
          await runner.query(`INSERT INTO orders (item, price) VALUES ('by the outer runner', 1)`);
          await runner.startTransaction();
          await runner.manager.insert(Order, order('in a transaction of it'));
          await runner.commitTransaction();
        });
        await runner.release();
      });
      expect(await app.items()).toEqual(['by the outer runner', 'in a transaction of it']);
    });

    it('work that a nested transaction left behind fails instead of joining the handler', async () => {
      const answer = await app.run(async ({ dataSource, orders }) => {
        const late: Promise<unknown>[] = [];
        const gate = deferred();
        const writeLate = async (write: () => Promise<unknown>): Promise<unknown> => {
          await gate.promise;
          return write().catch(codeOf);
        };
        await dataSource
          .transaction(async (manager) => {
            late.push(writeLate(() => manager.insert(Order, order('late, manager'))));
            late.push(writeLate(() => orders.insert(order('late, injected'))));
            late.push(
              writeLate(() => dataSource.transaction((own) => own.insert(Order, order('late, nested')))),
            );
            throw new Error('undo');
          })
          .catch(swallow);
        gate.resolve();
        return Promise.all(late);
      });
      expect(answer.json()).toEqual([
        'IDEMPOTENCY_TRANSACTION_FINISHED',
        'IDEMPOTENCY_TRANSACTION_FINISHED',
        'IDEMPOTENCY_TRANSACTION_FINISHED',
      ]);
      expect(await app.items()).toEqual([]);
    });
  });

  describe('begun by hand on a query runner', () => {
    /** As Nest's documentation teaches. */
    const byHand = async (
      dataSource: DataSource,
      work: (manager: EntityManager) => Promise<unknown>,
    ): Promise<string> => {
      const runner = dataSource.createQueryRunner();
      await runner.connect();
      await runner.startTransaction();
      try {
        await work(runner.manager);
        await runner.commitTransaction();
        return 'committed';
      } catch {
        await runner.rollbackTransaction();
        return 'rolled back';
      } finally {
        await runner.release();
      }
    };

    it('commit with the handler, on its one connection', async () => {
      const answer = await app.run(async ({ dataSource }) => {
        const result = await byHand(dataSource, async (manager) => {
          await manager.save(Order, order('1'));
          await manager.save(Order, order('2'));
        });
        expect(await app.items()).toEqual([]);
        return result;
      });
      expect(answer.text).toBe('committed');
      expect(await app.items()).toEqual(['1', '2']);
    });

    it('undo their own writes', async () => {
      const answer = await app.run(async ({ dataSource, orders }) => {
        await orders.insert(order('before'));
        return byHand(dataSource, async (manager) => {
          await manager.save(Order, order('inside'));
          throw new Error('undo');
        });
      });
      expect(answer.text).toBe('rolled back');
      expect(await app.items()).toEqual(['before']);
    });

    it('nest in themselves and in others', async () => {
      await app.run(async ({ dataSource }) => {
        const runner = dataSource.createQueryRunner();
        await runner.startTransaction();
        await runner.manager.insert(Order, order('1'));
        await runner.startTransaction();
        await runner.manager.insert(Order, order('1.1'));
        await runner.rollbackTransaction();
        await runner.manager
          .transaction(async (inner) => {
            await inner.insert(Order, order('1.2'));
            throw new Error('undo');
          })
          .catch(swallow);
        await runner.commitTransaction();
        await runner.release();
        await dataSource.transaction(() =>
          byHand(dataSource, (manager) => manager.insert(Order, order('2.1'))),
        );
      });
      expect(await app.items()).toEqual(['1', '2.1']);
    });

    it('are rolled back by release() when they were not committed', async () => {
      await app.run(async ({ dataSource, orders }) => {
        const runner = dataSource.createQueryRunner();
        await runner.startTransaction();
        await runner.manager.insert(Order, order('forgotten'));
        await runner.release();
        await orders.insert(order('after'));
        await expect(runner.query('SELECT 1')).rejects.toThrow(/released/);
      });
      expect(await app.items()).toEqual(['after']);
    });

    it('are committed at the end of an `await using` block, as TypeORM does', async () => {
      const answer = await app.run(async ({ dataSource }) => {
        const runner = dataSource.createQueryRunner();
        try {
          await runner.startTransaction();
          await runner.manager.insert(Order, order('disposed'));
        } finally {
          await runner[Symbol.asyncDispose]();
        }
        return runner.isReleased;
      });
      expect(answer.text).toBe('true');
      expect(await app.items()).toEqual(['disposed']);
    });

    it('one after the other', async () => {
      await app.run(async ({ dataSource }) => {
        await byHand(dataSource, (manager) => manager.insert(Order, order('1')));
        await byHand(dataSource, (manager) => manager.insert(Order, order('2')));
      });
      expect(await app.items()).toEqual(['1', '2']);
    });

    it('take turns when each is begun and ended by itself', async () => {
      await app.run(async ({ dataSource }) => {
        const item = (name: string, fails: boolean): Promise<string> =>
          byHand(dataSource, async (manager) => {
            await manager.insert(Order, order(name));
            if (fails) throw new Error('undo');
          });
        await Promise.all([item('1', false), item('2', true), item('3', false)]);
      });
      expect(await app.items()).toEqual(['1', '3']);
    });

    it('two that are open at once end with the remedy instead of hanging', async () => {
      const answer = await app.run(async ({ dataSource }) => {
        const first = dataSource.createQueryRunner();
        const second = dataSource.createQueryRunner();
        await first.startTransaction();
        try {
          await second.startTransaction();
        } catch (error) {
          return { code: (error as { code: string }).code, message: (error as Error).message };
        } finally {
          await second.release();
          await first.release();
        }
        return {};
      });
      expect(answer.json()).toEqual({
        code: 'IDEMPOTENCY_NESTED_TRANSACTION_BLOCKED',
        message: expect.stringContaining('Use dataSource.transaction(work)'),
      });
    });

    it('cannot end the transaction of the handler', async () => {
      const answer = await app.run(async ({ dataSource }) => {
        const runner = dataSource.createQueryRunner();
        const codes = [runner.commitTransaction(), runner.rollbackTransaction()].map((ending) =>
          ending.catch(codeOf),
        );
        return Promise.all(codes);
      });
      expect(answer.json()).toEqual(Array(2).fill('IDEMPOTENCY_TRANSACTION_NOT_YOURS'));
    });
  });

  describe('with an isolation level of their own', () => {
    const isolation = (manager: EntityManager): Promise<unknown> =>
      manager.query('SHOW transaction_isolation');

    it.each(['REPEATABLE READ', 'SERIALIZABLE'] as const)('a stricter one is refused: %s', async (level) => {
      const answer = await app.run(async ({ dataSource }) => {
        const runner = dataSource.createQueryRunner();
        const attempts = [dataSource.transaction(level, isolation), runner.startTransaction(level)];
        const errors = attempts.map((attempt) => attempt.catch((error: unknown) => (error as Error).message));
        return Promise.all(errors);
      });
      const refusal: unknown = expect.stringMatching(
        new RegExp(`^IDEMPOTENCY_ISOLATION_TOO_WEAK: .*@Idempotent\\(\\{ isolation: '${level}' \\}\\)`),
      );
      expect(answer.json()).toEqual([refusal, refusal]);
    });

    it.each([
      ['run', 'read committed'],
      ['repeatable', 'repeatable read'],
      ['serializable', 'serializable'],
    ])('the handler of route "%s" runs under %s', async (route, level) => {
      const answer = await app.run(({ manager }) => isolation(manager), { route });
      expect(answer.json()).toEqual([{ transaction_isolation: level }]);
    });

    it('the same or a weaker one is allowed', async () => {
      const answer = await app.run(
        async ({ dataSource }) => [
          await dataSource.transaction('SERIALIZABLE', isolation),
          await dataSource.transaction('READ COMMITTED', isolation),
        ],
        { route: 'serializable' },
      );
      expect(answer.json()).toEqual(Array(2).fill([{ transaction_isolation: 'serializable' }]));
    });
  });
});
