import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  BadRequestException,
  Body,
  Controller,
  HttpException,
  Post,
  UploadedFile,
  UseInterceptors,
  ValidationPipe,
  type ArgumentsHost,
  type ExceptionFilter,
} from '@nestjs/common';
import { FileInterceptor } from '@nestjs/platform-express';
import { Idempotent } from 'nestjs-pg-idempotency';
import { IsInt } from 'class-validator';
import { EntityManager } from 'typeorm';
import { ADAPTERS, Application, type Handler } from '../helpers/application.js';
import { isCommit } from '../helpers/commit-faults.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { postJson, sendRequest, type HttpResponse } from '../helpers/http.js';
import { Order } from '../helpers/shop.js';
import { startDatabaseProxy } from '../helpers/tcp-proxy.js';

class CreateOrder {
  @IsInt()
  price!: number;
}

/** Handlers that some requests never reach. */
@Controller('checked')
class CheckedController {
  constructor(private readonly manager: EntityManager) {}

  @Post('global')
  @Idempotent()
  global(@Body() { price }: CreateOrder): Promise<Order> {
    return this.manager.save(Order, { item: 'checked', price });
  }

  @Post('parameter')
  @Idempotent()
  parameter(@Body('price', { transform: onlyPositive }) price: number): Promise<Order> {
    return this.manager.save(Order, { item: 'checked', price });
  }
}

function onlyPositive(price: number): number {
  if (price > 0) return price;
  throw new BadRequestException('price must be positive');
}

@Controller('upload')
class UploadController {
  constructor(private readonly manager: EntityManager) {}

  @Post()
  @Idempotent({ fingerprint: { body: () => 'upload' } })
  @UseInterceptors(FileInterceptor('file', { limits: { fileSize: 10 } }))
  upload(@UploadedFile() file: { size: number }): Promise<Order> {
    return this.manager.save(Order, { item: 'uploaded', price: file.size });
  }
}

/** What body parsers throw on Express, which NestJS 11 hands on as it is. */
interface HttpError extends Error {
  readonly statusCode: number;
}

/** Makes no two answers alike, as request ids and times do. */
class StampingFilter implements ExceptionFilter {
  #answers = 0;

