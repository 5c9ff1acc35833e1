import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  Controller,
  HttpException,
  Injectable,
  Post,
  UseFilters,
  UseGuards,
  type ArgumentsHost,
  type CanActivate,
  type ExceptionFilter,
} from '@nestjs/common';
import { afterCommit, Idempotent, outside } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { ADAPTERS, Application, type Handler } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { postJson, startRequest, type HttpResponse } from '../helpers/http.js';
import { Order, Wallet } from '../helpers/shop.js';

const order = (item: string): { item: string; price: number } => ({ item, price: 1 });
const insert = (dataSource: DataSource, item: string): Promise<unknown> =>
  dataSource.query('INSERT INTO orders (item, price) VALUES ($1, 1)', [item]);

@Injectable()
class WritingGuard implements CanActivate {
  constructor(private readonly dataSource: DataSource) {}

  async canActivate(): Promise<boolean> {
    await insert(this.dataSource, 'by the guard');
    return true;
  }
}

@Injectable()
class WritingFilter implements ExceptionFilter {
  constructor(private readonly dataSource: DataSource) {}

  async catch(_: unknown, host: ArgumentsHost): Promise<void> {
    await insert(this.dataSource, 'by the filter');
    const response = host
      .switchToHttp()
      .getResponse<{ status(code: number): { send(body: string): void } }>();
    response.status(500).send('filtered');
  }
}

@Controller('surrounded')
@UseGuards(WritingGuard)
@UseFilters(WritingFilter)
class SurroundedController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @Idempotent()
  async fail(): Promise<void> {
    await insert(this.dataSource, 'by the handler');
    throw new Error('the handler fails');
  }
}

