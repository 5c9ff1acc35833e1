import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ConflictException } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import {
  afterCommit,
  currentExecution,
  IdempotencyModule,
  IdempotencyService,
  IdempotencyUsageError,
  outside,
  ReleaseIdempotencyKey,
  sharedClient,
  type IdempotentTask,
} from 'nestjs-pg-idempotency';
import { Application } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, resetShop, shopState, type Order } from '../helpers/shop.js';
import { failureOf, recordsOf, taskOf } from '../helpers/tasks.js';

describe('IdempotencyService.run in transaction mode', () => {
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

  const saveOrder = (item = 'book', by = worker): Promise<Order> => by.orders.save({ item, price: 1 });

  describe('what comes of it', () => {
    it('runs the work once, and gives duplicates what the first was given', async () => {
      let runs = 0;
      const work = async (): Promise<{ order: Order; run: number }> => ({
        order: await saveOrder(),
        run: ++runs,
      });
      const first = await service.run(taskOf('once'), work);
      const second = await service.run(taskOf('once'), work);
      expect(first).toMatchObject({ value: { order: { item: 'book' }, run: 1 }, replayed: false });
      expect(second).toEqual({ ...first, replayed: true });
      expect(runs).toBe(1);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('gives the first caller the recording too, so that both see the same', async () => {
      const at = new Date('2026-01-02T03:04:05.678Z');
      const work = (): { at: Date; gone: undefined; nested: { id: number }[] } => ({
        at,
        gone: undefined,
        nested: [{ id: 1 }],
      });
      const first = await service.run(taskOf('decoded'), work);
      expect(first.value).toEqual({ at: '2026-01-02T03:04:05.678Z', nested: [{ id: 1 }] });
      expect('gone' in first.value).toBe(false);
      expect((await service.run(taskOf('decoded'), work)).value).toEqual(first.value);
    });

    it('gives each caller a value of its own', async () => {
      const shared = { items: ['book'] };
      const first = await service.run(taskOf('own'), () => shared);
      first.value.items.push('changed');
      expect(shared).toEqual({ items: ['book'] });
      expect((await service.run(taskOf('own'), () => shared)).value).toEqual({ items: ['book'] });
    });

    it.each([
      ['nothing', undefined],
      ['null', null],
      ['false', false],
      ['zero', 0],
      ['an empty string', ''],
      ['a string', 'naïve – \u0000 \ud800'],
      ['an array', [1, [2], { three: 3 }]],
    ])('records %s', async (_, value) => {
      const first = await service.run(taskOf('value'), () => value);
      const second = await service.run(taskOf('value'), () => 'another');
      expect([first.replayed, second.replayed]).toEqual([false, true]);
      expect([first.value, second.value]).toEqual([value, value]);
    });

    it('says when the original was claimed', async () => {
      const first = await service.run(taskOf('created'), () => 1);
      const second = await service.run(taskOf('created'), () => 2);
      expect(second.createdAt).toEqual(first.createdAt);
      const record = await service.find(taskOf('created'));
      expect(record).toMatchObject({ createdAt: first.createdAt, state: 'completed', mode: 'transaction' });
    });

    it('keeps clients, endpoints and keys apart', async () => {
      const tasks = [
        taskOf('apart'),
        taskOf('apart', { client: 'other' }),
        taskOf('apart', { endpoint: 'other' }),
        taskOf('apart 2'),
      ];
      for (const task of tasks) expect((await service.run(task, () => saveOrder())).replayed).toBe(false);
      expect(await shopState(database)).toMatchObject({ orders: 4, records: 4 });
    });

    it('runs again when the time to live has passed', async () => {
      expect((await service.run(taskOf('brief', { ttl: 1 }), () => 'first')).value).toBe('first');
      await eventually(async () => (await service.find(taskOf('brief'))) === undefined);
      expect(await service.run(taskOf('brief'), () => 'second')).toMatchObject({
        value: 'second',
        replayed: false,
      });
    });
  });

  describe('the payload', () => {
    it('is compared by value, whatever the order of its members', async () => {
      await service.run(taskOf('payload', { payload: { a: 1, b: [2] } }), () => 'first');
      const same = await service.run(taskOf('payload', { payload: { b: [2], a: 1 } }), () => 'second');
      expect(same).toMatchObject({ value: 'first', replayed: true });
    });

    it.each([
      ['another value', { a: 1 }, { a: 2 }],
      ['another type', { a: 1 }, { a: '1' }],
      ['another time', { at: new Date(1) }, { at: new Date(2) }],
      ['a big number', { id: 1 }, { id: 1n }],
      ['none', { a: 1 }, undefined],
      ['null instead of none', undefined, null],
      ['text instead of bytes', Buffer.from('text'), 'text'],
      ['other bytes', Buffer.from([1]), Buffer.from([2])],
    ])('that differs is refused: %s', async (_, one, two) => {
      await service.run(taskOf('differs', { payload: one }), () => saveOrder());
      const { error } = await failureOf(service.run(taskOf('differs', { payload: two }), () => saveOrder()));
      expect(error).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
      expect(error.detail).toContain('payload');
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });

    it.each([
      ['a function', { at: () => 0 }, '$["at"] is a function'],
      [
        'an instance',
        [
          new (class Plain {
            readonly a = 1;
          })(),
        ],
        '$[0] is an instance of Plain',
      ],
    ])('that cannot be compared is refused: %s', async (_, payload, what) => {
      const refused = service.run(taskOf('incomparable', { payload }), () => saveOrder());
      await expect(refused).rejects.toThrow(IdempotencyUsageError);
      await expect(refused).rejects.toMatchObject({
        code: 'IDEMPOTENCY_ARGUMENT_INVALID',
        message: expect.stringContaining(what),
      });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });
  });

  describe('the transaction', () => {
    it('is joined by what goes through the DataSource, and sees the execution', async () => {
      await service.run(taskOf('joins'), async (execution) => {
        await saveOrder();
        expect(await database.query('SELECT FROM orders')).toEqual([]);
        expect(currentExecution()).toBe(execution);
        expect(execution).toMatchObject({ mode: 'transaction', attempt: 1 });
        expect(execution.deriveKey('charge')).toMatch(/^[\w-]{43}$/);
        expect(await execution.manager.query('SELECT FROM orders')).toHaveLength(1);
      });
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });

    it('runs in the isolation it is told to', async () => {
      const { value } = await service.run(taskOf('isolated', { isolation: 'SERIALIZABLE' }), () =>
        worker.dataSource.query<{ level: string }[]>(
          `SELECT current_setting('transaction_isolation') AS level`,
        ),
      );
      expect(value).toEqual([{ level: 'serializable' }]);
    });

    it('is followed by afterCommit, and left by outside', async () => {
      const sent = deferred<number>();
      const failing = service.run(taskOf('beside'), async () => {
        await outside(() => saveOrder('audit'));
        await saveOrder();
        afterCommit(() => sent.reject(new Error('the transaction was rolled back')));
        throw new Error('no');
      });
      await expect(failing).rejects.toThrow('no');
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 0 });
      await service.run(taskOf('beside'), async () => {
        await saveOrder();
        afterCommit(async () => sent.resolve((await shopState(database)).orders));
      });
      expect(await sent.promise).toBe(2);
    });

    it.each([
      ['an error', new Error('no stock')],
      ['an HTTP exception', new ConflictException('no stock')],
      ['ReleaseIdempotencyKey', new ReleaseIdempotencyKey()],
      ['something that is no error', 'no stock'],
    ])('is rolled back when the work throws, and the key is free: %s', async (_, thrown) => {
      const failing = service.run(taskOf('throws'), async () => {
        await saveOrder();
        throw thrown as Error;
      });
      expect(await failing.catch((error: unknown) => error)).toBe(thrown);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      expect(await service.run(taskOf('throws'), () => saveOrder())).toMatchObject({ replayed: false });
      expect(worker.events.map(({ type }) => type)).toEqual(['released', 'executed']);
    });

    it('is rolled back when the work throws before it returns a promise', async () => {
      const failing = service.run(taskOf('throws at once'), () => {
        throw new Error('at once');
      });
      await expect(failing).rejects.toThrow('at once');
      expect(await shopState(database)).toMatchObject({ records: 0 });
    });

    it('is not committed when the work swallowed an SQL error', async () => {
      const failing = service.run(taskOf('swallowed'), async () => {
        await saveOrder();
        await worker.dataSource.query('SELECT 1 / 0').catch(() => undefined);
      });
      expect((await failureOf(failing)).error.code).toBe('IDEMPOTENCY_TRANSACTION_ABORTED');
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });

    it('that gives way to a concurrent one says that it may be tried again, and keeps the cause', async () => {
      const failing = service.run(taskOf('conflict'), () =>
        worker.dataSource.query(`DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`),
      );
      const { error, cause } = await failureOf(failing);
      expect(error).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_CONFLICT', retryAfter: 1 });
      expect(cause).toMatchObject({ name: 'QueryFailedError' });
      expect(await shopState(database)).toMatchObject({ records: 0 });
    });

    it('ends after maxDuration, and what the work does later fails', async () => {
      const late = deferred();
      const attempted = deferred<unknown>();
      const failing = service.run(taskOf('hangs', { maxDuration: 200 }), async ({ signal }) => {
        await saveOrder();
        signal.addEventListener('abort', () => late.resolve());
        await late.promise;
        await saveOrder('late').then(attempted.resolve, attempted.resolve);
      });
      expect((await failureOf(failing)).error.code).toBe('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
      expect(await attempted.promise).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      expect(await service.run(taskOf('hangs'), () => 'again')).toMatchObject({ value: 'again' });
    });
  });

  describe('a value that cannot be recorded', () => {
    const cycle: Record<string, unknown> = {};
    cycle['self'] = cycle;

    it.each([
      ['a BigInt', { id: 1n }],
      ['a cycle', cycle],
      ['a function', () => 1],
      ['a symbol', Symbol('value')],
    ])('rolls back and frees the key: %s', async (_, value) => {
      const failing = service.run(taskOf('unrecordable'), async () => {
        await saveOrder();
        return value;
      });
      await expect(failing).rejects.toMatchObject({
        name: 'IdempotencyUsageError',
        code: 'IDEMPOTENCY_VALUE_NOT_RECORDABLE',
      });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      expect(await service.run(taskOf('unrecordable'), () => 1)).toMatchObject({ replayed: false });
    });

    it('is one larger than response.maxSize, in bytes', async () => {
      const response = { maxSize: 12 };
      const failing = service.run(taskOf('large', { response }), async () => {
        await saveOrder();
        return 'ääääää';
      });
      expect((await failureOf(failing)).error.code).toBe('IDEMPOTENCY_RESPONSE_TOO_LARGE');
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
      expect((await service.run(taskOf('large', { response }), () => 'äääää')).value).toBe('äääää');
    });
  });

  describe('who comes at the same time', () => {
    it('gets the value of the one that runs, over two applications', async () => {
      const other = await Application.start({ adapter: 'none', database });
      try {
        const workers = Array.from({ length: 10 }, (_, index) => (index % 2 === 0 ? worker : other));
        const results = await Promise.all(
          workers.map((each) =>
            each.service.run(taskOf('together', { payload: { n: 1 } }), () => saveOrder('book', each)),
          ),
        );
        expect(new Set(results.map(({ value }) => JSON.stringify(value))).size).toBe(1);
        expect(results.filter(({ replayed }) => !replayed)).toHaveLength(1);
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
      } finally {
        await other.close();
      }
    });

    it.each(['this process', 'another process'])('is told when to come back: of %s', async (which) => {
      const other =
        which === 'this process' ? worker : await Application.start({ adapter: 'none', database });
      const [entered, go] = [deferred(), deferred()];
      const first = service.run(taskOf('overlaps'), async () => {
        entered.resolve();
        await go.promise;
        return saveOrder();
      });
      await entered.promise;
      const task = taskOf('overlaps', { whenInProgress: 'reject' });
      const { error } = await failureOf(other.service.run(task, () => saveOrder('twice', other)));
      expect(error).toMatchObject({ code: 'IDEMPOTENCY_IN_PROGRESS', retryAfter: expect.any(Number) });
      go.resolve();
      const { value } = await first;
      expect(await other.service.run(task, () => saveOrder('twice', other))).toMatchObject({
        value,
        replayed: true,
      });
      if (other !== worker) await other.close();
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });

    it('runs when the first one fails', async () => {
      const [entered, go] = [deferred(), deferred()];
      const first = service.run(taskOf('fails'), async () => {
        entered.resolve();
        await go.promise;
        throw new Error('the first fails');
      });
      await entered.promise;
      const second = service.run(taskOf('fails'), () => saveOrder());
      go.resolve();
      await expect(first).rejects.toThrow('the first fails');
      expect(await second).toMatchObject({ replayed: false });
    });
  });

  describe('beside HTTP', () => {
    it('shares neither values nor answers with a route of the same endpoint', async () => {
      const app = await Application.start({
        adapter: 'express',
        database,
        routes: { shared: { endpoint: 'shared' } },
      });
      const task = (key: string): IdempotentTask => taskOf(key, { client: 'tests', endpoint: 'shared' });
      try {
        expect((await app.send('shared', 'http')).status).toBe(201);
        const { error } = await failureOf(service.run(task('http'), () => saveOrder()));
        expect(error.code).toBe('IDEMPOTENCY_KEY_REUSED');
        expect(error.detail).toContain('route');

        await service.run(task('run'), () => 'a value');
        const answer = await app.send('shared', 'run');
        expect(answer.status).toBe(422);
        expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
        expect(await shopState(database)).toMatchObject({ orders: 1, records: 2 });
      } finally {
        await app.close();
      }
    });

    it('runs in the unprotected handler of an application that serves HTTP', async () => {
      const app = await Application.start({ adapter: 'fastify', database });
      try {
        const result = await app.nest.get(IdempotencyService).run(taskOf('served'), () => 'value');
        expect(result).toMatchObject({ value: 'value', replayed: false });
        expect(await service.run(taskOf('served'), () => 'another')).toMatchObject({ value: 'value' });
      } finally {
        await app.close();
      }
    });
  });

  describe('what it is told', () => {
    it.each([
      ['IDEMPOTENCY_KEY_REQUIRED', { key: '' }],
      ['IDEMPOTENCY_KEY_REQUIRED', { key: undefined as never }],
      ['IDEMPOTENCY_KEY_TOO_LONG', { key: 'ä'.repeat(513) }],
      ['IDEMPOTENCY_KEY_MALFORMED', { key: 'a\0b' }],
      ['IDEMPOTENCY_KEY_MALFORMED', { key: '\ud800' }],
      ['IDEMPOTENCY_CLIENT_UNRESOLVED', { client: '' }],
      ['IDEMPOTENCY_CLIENT_UNRESOLVED', { client: undefined as never }],
      ['IDEMPOTENCY_CLIENT_UNRESOLVED', { client: 'ä'.repeat(257) }],
    ])('must be an identity: %s', async (code, part) => {
      const failing = service.run({ ...taskOf('identity'), ...part }, () => saveOrder());
      expect((await failureOf(failing)).error.code).toBe(code);
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });

    it('may be any key that the database can hold', async () => {
      const key = `${'ä'.repeat(500)} "\n`;
      expect(await service.run(taskOf(key), () => 1)).toMatchObject({ replayed: false });
      expect(await service.run(taskOf(key), () => 1)).toMatchObject({ replayed: true });
    });

    it.each([
      ['IDEMPOTENCY_ARGUMENT_INVALID', { endpoint: '' }, 'endpoint'],
      ['IDEMPOTENCY_ARGUMENT_INVALID', { endpoint: undefined }, 'endpoint'],
      ['IDEMPOTENCY_ARGUMENT_INVALID', { endpoint: 'e'.repeat(513) }, 'endpoint'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { ttl: 'soon' }, '"ttl"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { mode: 'both' }, '"mode"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { lease: 10 }, '"lease"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { response: { maxSize: 0 } }, '"response.maxSize"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { response: { statuses: [200] } }, '"response.statuses"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { errors: () => ({ body: {} }) }, '"errors"'],
      ['IDEMPOTENCY_OPTIONS_INVALID', { unheardOf: 1 }, '"unheardOf"'],
    ])('is checked: %s for %j', async (code, wrong, name) => {
      const failing = service.run({ ...taskOf('options'), ...wrong } as never, () => saveOrder());
      await expect(failing).rejects.toMatchObject({
        name: 'IdempotencyUsageError',
        code,
        message: expect.stringContaining(name),
      });
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });

    it('has the module’s options for defaults', async () => {
      const other = await Application.start({
        adapter: 'none',
        database,
        idempotency: { mode: 'lease', ttl: '1h', response: { maxSize: 4 }, whenInProgress: 'reject' },
      });
      try {
        await other.service.run(taskOf('defaults'), ({ mode }) => expect(mode).toBe('lease'));
        const { completedAt, expiresAt } = (await service.find(taskOf('defaults')))!;
        expect(expiresAt.getTime() - completedAt!.getTime()).toBe(3_600_000);
        const large = other.service.run(taskOf('larger', { mode: 'transaction' }), () => 'too large');
        expect((await failureOf(large)).error.code).toBe('IDEMPOTENCY_RESPONSE_TOO_LARGE');
      } finally {
        await other.close();
      }
    });
  });

  describe('within another execution', () => {
    it.each([
      [
        'a run in transaction mode',
        (task: IdempotentTask) => service.run(taskOf('outer'), () => service.run(task, () => 1)),
      ],
      [
        'a fenced transaction',
        (task: IdempotentTask) =>
          service.run(taskOf('outer', { mode: 'lease' }), (execution) =>
            execution.transaction(() => service.run(task, () => 1)),
          ),
      ],
      [
        'a nested transaction',
        (task: IdempotentTask) =>
          service.run(taskOf('outer'), () => worker.dataSource.transaction(() => service.run(task, () => 1))),
      ],
    ])('is refused in %s, with the remedy', async (_, nest) => {
      const nested = nest(taskOf('inner'));
      await expect(nested).rejects.toMatchObject({
        code: 'IDEMPOTENCY_NESTED_RUN',
        message: expect.stringContaining('outside('),
      });
      expect((await recordsOf(database)).map(({ key }) => key)).not.toContain('inner');
    });

    it('commits by itself when it is called outside of that', async () => {
      const failing = service.run(taskOf('outer'), async () => {
        await outside(() => service.run(taskOf('inner'), () => saveOrder()));
        throw new Error('the outer one fails');
      });
      await expect(failing).rejects.toThrow('the outer one fails');
      expect(await recordsOf(database)).toMatchObject([{ key: 'inner', status: 'completed' }]);
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });
  });

  it('tells the observer what happens', async () => {
    await service.run(taskOf('observed', { payload: 1 }), () => 1);
    await service.run(taskOf('observed', { payload: 1 }), () => 1);
    await failureOf(service.run(taskOf('observed', { payload: 2 }), () => 1));
    const whose = { client: 'queue', endpoint: 'orders.create' };
    expect(worker.events).toEqual([
      {
        type: 'executed',
        ...whose,
        mode: 'transaction',
        attempt: 1,
        status: 200,
        duration: expect.any(Number),
      },
      { type: 'replayed', ...whose, status: 200 },
      { type: 'rejected', ...whose, code: 'IDEMPOTENCY_KEY_REUSED' },
    ]);
  });

  it('is waited for when the application shuts down, and refused from then on', async () => {
    const closing = await Application.start({ adapter: 'none', database });
    const { service: own } = closing;
    const [entered, go] = [deferred(), deferred()];
    const first = own.run(taskOf('closing'), async () => {
      entered.resolve();
      await go.promise;
      return saveOrder('book', closing);
    });
    await entered.promise;
    const closed = closing.close();
    await eventually(async () => {
      const { error } = await failureOf(own.run(taskOf('late', { whenInProgress: 'reject' }), () => 1));
      return error.code === 'IDEMPOTENCY_SHUTTING_DOWN';
    });
    go.resolve();
    expect(await first).toMatchObject({ value: { item: 'book' } });
    await closed;
    expect(await shopState(database)).toMatchObject({ orders: 1 });
  });

  it('cannot be used before the application has been initialised', async () => {
    const module = await Test.createTestingModule({
      imports: [
        IdempotencyModule.forRoot({
          client: sharedClient('tests'),
          dataSource: { type: 'postgres', url: database.url },
        }),
      ],
    }).compile();
    const early = module.get(IdempotencyService).run(taskOf('early'), () => 1);
    await expect(early).rejects.toMatchObject({ code: 'IDEMPOTENCY_NOT_STARTED' });
  });
});
