import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  Controller,
  HttpException,
  Injectable,
  Post,
  RequestTimeoutException,
  UseInterceptors,
  type CallHandler,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { catchError, throwError, timeout, type Observable } from 'rxjs';
import { DataSource } from 'typeorm';
import { ADAPTERS, Application } from '../helpers/application.js';
import { runTypeScript } from '../helpers/child-process.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { postJson } from '../helpers/http.js';

const FINISHED = 'IDEMPOTENCY_TRANSACTION_FINISHED';
const order = (item: string): { item: string; price: number } => ({ item, price: 1 });
const codeOf = (error: unknown): unknown => (error as { code?: string }).code;

/** As in Nest's documentation. */
@Injectable()
class TimeoutInterceptor implements NestInterceptor {
  intercept(_: ExecutionContext, next: CallHandler): Observable<unknown> {
    return next.handle().pipe(
      timeout(50),
      catchError(() => throwError(() => new RequestTimeoutException())),
    );
  }
}

/** What the slow handler goes on with after its time. */
const slow = { gate: deferred(), outcome: deferred<unknown>() };

@Controller('slow')
class SlowController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @Idempotent()
  @UseInterceptors(TimeoutInterceptor)
  async work(): Promise<string> {
    await this.dataSource.query(`INSERT INTO orders (item, price) VALUES ('in time', 1)`);
    await slow.gate.promise;
    const late = this.dataSource.query(`INSERT INTO orders (item, price) VALUES ('late', 1)`);
    await late.then(slow.outcome.resolve, (error: unknown) => slow.outcome.resolve(codeOf(error)));
    return 'too late';
  }
}

describe.each(ADAPTERS)('work that outlives its handler (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      controllers: [SlowController],
      idempotency: { maxDuration: '5s' },
    });
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  it.each(['201', '402', '500'])(
    'fails whichever way it goes, after a handler that ended with %s',
    async (end) => {
      const gate = deferred();
      const late: Promise<unknown>[] = [];
      const lateOn = async (work: () => Promise<unknown>): Promise<unknown> => {
        await gate.promise;
        return work().catch(codeOf);
      };
      const answer = await app.run(async ({ dataSource, orders, manager }) => {
        const runner = dataSource.createQueryRunner();
        const client = (await runner.connect()) as { query(sql: string): Promise<unknown> };
        const sql = `INSERT INTO orders (item, price) VALUES ('late', 1)`;
        const ways = [
          () => orders.save(order('late')),
          () => manager.insert(orders.target, order('late')),
          () => dataSource.query(sql),
          () => dataSource.transaction((own) => own.query(sql)),
          () => dataSource.createQueryRunner().startTransaction(),
          () => runner.query(sql),
          () => client.query(sql),
          () => orders.createQueryBuilder('o').stream(),
        ];
        late.push(...ways.map(lateOn));
        if (end !== '201') throw new HttpException('no', Number(end));
      });
      expect(answer.status).toBe(Number(end));
      gate.resolve();
      expect(await Promise.all(late)).toEqual(Array(8).fill(FINISHED));
      expect(await app.items()).toEqual([]);
    },
  );

  it('a statement under way when the handler returns is part of it, the next one is not', async () => {
    const late = deferred<unknown>();
    await app.run(({ orders, dataSource }) => {
      const work = async (): Promise<void> => {
        await dataSource.query(`INSERT INTO orders (item, price) SELECT 'under way', 1 FROM pg_sleep(0.1)`);
        await orders.insert(order('next'));
      };
      work().catch((error: unknown) => late.resolve(codeOf(error)));
      // Once the statement is on its way.
      return new Promise((resolve) => setImmediate(resolve, 'done'));
    });
    expect(await late.promise).toBe(FINISHED);
    expect(await app.items()).toEqual(['under way']);
  });

  it('a nested transaction that is half done is rolled back, the handler’s own writes stay', async () => {
    const late = deferred<unknown>();
    const inside = deferred();
    const gate = deferred();
    const answer = await app.run(async ({ dataSource, orders }) => {
      await orders.insert(order('kept'));
      dataSource
        .transaction(async (manager) => {
          await manager.insert(orders.target, order('half done'));
          inside.resolve();
          await gate.promise;
          await manager.insert(orders.target, order('the other half'));
        })
        .catch((error: unknown) => late.resolve(codeOf(error)));
      await inside.promise;
      return 'done';
    });
    gate.resolve();
    expect(answer.text).toBe('done');
    expect(await late.promise).toBe(FINISHED);
    expect(await app.items()).toEqual(['kept']);
  });

  it('a nested transaction that nobody awaits fails or is kept as a whole, never the handler', async () => {
    for (let hops = 0; hops < 60; hops++) {
      await app.clear();
      const nested = deferred<boolean>();
      const answer = await app.run(async ({ dataSource }) => {
        dataSource
          .transaction((manager) => manager.query(`INSERT INTO orders (item, price) VALUES ('nested', 1)`))
          .then(
            () => nested.resolve(true),
            () => nested.resolve(false),
          );
        // Ends at another moment of it each time.
        for (let hop = 0; hop < hops; hop++) await new Promise(setImmediate);
        return 'done';
      });
      expect(answer.text).toBe('done');
      expect(await app.items()).toEqual((await nested.promise) ? ['nested'] : []);
    }
  });

  it('a handler that goes on after a timeout interceptor answered 408 writes nothing, and its key is free', async () => {
    slow.gate = deferred();
    slow.outcome = deferred();
    const send = (): ReturnType<typeof postJson> =>
      postJson(`${app.url}/slow`, {}, { 'Idempotency-Key': 'slow' });
    const timedOut = await send();
    expect(timedOut.status).toBe(408);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    slow.gate.resolve();
    expect(await slow.outcome.promise).toBe(FINISHED);
    expect((await send()).text).toBe('too late');
    expect(await app.items()).toEqual(['in time', 'late']);
  });

  it('a timer started in a handler fails once that has ended, also within a later handler', async () => {
    const ticks: unknown[] = [];
    let timer: NodeJS.Timeout | undefined;
    try {
      await app.run(({ orders }) => {
        const tick = (): Promise<unknown> => orders.insert(order('tick')).catch(codeOf);
        timer = setInterval(() => void tick().then((code) => ticks.push(code)), 5);
      });
      await app.run(async ({ orders }) => {
        const before = ticks.length;
        await eventually(() => ticks.length > before + 2);
        await orders.insert(order('own'));
      });
    } finally {
      clearInterval(timer);
    }
    expect(ticks.slice(-3)).toEqual(Array(3).fill(FINISHED));
    const inTime = ticks.filter((code) => code !== FINISHED);
    expect(await app.items()).toEqual(['own', ...inTime.map(() => 'tick')]);
  });
});