describe.each(ADAPTERS)('the connections of an application (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      poolSize: 4,
      controllers: [SurroundedController],
      routes: {
        serializable: { isolation: 'SERIALIZABLE' },
        brief: { maxDuration: '200ms' },
      },
    });
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  it('guards and filters write outside of the handler’s transaction', async () => {
    const answer = await postJson(`${app.url}/surrounded`, {}, { 'Idempotency-Key': 'one' });
    expect(answer.text).toBe('filtered');
    expect(await app.items()).toEqual(['by the filter', 'by the guard']);
  });

  it('another DataSource is left alone', async () => {
    const other = new DataSource({ type: 'postgres', url: app.database.url, entities: [Wallet, Order] });
    await other.initialize();
    try {
      await app.run(async ({ orders }) => {
        await orders.insert(order('joined'));
        await insert(other, 'by another');
        await other.transaction((manager) => manager.insert(Order, order('in a transaction of another')));
        expect(await other.getRepository(Order).countBy({ item: 'joined' })).toBe(0);
        throw new Error('the handler fails');
      });
      expect(await app.items()).toEqual(['by another', 'in a transaction of another']);
    } finally {
      await other.destroy();
    }
  });

  it('a DataSource that two applications share stays joined when one of them closes', async () => {
    const shared = new DataSource({ type: 'postgres', url: app.database.url, entities: [Wallet, Order] });
    await shared.initialize();
    try {
      const idempotency = { dataSource: shared };
      const first = await Application.start({ database: app.database, adapter, idempotency });
      const second = await Application.start({ database: app.database, adapter, idempotency });
      await first.close();
      const answer = await second.run(async () => {
        await insert(shared, 'undone');
        await shared.transaction((manager) => manager.insert(Order, order('undone as well')));
        throw new HttpException('no', 402);
      });
      expect(answer.status).toBe(402);
      expect(await app.items()).toEqual([]);
      await second.close();
      expect(Object.hasOwn(shared, 'createQueryRunner')).toBe(false);
    } finally {
      await shared.destroy();
    }
  });

  it('handlers that run at once have transactions of their own', async () => {
    const [together, looked] = [deferred(), deferred()];
    let inside = 0;
    const seen: string[][] = [];
    const script =
      (name: string, fails: boolean): Handler =>
      async ({ orders }) => {
        await orders.insert(order(name));
        if (++inside === 3) together.resolve();
        await together.promise;
        const items = (await orders.find()).map(({ item }) => item);
        // None commits before all have looked.
        if (seen.push(items) === 3) looked.resolve();
        await looked.promise;
        expect(items).toEqual([name]);
        if (fails) throw new Error('undo');
      };
    await Promise.all([app.run(script('a', false)), app.run(script('b', true)), app.run(script('c', false))]);
    expect(await app.items()).toEqual(['a', 'c']);
  });

  it('of two serializable handlers that collide one gives way: 503, retryable, its key free', async () => {
    const together = deferred();
    let inside = 0;
    const withdraw: Handler = async ({ dataSource, orders }) => {
      const [{ sum }] = await dataSource.query<[{ sum: number }]>('SELECT count(*)::int AS sum FROM orders');
      if (++inside === 2) together.resolve();
      await together.promise;
      await orders.insert(order(`after ${sum}`));
    };
    const send = (key: string): Promise<HttpResponse> => app.run(withdraw, { key, route: 'serializable' });
    const answers = await Promise.all([send('one'), send('two')]);
    const loser = answers.findIndex(({ status }) => status === 503);
    expect(answers[1 - loser]!.status).toBe(201);
    expect(answers[loser]!.json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_CONFLICT' });
    expect(answers[loser]!.headers['retry-after']).toBe('1');
    expect(await app.items()).toEqual(['after 0']);
    expect((await send(['one', 'two'][loser]!)).status).toBe(201);
    expect(await app.items()).toEqual(['after 0', 'after 1']);
  });

  it('of two handlers that deadlock one gives way in the same manner', async () => {
    await app.database.query('INSERT INTO wallets (id, balance) VALUES (2, 1000) ON CONFLICT DO NOTHING');
    const together = deferred();
    let inside = 0;
    const move =
      (from: number, to: number): Handler =>
      async ({ wallets }) => {
        await wallets.decrement({ id: from }, 'balance', 1);
        if (++inside === 2) together.resolve();
        await together.promise;
        await wallets.increment({ id: to }, 'balance', 1);
      };
    const answers = await Promise.all([app.run(move(1, 2)), app.run(move(2, 1))]);
    await app.database.query('DELETE FROM wallets WHERE id = 2');
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 503]);
    const loser = answers.find(({ status }) => status === 503)!;
    expect(loser.json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_CONFLICT' });
  });

  it('all come back to the pool, whatever becomes of the requests', async () => {
    const { url } = app;
    const scripts: Handler[] = [
      ({ orders }) => orders.save(order('kept')),
      ({ dataSource }) => dataSource.transaction((manager) => manager.save(Order, order('kept'))),
      () => {
        throw new HttpException('no', 402);
      },
      () => {
        throw new Error('broken');
      },
      ({ wallets }) => wallets.decrement({ id: 1 }, 'balance', 5000).catch(() => 'swallowed'),
      ({ dataSource }) => dataSource.createQueryRunner().startTransaction(),
      ({ dataSource }) => void dataSource.query('SELECT pg_sleep(0.05)').catch(() => undefined),
      ({ dataSource }) => void dataSource.transaction(() => deferred().promise).catch(() => undefined),
      ({ orders }) => afterCommit(() => orders.save(order('kept'))),
      ({ orders }) => outside(() => orders.save(order('kept'))),
    ];
    const hang: Handler = () => deferred().promise;
    const aborted = (): Promise<unknown> => {
      const request = startRequest(`${url}/run`, {
        method: 'POST',
        headers: { 'Idempotency-Key': `aborted-${Math.random()}` },
      });
      setImmediate(() => request.destroy());
      return request.response.catch(() => undefined);
    };
    for (let round = 0; round < 3; round++) {
      await Promise.all([
        ...scripts.map((script) => app.run(script)),
        app.run(scripts[0]!, { key: `duplicate-${round}` }),
        app.run(scripts[0]!, { key: `duplicate-${round}` }),
        app.run(hang, { route: 'brief' }),
        aborted(),
      ]);
    }
    await app.idle();
    await eventually(async () => expect((await app.items()).length).toBeGreaterThanOrEqual(15));
    expect((await app.run(({ orders }) => orders.count())).status).toBe(201);
  });
});