  catch(exception: HttpException | HttpError, host: ArgumentsHost): void {
    const response = host.switchToHttp().getResponse<{
      status(code: number): { header(name: string, value: string): { send(body: unknown): void } };
    }>();
    const body = { message: exception.message, answer: ++this.#answers };
    const status = 'statusCode' in exception ? exception.statusCode : exception.getStatus();
    response.status(status).header('X-Answer', String(this.#answers)).send(body);
  }
}

const refuse = (status: number): never => {
  throw new HttpException(`refused with ${status}`, status);
};

describe.each(ADAPTERS)('handlers that fail (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      controllers: [CheckedController, ...(adapter === 'express' ? [UploadController] : [])],
      routes: {
        'only-201': { response: { statuses: [201] } },
        'only-201-and-429': { response: { statuses: [201, 429] } },
        'client-errors-too': { response: { statuses: (status) => status !== 402 } },
      },
      configure: (app) => {
        app.useGlobalFilters(new StampingFilter());
        app.useGlobalPipes(new ValidationPipe());
      },
    });
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  const pay =
    (outcome: () => unknown): Handler =>
    async ({ wallets, orders }) => {
      await wallets.decrement({ id: 1 }, 'balance', 10);
      await orders.save({ item: 'paid', price: 10 });
      return outcome();
    };

  it('a thrown 402 undoes the writes and is replayed byte for byte', async () => {
    const first = await app.run(
      pay(() => refuse(402)),
      { key: 'one' },
    );
    expect(first.status).toBe(402);
    expect(first.headers['idempotency-replayed']).toBeUndefined();
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 1 });
    const retry = await app.run(
      pay(() => 'must not run'),
      { key: 'one' },
    );
    expect(retry.status).toBe(402);
    expect(retry.body.equals(first.body)).toBe(true);
    expect(retry.headers['x-answer']).toBe(first.headers['x-answer']);
    expect(retry.headers['content-type']).toBe(first.headers['content-type']);
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 1 });
  });

  it.each([400, 404, 409, 422, 499])('so is a thrown %i', async (status) => {
    const first = await app.run(
      pay(() => refuse(status)),
      { key: 'one' },
    );
    const retry = await app.run(
      pay(() => 'must not run'),
      { key: 'one' },
    );
    expect([first.status, retry.status, retry.text]).toEqual([status, status, first.text]);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 1 });
  });

  it('an SQL error that the handler turns into a 402 is one as well', async () => {
    const first = await app.run(
      ({ wallets }) => wallets.decrement({ id: 1 }, 'balance', 5000).catch(() => refuse(402)),
      { key: 'one' },
    );
    expect(first.status).toBe(402);
    expect((await app.run(() => 'must not run', { key: 'one' })).text).toBe(first.text);
  });

  it.each([500, 502, 503])('a thrown %i undoes the writes, and the next attempt runs', async (status) => {
    const first = await app.run(
      pay(() => refuse(status)),
      { key: 'one' },
    );
    expect(first.status).toBe(status);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    const retry = await app.run(
      pay(() => 'paid'),
      { key: 'one' },
    );
    expect(retry.text).toBe('paid');
    expect(retry.headers['idempotency-replayed']).toBeUndefined();
    expect(await app.state()).toEqual({ balance: 990, orders: 1, records: 1 });
  });

  it.each([408, 425, 429])('a %i says “not now” and is not stored, thrown or returned', async (status) => {
    const thrown = await app.run(
      pay(() => refuse(status)),
      { key: 'one' },
    );
    expect(thrown.status).toBe(status);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    const returned = await app.run(
      async (tools) => {
        tools.respondWith(status);
        return pay(() => 'not now')(tools);
      },
      { key: 'one' },
    );
    expect([returned.status, returned.text]).toEqual([status, 'not now']);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    expect(
      (
        await app.run(
          pay(() => 'now'),
          { key: 'one' },
        )
      ).text,
    ).toBe('now');
  });

  it('a returned 402 keeps the writes, and is replayed', async () => {
    const answer = async (tools: Parameters<Handler>[0]): Promise<unknown> => {
      tools.respondWith(402);
      return pay(() => ({ pleaseTopUp: true }))(tools);
    };
    const first = await app.run(answer, { key: 'one' });
    const retry = await app.run(answer, { key: 'one' });
    expect([first.status, retry.status, retry.text]).toEqual([402, 402, first.text]);
    expect(await app.state()).toEqual({ balance: 990, orders: 1, records: 1 });
  });

  it('a returned 500 undoes the writes, and the next attempt runs', async () => {
    const first = await app.run(
      async (tools) => {
        tools.respondWith(500);
        return pay(() => ({ broken: true }))(tools);
      },
      { key: 'one' },
    );
    expect([first.status, first.json()]).toEqual([500, { broken: true }]);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    expect(
      (
        await app.run(
          pay(() => 'paid'),
          { key: 'one' },
        )
      ).text,
    ).toBe('paid');
  });

  it('a swallowed SQL error answers 500 with its code, and nothing is stored', async () => {
    const first = await app.run(
      async ({ orders, wallets }) => {
        await orders.save({ item: 'lost', price: 1 });
        await wallets.decrement({ id: 1 }, 'balance', 5000).catch(() => undefined);
        return 'looks fine';
      },
      { key: 'one' },
    );
    expect(first.status).toBe(500);
    expect(first.json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_ABORTED', status: 500 });
    expect(first.headers['retry-after']).toBeUndefined();
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    expect(
      (
        await app.run(
          pay(() => 'paid'),
          { key: 'one' },
        )
      ).text,
    ).toBe('paid');
  });

  describe('response.statuses', () => {
    it('a list says which are stored; others leave the key free', async () => {
      const first = await app.run(
        pay(() => refuse(402)),
        { key: 'one', route: 'only-201' },
      );
      expect(first.status).toBe(402);
      expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
      const second = await app.run(
        pay(() => 'paid'),
        { key: 'one', route: 'only-201' },
      );
      const third = await app.run(
        pay(() => 'must not run'),
        { key: 'one', route: 'only-201' },
      );
      expect([second.text, third.text]).toEqual(['paid', 'paid']);
    });

    it('a list may name what is not stored otherwise', async () => {
      const options = { key: 'one', route: 'only-201-and-429' };
      const first = await app.run(
        pay(() => refuse(429)),
        options,
      );
      expect(
        (
          await app.run(
            pay(() => 'must not run'),
            options,
          )
        ).text,
      ).toBe(first.text);
      expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 1 });
    });

    it.each([
      [402, false],
      [404, true],
      [429, true],
      [500, false],
    ])('a function decides about %i: stored %s', async (status, stored) => {
      await app.run(
        pay(() => refuse(status)),
        { key: 'one', route: 'client-errors-too' },
      );
      expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: stored ? 1 : 0 });
    });
  });

  describe('requests that the handler never saw', () => {
    const post = (path: string, price: unknown): Promise<HttpResponse> =>
      postJson(`${app.url}/checked/${path}`, { price }, { 'Idempotency-Key': 'one' });

    it.each([
      ['the global ValidationPipe', 'global', 'not a number'],
      ['a pipe of a parameter', 'parameter', -1],
    ])('are not stored when %s refuses them, and the corrected one runs', async (_, path, wrong) => {
      expect((await post(path, wrong)).status).toBe(400);
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
      const corrected = await post(path, 5);
      expect(corrected.status).toBe(201);
      expect(corrected.headers['idempotency-replayed']).toBeUndefined();
      expect((await post(path, 5)).text).toBe(corrected.text);
      expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
    });

    it('are not stored when the body parser refuses them', async () => {
      const headers = { 'Idempotency-Key': 'one', 'Content-Type': 'application/json' };
      const url = `${app.url}/checked/global`;
      const tooLarge = await postJson(url, { price: 'x'.repeat(2_000_000) }, headers);
      expect(tooLarge.status).toBe(413);
      const broken = await sendRequest(url, { method: 'POST', headers, body: '{' });
      expect(broken.status).toBe(400);
      expect((await post('global', 5)).status).toBe(201);
    });
  });
});