/** An application in a process of its own, which ends or warns as any other would. */
const PROGRAM = `
import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { deferred, eventually } from './test/helpers/conditions.ts';
import { Application } from './test/helpers/application.ts';

const say = (...words) => console.log(words.join(' '));
const order = (item) => ({ item, price: 1 });
const app = await Application.start({ adapter: 'express' });
const logged = [];
Logger.overrideLogger({ log() {}, warn() {}, error: (message) => logged.push(message) });
process.on('warning', ({ name, message }) => say('warning', name, message));
const ended = deferred();
/** Runs a handler that leaves work behind, which nobody awaits. */
const leave = (work) => app.run((tools) => { void ended.promise.then(() => work(tools)); });
`;

async function linesOf(
  script: string,
  environment: NodeJS.ProcessEnv = {},
): Promise<{ lines: string[]; code: number | null }> {
  const child = runTypeScript(PROGRAM + script, environment);
  const lines: string[] = [];
  try {
    for (;;) lines.push(await child.nextLine());
  } catch (error) {
    lines.push((error as Error).message);
  }
  await eventually(() => child.process.exitCode !== null);
  return { lines, code: child.process.exitCode };
}

describe('a process whose handlers leave work behind', () => {
  it('survives writes that nobody awaits, logs them, and commits none of them', async () => {
    const { lines, code } = await linesOf(`
      await leave(({ orders }) => orders.save(order('late')));
      await leave(({ orders }) => setImmediate(() => void orders.insert(order('timer'))));
      await leave(({ dataSource }) => dataSource.transaction((own) => own.insert('orders', order('nested'))));
      ended.resolve();
      await eventually(() => logged.length === 3);
      for (const message of logged) say(message.slice(0, 32));
      say('orders', JSON.stringify(await app.items()));
      say('next', (await app.run(({ orders }) => orders.save(order('next')))).status);
      await app.close();
    `);
    expect(lines.slice(0, 5)).toEqual([FINISHED, FINISHED, FINISHED, 'orders []', 'next 201']);
    expect(code).toBe(0);
  });

  it('survives one forgotten await, whatever the write and however TypeORM wraps its error', async () => {
    const { lines, code } = await linesOf(`
      const writes = {
        save: ({ orders }) => orders.save(order('forgotten')),
        insert: ({ orders }) => orders.insert(order('forgotten')),
        query: ({ dataSource }) => dataSource.query("INSERT INTO orders (item, price) VALUES ('forgotten', 1)"),
        builder: ({ dataSource }) => dataSource.createQueryBuilder().insert().into('orders').values(order('forgotten')).execute(),
        nested: ({ dataSource }) => dataSource.transaction((own) => own.insert('orders', order('forgotten'))),
        refused: ({ wallets }) => wallets.update({ id: 1 }, { balance: -1 }),
        several: (tools) => { void tools.orders.save(order('forgotten')); return tools.orders.save(order('forgotten')); },
      };
      for (const [name, write] of Object.entries(writes)) {
        const { status } = await app.run(async (tools) => {
          await tools.orders.save(order(name));
          void write(tools);
          return 'answered';
        });
        say(name, status);
      }
      // What was sent before the handler ended is part of its transaction; the others are logged.
      const items = await app.items();
      say('own', Object.keys(writes).filter((name) => items.includes(name)).join());
      say('logged', [...new Set(logged.map((message) => message.slice(0, 32)))].join());
      await app.close();
    `);
    expect(lines.filter((line) => / (201|500)$/.test(line))).toHaveLength(7);
    expect(lines).toContain(`logged ${FINISHED}`);
    expect(code).toBe(0);
    // A statement that the database refused aborts the whole transaction, so that its answer is no success.
    const own =
      lines
        .find((line) => line.startsWith('own '))
        ?.slice('own '.length)
        .split(',') ?? [];
    for (const line of lines.filter((each) => each.endsWith(' 201')))
      expect(own).toContain(line.split(' ')[0]);
    for (const line of lines.filter((each) => each.endsWith(' 500')))
      expect(own).not.toContain(line.split(' ')[0]);
  });

  it('still ends by any other rejection that nobody handles', async () => {
    const { lines, code } = await linesOf(`
      await leave(({ orders }) => orders.save(order('late')));
      ended.resolve();
      await eventually(() => logged.length === 1);
      say('alive');
      Promise.reject(new Error('somebody else’s mistake'));
      setImmediate(() => say('still alive'));
    `);
    expect(lines.slice(0, -1)).toEqual(['alive']);
    expect(lines.at(-1)).toContain('somebody else’s mistake');
    expect(code).toBe(1);
  });

  it.each([
    ['none', 0, false],
    ['warn', 0, true],
    ['warn-with-error-code', 1, true],
  ])('goes on after any other rejection where Node is told %s', async (mode, exitCode, warns) => {
    const { lines, code } = await linesOf(
      `
      await leave(({ orders }) => orders.save(order('late')));
      ended.resolve();
      await eventually(() => logged.length === 1);
      Promise.reject(new Error('somebody else’s mistake'));
      setTimeout(async () => { await app.close(); say('still alive'); });
    `,
      { NODE_OPTIONS: `--unhandled-rejections=${mode}` },
    );
    expect(lines).toContain('still alive');
    expect(lines.some((line) => line.startsWith('warning') && line.includes('somebody else’s'))).toBe(warns);
    expect(code).toBe(exitCode);
  });

  it('gets no warning for statements that a handler sends at once', async () => {
    const { lines, code } = await linesOf(`
      const answer = await app.run(async ({ dataSource, orders, wallets, manager }) => {
        await Promise.all([
          ...Array.from({ length: 20 }, (_, price) => orders.save({ item: 'many', price })),
          wallets.decrement({ id: 1 }, 'balance', 1),
          manager.query('SELECT 1'),
          dataSource.transaction((own) => Promise.all([own.insert('orders', order('a')), own.insert('orders', order('b'))])),
          dataSource.createQueryBuilder().insert().into('orders').values(order('c')).execute(),
        ]);
        return orders.count();
      });
      say('count', answer.text);
      await app.close();
    `);
    expect(lines[0]).toBe('count 23');
    expect(lines.filter((line) => line.includes('Deprecation'))).toEqual([]);
    expect(code).toBe(0);
  });
});
