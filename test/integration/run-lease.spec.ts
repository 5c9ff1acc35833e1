import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  currentExecution,
  ReleaseIdempotencyKey,
  type IdempotencyExecution,
  type IdempotencyService,
  type IdempotentTask,
} from 'nestjs-pg-idempotency';
import { Application } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication } from '../helpers/lease-application.js';
import { expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop, resetShop, shopState, type Order } from '../helpers/shop.js';
import { failureOf, recordsOf, taskOf } from '../helpers/tasks.js';

const leaseTask = (key: string, options: Partial<IdempotentTask> = {}): IdempotentTask =>
  taskOf(key, { mode: 'lease', lease: '1s', ...options });

describe('IdempotencyService.run in lease mode', () => {
  let database: TestDatabase;
  let worker: Application;
  let service: IdempotencyService;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    worker = await Application.start({ adapter: 'none', database });
    ({ service } = worker);
  });

  afterEach(async () => {
    await worker.idle();
    worker.events.length = 0;
    await resetShop(database);
  });

  afterAll(async () => {
    await worker.close();
    await database.drop();
  });

  const saveOrder = (item = 'book'): Promise<Order> => worker.orders.save({ item, price: 1 });

  /** Leaves an attempt whose outcome is unknown, and gives the key it had for an outside service. */
  const leaveUnresolved = async (key: string): Promise<string> => {
    let derived = '';
    const failing = service.run(leaseTask(key), (execution) => {
      derived = execution.deriveKey('charge');
      throw new Error('the provider timed out');
    });
    await expect(failing).rejects.toThrow('the provider timed out');
    return derived;
  };

  it('runs the work once, holding no transaction, and gives duplicates its value', async () => {
    const work = async (execution: IdempotencyExecution): Promise<{ order: Order; at: Date }> => {
      expect(execution).toMatchObject({ mode: 'lease', attempt: 1 });
      expect(await leaseRow(database, 'once')).toMatchObject({ status: 'processing', lapsed: false });
      const order = await execution.transaction(() => saveOrder());
      return { order, at: new Date(0) };
    };
    const first = await service.run(leaseTask('once'), work);
    expect(first).toMatchObject({ value: { at: '1970-01-01T00:00:00.000Z' }, replayed: false });
    expect(await service.run(leaseTask('once'), work)).toEqual({ ...first, replayed: true });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it.each(['transaction', 'lease'] as const)(
    'has an execution that can be taken apart (%s)',
    async (mode) => {
      const task = leaseTask(`apart-${mode}`, { mode });
      const { value } = await service.run(task, async ({ deriveKey, transaction, signal }) => {
        await transaction(() => saveOrder());
        return { key: deriveKey('charge'), aborted: signal.aborted };
      });
      expect(value).toEqual({ key: expect.stringMatching(/^[\w-]{43}$/), aborted: false });
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    },
  );

  it('tells a redelivery that overlaps, in another process, when to come back', async () => {
    const other = await Application.start({ adapter: 'none', database });
    const [entered, go] = [deferred(), deferred()];
    const first = service.run(leaseTask('overlaps', { lease: '20s' }), async () => {
      entered.resolve();
      await go.promise;
      return 'done';
    });
    await entered.promise;
    const task = leaseTask('overlaps', { whenInProgress: 'reject' });
    const { error } = await failureOf(other.service.run(task, () => 'twice'));
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_IN_PROGRESS' });
    expect((error as { retryAfter: number }).retryAfter).toBeGreaterThan(10);
    const waiting = other.service.run(leaseTask('overlaps'), () => 'twice');
    go.resolve();
    expect((await first).value).toBe('done');
    expect(await waiting).toMatchObject({ value: 'done', replayed: true });
    await other.close();
  });

  describe('work that throws', () => {
    it('leaves an unknown outcome, which is refused unless the task says otherwise', async () => {
      await leaveUnresolved('unknown');
      const { error } = await failureOf(service.run(leaseTask('unknown'), () => 'again'));
      expect(error).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
      expect(error.detail).toContain('Attempt 1');
      expect(worker.events.map(({ type }) => type)).toEqual(['outcome-unknown', 'rejected']);
    });

    it('runs again where the task says so, with the same key for an outside service', async () => {
      const derived = await leaveUnresolved('rerun');
      const again = await service.run(leaseTask('rerun', { onOutcomeUnknown: 'rerun' }), (execution) => ({
        attempt: execution.attempt,
        derived: execution.deriveKey('charge'),
      }));
      expect(again).toMatchObject({ value: { attempt: 2, derived }, replayed: false });
    });

    it('does not leave one when it says that nothing happened', async () => {
      const nothing = new ReleaseIdempotencyKey();
      const failing = service.run(leaseTask('released'), () => {
        throw nothing;
      });
      expect(await failing.catch((error: unknown) => error)).toBe(nothing);
      expect(await recordsOf(database)).toEqual([]);
      expect(await service.run(leaseTask('released'), () => 1)).toMatchObject({ replayed: false });
    });
  });

  describe('an outcome that was found out', () => {
    it.each([
      ['a value', { body: { id: 7 } }, { id: 7 }],
      ['nothing', {}, undefined],
      ['a refusal', { status: 409, body: 'no stock' }, 'no stock'],
    ])('by a function gives %s', async (_, response, value) => {
      const derived = await leaveUnresolved('asked');
      const asked: string[] = [];
      const task = leaseTask('asked', {
        onOutcomeUnknown: (unresolved) => {
          asked.push(unresolved.deriveKey('charge'));
          return { outcome: 'completed', response };
        },
      });
      expect(await service.run(task, () => 'again')).toMatchObject({ value, replayed: true });
      expect(await service.run(leaseTask('asked'), () => 'again')).toMatchObject({ value, replayed: true });
      expect(asked).toEqual([derived]);
    });

    it('by hand gives the body', async () => {
      await leaveUnresolved('settled');
      expect(await service.settle(taskOf('settled'), { body: { id: 7 } })).toBe('done');
      expect(await service.run(leaseTask('settled'), () => 'again')).toMatchObject({ value: { id: 7 } });
    });

    it('must be JSON', async () => {
      await leaveUnresolved('broken');
      await service.settle(taskOf('broken'), { body: Buffer.from('<id>7</id>') });
      const replay = service.run(leaseTask('broken'), () => 'again');
      await expect(replay).rejects.toMatchObject({ code: 'IDEMPOTENCY_VALUE_UNREADABLE' });
    });
  });

  it.each([
    ['that is not JSON', { id: 1n }, {}, 'IDEMPOTENCY_VALUE_NOT_RECORDABLE'],
    ['that is too large', 'too large', { response: { maxSize: 4 } }, 'IDEMPOTENCY_RESPONSE_TOO_LARGE'],
  ])(
    'leaves a tombstone for a value %s: what happened happens no second time',
    async (_, value, options, why) => {
      let runs = 0;
      const task = leaseTask('tombstone', { onOutcomeUnknown: 'rerun', ...options });
      const work = (): unknown => {
        runs++;
        return value;
      };
      const { error, cause } = await failureOf(service.run(task, work));
      expect(error.code).toBe('IDEMPOTENCY_RESPONSE_NOT_KEPT');
      expect(String(cause)).toContain(why);
      expect((await failureOf(service.run(task, work))).error.code).toBe('IDEMPOTENCY_RESPONSE_NOT_KEPT');
      expect(runs).toBe(1);
    },
  );

  it('ends after maxDuration with an unknown outcome, and aborts the signal', async () => {
    const aborted = deferred<unknown>();
    const task = leaseTask('hangs', { maxDuration: 200, onOutcomeUnknown: 'rerun' });
    const failing = service.run(task, async ({ signal, attempt }) => {
      if (attempt > 1) return 'again';
      signal.addEventListener('abort', () => aborted.resolve(signal.reason));
      await aborted.promise;
      return 'too late';
    });
    const { error } = await failureOf(failing);
    expect(error.code).toBe('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    expect(error.detail).toContain('not known');
    expect(await aborted.promise).toMatchObject({ error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } });
    expect(await service.run(task, ({ attempt }) => attempt)).toMatchObject({ value: 2, replayed: false });
  });

  describe('steps', () => {
    const outer = (key = 'order'): IdempotentTask => leaseTask(key, { onOutcomeUnknown: 'rerun' });

    /** A step of the work around it, with a key derived from that of the work. */
    const step = <T>(name: string, work: () => T | Promise<T>, by = service): Promise<unknown> => {
      const key = currentExecution()!.deriveKey(name);
      return by.run({ client: 'queue', endpoint: `order/${name}`, key }, work).then(({ value }) => value);
    };

    it('that are done are not done again when the work around them is', async () => {
      const done: string[] = [];
      let broken = true;
      const order = (item: string): Promise<Order> => {
        done.push(item);
        return saveOrder(item);
      };
      const work = async (): Promise<unknown[]> => {
        const reserve = await step('reserve', () => order('reserve'));
        const charge = await step('charge', () => order('charge'));
        if (broken) throw new Error('the provider timed out');
        const ship = await step('ship', () => order('ship'));
        return [reserve, charge, ship];
      };
      await expect(service.run(outer(), work)).rejects.toThrow('the provider timed out');
      broken = false;
      const { value } = await service.run(outer(), work);
      expect(done).toEqual(['reserve', 'charge', 'ship']);
      expect(value).toMatchObject([{ item: 'reserve' }, { item: 'charge' }, { item: 'ship' }]);
      expect(await shopState(database)).toMatchObject({ orders: 3, records: 4 });
    });

    it('see an execution of their own, and the work around them its own again', async () => {
      await service.run(outer(), async (execution) => {
        await step('inner', () => {
          expect(currentExecution()).toMatchObject({ mode: 'transaction', attempt: 1 });
        });
        expect(currentExecution()).toBe(execution);
      });
      expect(await recordsOf(database)).toHaveLength(2);
    });

    it('may run side by side, and stay when the work around them fails', async () => {
      const failing = service.run(outer(), async () => {
        await Promise.all(['one', 'two', 'three'].map((name) => step(name, () => saveOrder(name))));
        throw new Error('after that');
      });
      await expect(failing).rejects.toThrow('after that');
      expect(await shopState(database)).toMatchObject({ orders: 3, records: 4 });
    });

    it('that fail say so to the work, whose failure is no other', async () => {
      const refusal: unknown[] = [];
      const failing = service.run(outer(), () =>
        service
          .run(taskOf(''), () => 1)
          .catch((error: unknown) => {
            refusal.push(error);
            throw error;
          }),
      );
      expect(await failing.catch((error: unknown) => error)).toBe(refusal[0]);
      expect(worker.events.at(-1)).toMatchObject({ type: 'outcome-unknown', mode: 'lease' });
    });

    it('that say that nothing happened say it of themselves only', async () => {
      const failing = service.run(leaseTask('around'), async () => {
        await saveOrder('before');
        await step('refused', () => {
          throw new ReleaseIdempotencyKey();
        });
      });
      await expect(failing).rejects.toBeInstanceOf(ReleaseIdempotencyKey);
      const { error } = await failureOf(service.run(leaseTask('around'), () => saveOrder('again')));
      expect(error).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('of a handler that say that nothing happened do not say it of the handler', async () => {
      const app = await startLeaseApplication({ adapter: 'express', database });
      app.acts(async () => {
        await saveOrder('before');
        return step('refused', () => {
          throw new ReleaseIdempotencyKey();
        });
      });
      try {
        const send = (): Promise<HttpResponse> =>
          postJson(`${app.url}/refuse`, {}, { 'Idempotency-Key': 'around' });
        expect((await send()).status).toBe(503);
        expect((await send()).json()).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' });
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
      } finally {
        await app.close();
      }
    });

    it('belong to a handler in lease mode as well', async () => {
      const app = await startLeaseApplication({ adapter: 'express', database });
      app.acts(async () => ({ order: await step('handled', () => saveOrder()) }));
      try {
        const first = await postJson(`${app.url}/rerun`, {}, { 'Idempotency-Key': 'handled' });
        expect(first.status).toBe(201);
        expect(first.json()).toMatchObject({ order: { item: 'book' } });
        expectReplay(await postJson(`${app.url}/rerun`, {}, { 'Idempotency-Key': 'handled' }), first);
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 2 });
      } finally {
        await app.close();
      }
    });

    it('are refused once the work around them has ended', async () => {
      const go = deferred();
      let late: Promise<unknown> | undefined;
      await service.run(outer(), () => {
        late = go.promise.then(() => step('late', () => saveOrder()));
      });
      go.resolve();
      await expect(late).rejects.toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 1 });
    });

    it('are refused once another attempt has taken over', async () => {
      const failing = service.run(outer('stolen'), async ({ signal }) => {
        const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
        await database.query(
          "UPDATE idempotency_records SET owner_token = gen_random_uuid() WHERE key = 'stolen'",
        );
        await aborted;
        await step('stale', () => saveOrder());
      });
      expect((await failureOf(failing)).error.code).toBe('IDEMPOTENCY_LEASE_LOST');
      expect(worker.events.at(-1)).toMatchObject({ type: 'fence-lost' });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 1 });
    });

    it('are still done when the application shuts down, which waits for them', async () => {
      const closing = await Application.start({ adapter: 'none', database });
      const [entered, go] = [deferred(), deferred()];
      const running = closing.service.run(outer(), async () => {
        entered.resolve();
        await go.promise;
        return step('last', () => closing.orders.save({ item: 'last', price: 1 }), closing.service);
      });
      await entered.promise;
      const closed = closing.close();
      // Whoever is no part of what runs is sent away from now on.
      await eventually(async () => {
        const { error } = await failureOf(closing.service.run(taskOf('another'), () => 1));
        return error.code === 'IDEMPOTENCY_SHUTTING_DOWN';
      });
      go.resolve();
      expect(await running).toMatchObject({ value: { item: 'last' }, replayed: false });
      await closed;
      expect(await shopState(database)).toMatchObject({ orders: 1 });
      expect(await service.run(outer(), () => 'again')).toMatchObject({ replayed: true });
    });
  });
});