describe('an upload over its limit', () => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({ adapter: 'express', controllers: [UploadController] });
  });

  afterAll(() => app.close());

  it('is not stored, and the corrected one runs under the same key', async () => {
    const upload = (content: string): Promise<HttpResponse> => {
      const part = `Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain`;
      return sendRequest(`${app.url}/upload`, {
        method: 'POST',
        headers: { 'Idempotency-Key': 'one', 'Content-Type': 'multipart/form-data; boundary=cut' },
        body: `--cut\r\n${part}\r\n\r\n${content}\r\n--cut--\r\n`,
      });
    };
    expect((await upload('far more than ten bytes')).status).toBe(413);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    const corrected = await upload('few');
    expect([corrected.status, corrected.headers['idempotency-replayed']]).toEqual([201, undefined]);
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  });
});

describe.each(ADAPTERS)('a duplicate fired while an error is recorded (%s)', (adapter) => {
  it('never executes, at whatever moment', async () => {
    // Duplicates that do not wait ask as often as they can.
    const first = await Application.start({ adapter, idempotency: { whenInProgress: 'reject' } });
    const proxy = await startDatabaseProxy(first.database.url);
    const slow = await Application.start({
      database: first.database,
      adapter,
      databaseUrl: proxy.url(first.database.url),
    });
    try {
      let executed = 0;
      const began = deferred();
      const atCommit = deferred();
      const commit = deferred();
      const seen: string[] = [];
      proxy.onClientData(async (chunk): Promise<'forward'> => {
        const text = chunk.toString('latin1');
        if (text.includes('ROLLBACK TO SAVEPOINT')) seen.push('rollback');
        if (!isCommit(chunk)) return 'forward';
        seen.push('commit');
        atCommit.resolve();
        await commit.promise;
        return 'forward';
      });
      const original = slow.run(
        async ({ orders }) => {
          executed++;
          began.resolve();
          await orders.save({ item: 'undone', price: 1 });
          refuse(402);
        },
        { key: 'one' },
      );
      await began.promise;
      const answers: HttpResponse[] = [];
      const firing = { stopped: false };
      const duplicates = (async (): Promise<void> => {
        while (!firing.stopped) answers.push(await first.run(() => executed++, { key: 'one' }));
      })();
      await atCommit.promise;
      const before = answers.length;
      // While the result is known and undone, but not committed.
      await eventually(() => answers.length >= before + 10);
      commit.resolve();
      const recorded = await original;
      await eventually(() => answers.at(-1)?.status === 402);
      firing.stopped = true;
      await duplicates;
      expect(seen).toEqual(['rollback', 'commit']);
      expect(executed).toBe(1);
      expect(recorded.status).toBe(402);
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([409, 402]));
      for (const { status, text } of answers) if (status === 402) expect(text).toBe(recorded.text);
      expect(await first.state()).toEqual({ balance: 1000, orders: 0, records: 1 });
    } finally {
      await slow.close();
      await proxy.close();
      await first.close();
    }
  });
});

describe.each(ADAPTERS)('the savepoint for errors (%s)', (adapter) => {
  it('is sent only where an error can be stored', async () => {
    const app = await Application.start({ adapter });
    const proxy = await startDatabaseProxy(app.database.url);
    const routes = { 'only-201': { response: { statuses: [201] } } };
    const watched = await Application.start({
      database: app.database,
      adapter,
      routes,
      databaseUrl: proxy.url(app.database.url),
    });
    try {
      const sent: string[] = [];
      proxy.onClientData((chunk) => void sent.push(chunk.toString('latin1')));
      const savepoints = async (route: string): Promise<number> => {
        sent.length = 0;
        expect((await watched.run(() => 'done', { route })).status).toBe(201);
        return sent.filter((text) => text.includes('SAVEPOINT')).length;
      };
      expect(await savepoints('run')).toBe(1);
      expect(await savepoints('only-201')).toBe(0);
    } finally {
      await watched.close();
      await proxy.close();
      await app.close();
    }
  });
});
