import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { HttpException, Logger } from '@nestjs/common';
import { afterCommit, outside } from 'nestjs-pg-idempotency';
import { ADAPTERS, Application } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';

const order = (item: string): { item: string; price: number } => ({ item, price: 1 });
const swallow = (): undefined => undefined;

describe.each(ADAPTERS)('outside and afterCommit (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({ adapter, poolSize: 2, idempotency: { maxDuration: '5s' } });
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  describe('outside', () => {
    it.each([500, 402])('keeps a write of a handler that throws %i', async (status) => {
      await app.run(async ({ orders }) => {
        await orders.insert(order('undone'));
        await outside(() => orders.insert(order('audit')));
        expect(await app.items()).toEqual(['audit']);
        throw new HttpException('no', status);
      });
      expect(await app.items()).toEqual(['audit']);
    });

    it('does not see what the handler wrote, and returns what its function returns', async () => {
      const answer = await app.run(async ({ dataSource, orders }) => {
        await orders.insert(order('inside'));
        return {
          count: await outside(() => orders.count()),
          transaction: await outside(() =>
            dataSource.transaction((manager) => manager.query('SELECT 1 AS one')),
          ),
        };
      });
      expect(answer.json()).toEqual({ count: 0, transaction: [{ one: 1 }] });
    });

    it('holds for everything its function starts, and ends with it', async () => {
      await app.run(async ({ orders, dataSource }) => {
        await outside(async () => {
          await Promise.all([orders.insert(order('outside 1')), orders.insert(order('outside 2'))]);
        });
        await dataSource
          .transaction(async () => {
            await outside(() => orders.insert(order('outside 3')));
            throw new Error('undo');
          })
          .catch(swallow);
        await orders.insert(order('inside'));
        throw new Error('the handler fails');
      });
      expect(await app.items()).toEqual(['outside 1', 'outside 2', 'outside 3']);
    });

    it('lets work go on after the handler has ended', async () => {
      const gate = deferred();
      let late: Promise<unknown> | undefined;
      await app.run(({ orders }) => {
        late = outside(async () => {
          await gate.promise;
          await orders.insert(order('late'));
        });
      });
      gate.resolve();
      await late;
      expect(await app.items()).toEqual(['late']);
    });

    it('just calls its function where there is no transaction', async () => {
      expect(outside(() => 1)).toBe(1);
      await app.run(({ orders }) => outside(() => orders.insert(order('plain'))), { route: 'plain' });
      expect(await app.items()).toEqual(['plain']);
    });
  });

  describe('afterCommit', () => {
    it('runs once, in order, when others can see the writes', async () => {
      const calls: unknown[] = [];
      const note = (name: string) => async (): Promise<void> => {
        calls.push([name, await app.items()]);
      };
      const script = async ({
        orders,
      }: {
        orders: { insert(row: object): Promise<unknown> };
      }): Promise<string> => {
        afterCommit(note('first'));
        await orders.insert(order('written'));
        afterCommit(note('second'));
        expect(calls).toEqual([]);
        return 'done';
      };
      await app.run(script, { key: 'one' });
      const expected = [
        ['first', ['written']],
        ['second', ['written']],
      ];
      await eventually(() => expect(calls).toEqual(expected));
      const replay = await app.run(script, { key: 'one' });
      expect(replay.headers['idempotency-replayed']).toBe('true');
      await app.idle();
      expect(calls).toEqual(expected);
    });

    it('writes by itself, outside of the transaction that has ended', async () => {
      await app.run(({ orders }) => afterCommit(() => orders.insert(order('mail'))));
      await eventually(async () => expect(await app.items()).toEqual(['mail']));
    });

    it('does not delay the response', async () => {
      const gate = deferred();
      const answer = await app.run(() => {
        afterCommit(() => gate.promise);
        return 'at once';
      });
      expect(answer.text).toBe('at once');
      gate.resolve();
    });

    it.each([402, 429, 500])('does not run when the handler throws %i', async (status) => {
      const calls: string[] = [];
      await app.run(() => {
        afterCommit(() => calls.push('called'));
        throw new HttpException('no', status);
      });
      // Work of a later request comes later: what did not run by then never does.
      await app.run(() => afterCommit(() => calls.push('later')));
      await eventually(() => expect(calls).toEqual(['later']));
    });

    it('forgets what was registered inside a nested transaction that rolled back', async () => {
      const calls: string[] = [];
      const register = (name: string): void => afterCommit(() => void calls.push(name));
      await app.run(async ({ dataSource }) => {
        register('before');
        await dataSource
          .transaction(async (outer) => {
            register('outer');
            await outer.transaction(async () => register('inner, released'));
            throw new Error('undo');
          })
          .catch(swallow);
        await dataSource.transaction(async () => register('kept'));
        const runner = dataSource.createQueryRunner();
        await runner.startTransaction();
        register('by hand, rolled back');
        await runner.rollbackTransaction();
        await runner.startTransaction();
        register('by hand, committed');
        await runner.commitTransaction();
        await runner.release();
      });
      await eventually(() => expect(calls).toEqual(['before', 'kept', 'by hand, committed']));
    });

    it('only logs its errors, without what they hold back', async () => {
      const logged: unknown[] = [];
      const calls: string[] = [];
      Logger.overrideLogger({
        log: swallow,
        warn: swallow,
        error: (message: unknown) => logged.push(message),
      });
      try {
        const answer = await app.run(({ orders }) => {
          afterCommit(() => {
            throw new Error('sync');
          });
          afterCommit(() => Promise.reject(new Error('async')));
          afterCommit(() => void calls.push('still called'));
          return orders.insert(order('kept')).then(() => 'done');
        });
        expect(answer.text).toBe('done');
        await eventually(() => expect(calls).toEqual(['still called']));
      } finally {
        Logger.overrideLogger(false);
      }
      expect(logged).toHaveLength(2);
      expect(await app.items()).toEqual(['kept']);
    });

    it('runs at once where there is no transaction', async () => {
      const calls: string[] = [];
      afterCommit(() => void calls.push('no request'));
      await app.run(() => afterCommit(() => void calls.push('not protected')), { route: 'plain' });
      await app.run(() => {
        outside(() => afterCommit(() => void calls.push('outside')));
        expect(calls).toContain('outside');
      });
      expect(calls).toEqual(['no request', 'not protected', 'outside']);
    });

    it('only logs its errors where there is no transaction', async () => {
      const error = jest.fn();
      Logger.overrideLogger({ log: swallow, warn: swallow, error });
      try {
        afterCommit(() => {
          throw new Error('sync');
        });
        afterCommit(() => Promise.reject(new Error('async')));
        await eventually(() => expect(error).toHaveBeenCalledTimes(2));
      } finally {
        Logger.overrideLogger(false);
      }
      const stacks = error.mock.calls.map(([, stack]) => String(stack));
      expect(stacks).toEqual([expect.stringContaining('sync'), expect.stringContaining('async')]);
    });

    it('is refused when the handler has ended', async () => {
      const gate = deferred();
      let late: Promise<unknown> | undefined;
      const register = async (): Promise<unknown> => {
        await gate.promise;
        try {
          afterCommit(swallow);
        } catch (error) {
          return (error as { code: string }).code;
        }
        return undefined;
      };
      await app.run(() => {
        late = register();
      });
      gate.resolve();
      expect(await late).toBe('IDEMPOTENCY_TRANSACTION_FINISHED');
    });

    it('is waited for when the application closes', async () => {
      const second = await Application.start({ database: app.database, adapter });
      const gate = deferred();
      const calls: string[] = [];
      await second.run(({ orders }) =>
        afterCommit(async () => {
          await gate.promise;
          await orders.insert(order('before the end'));
          calls.push('done');
        }),
      );
      const closed = second.close().then(() => calls.push('closed'));
      gate.resolve();
      await closed;
      expect(calls).toEqual(['done', 'closed']);
      expect(await app.items()).toEqual(['before the end']);
    });
  });
});
