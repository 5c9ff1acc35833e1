import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  BadGatewayException,
  BadRequestException,
  ConflictException,
  HttpException,
  type INestApplication,
} from '@nestjs/common';
import { afterCommit, IdempotencyPurgeService, ReleaseIdempotencyKey } from 'nestjs-pg-idempotency';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, startRequest, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop, shopState } from '../helpers/shop.js';

describe.each(ADAPTERS)('how a lease ends (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;
  let pipe: (value: unknown) => unknown;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startLeaseApplication({
      adapter,
      database,
      configure: (nest: INestApplication) =>
        void nest.useGlobalPipes({
          transform: (value: unknown, { type }) => (type === 'custom' ? pipe(value) : value),
        }),
    });
  });

  afterEach(async () => {
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const accept = (value: unknown): unknown => value;
  const refuse = (): never => {
    throw new BadRequestException('not valid');
  };
  const failing = (error: Error) => (): Promise<never> => Promise.reject(error);
  pipe = accept;

  const send = (route: Route, key: string, body: unknown = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, body, { 'Idempotency-Key': key });

  const entered = (): string[] => app.milestones.filter((milestone) => milestone.startsWith('entered'));

  describe('ReleaseIdempotencyKey', () => {
    it.each(['refuse', 'transaction'] as const)('frees the key (%s)', async (route) => {
      app.acts(failing(new ReleaseIdempotencyKey(new BadGatewayException('closed'))));
      const first = await send(route, 'released');
      expect({ status: first.status, body: first.json() }).toMatchObject({
        status: 502,
        body: { message: 'closed' },
      });
      expect(await shopState(database)).toMatchObject({ records: 0 });
      app.acts();
      expect((await send(route, 'released')).status).toBe(201);
    });

    it.each(['refuse', 'transaction'] as const)(
      'is not recorded, whatever its status (%s)',
      async (route) => {
        app.acts(failing(new ReleaseIdempotencyKey(new ConflictException('not now'))));
        expect((await send(route, 'conflict')).status).toBe(409);
        expect(await shopState(database)).toMatchObject({ records: 0 });
        // Another body is another request, and the key is free for it.
        app.acts();
        expect((await send(route, 'conflict', { other: true })).status).toBe(201);
      },
    );

    it('answers 503 by default, and keeps what was written in lease mode', async () => {
      app.acts(async ({ execution, orders }) => {
        await execution.transaction(() => orders.save({ item: 'written', price: 1 }));
        throw new ReleaseIdempotencyKey();
      });
      expect((await send('refuse', 'default')).status).toBe(503);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 0 });
      expect((await send('transaction', 'default')).status).toBe(503);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 0 });
    });
  });

  describe('afterCommit', () => {
    it('runs when the handler returned, not when it threw what is recorded', async () => {
      const calls: string[] = [];
      app.acts(async () => {
        afterCommit(() => calls.push('threw'));
        throw new HttpException('no', 402);
      });
      expect((await send('refuse', 'threw')).status).toBe(402);
      app.acts(async () => afterCommit(() => calls.push('returned')));
      expect((await send('refuse', 'returned')).status).toBe(201);
      await eventually(() => expect(calls).toEqual(['returned']));
    });

    it('is refused when the handler has ended', async () => {
      const gate = deferred();
      const late: Promise<unknown>[] = [];
      const register = async (): Promise<void> => {
        await gate.promise;
        afterCommit(() => undefined);
      };
      app.acts(async () => void late.push(register()));
      expect((await send('refuse', 'ended')).status).toBe(201);
      gate.resolve();
      await expect(late[0]).rejects.toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' });
    });
  });

  describe('a request that its handler never saw', () => {
    afterEach(() => {
      pipe = accept;
    });

    it('leaves the key free on the first attempt', async () => {
      pipe = refuse;
      expect((await send('refuse', 'invalid')).status).toBe(400);
      expect(await shopState(database)).toMatchObject({ records: 0 });
      pipe = accept;
      expect((await send('refuse', 'invalid')).status).toBe(201);
    });

    it('leaves the outcome of an earlier attempt unknown, and does not count as one', async () => {
      app.acts(failing(new Error('the provider timed out')));
      expect((await send('rerun', 'invalid-later')).status).toBe(500);
      pipe = refuse;
      for (let retry = 0; retry < 2; retry++) expect((await send('rerun', 'invalid-later')).status).toBe(400);
      expect(await leaseRow(database, 'invalid-later')).toMatchObject({
        status: 'processing',
        attempt: 1,
        lapsed: true,
      });
      pipe = accept;
      app.acts();
      expect((await send('rerun', 'invalid-later')).status).toBe(201);
      expect(entered().map((milestone) => milestone.slice(0, 9))).toEqual(['entered 1', 'entered 2']);
    });

    it.each(['brief', 'brief-transaction'] as const)(
      'never sees it when its pipe took too long (%s)',
      async (route) => {
        const gate = deferred();
        const passed = deferred();
        pipe = async (value) => {
          await gate.promise;
          setImmediate(passed.resolve);
          return value;
        };
        expectProblem(await send(route, 'slow-pipe'), 503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
        expect(await shopState(database)).toMatchObject({ records: 0 });
        gate.resolve();
        await passed.promise;
        pipe = accept;
        expect((await send(route, 'slow-pipe')).status).toBe(201);
        expect(entered()).toHaveLength(1);
      },
    );
  });

  it.each([408, 425, 429])('with a %i of the handler leaves the outcome unknown', async (status) => {
    app.acts(failing(new HttpException('not now', status)));
    expect((await send('refuse', `status-${status}`)).status).toBe(status);
    expectProblem(await send('refuse', `status-${status}`), 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
    expect(entered()).toHaveLength(1);
  });

  it('at maxDuration with an unknown outcome, at once', async () => {
    app.acts(() => new Promise(() => undefined));
    const first = await send('brief', 'too-long');
    expectProblem(first, 503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    expect((first.json() as { detail: string }).detail).toContain('It is not known whether it took effect');
    expect(await leaseRow(database, 'too-long')).toMatchObject({ lapsed: true, owner_token: null });
    app.acts();
    expect((await send('brief', 'too-long')).status).toBe(201);
    expect(entered()[1]).toMatch(/^entered 2/);
  });

  it('with the answer recorded although the client has gone', async () => {
    app.block('end');
    const request = startRequest(`${app.url}/refuse`, {
      method: 'POST',
      headers: { 'Idempotency-Key': 'gone', 'Content-Type': 'application/json' },
      body: '{}',
    });
    await eventually(() => app.milestones.includes('left'));
    request.destroy();
    app.unblock('end');
    await eventually(async () => (await leaseRow(database, 'gone'))?.status === 'completed');
    const retry = await send('refuse', 'gone');
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(entered()).toHaveLength(1);
  });

  it('starts with attempt 1 again when the record has expired', async () => {
    app.acts(failing(new Error('the provider timed out')));
    await send('rerun', 'expired');
    await send('rerun', 'expired');
    expect(await leaseRow(database, 'expired')).toMatchObject({ attempt: 2 });
    await database.query(
      `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'`,
    );
    app.acts();
    const first = await send('refuse', 'expired');
    const fresh = await send('rerun', 'expired');
    expect([first.status, fresh.status]).toEqual([201, 201]);
    expect(entered()[3]).toMatch(/^entered 1/);
    expectReplay(await send('rerun', 'expired'), fresh);
  });

  it('is kept for 30 days while its outcome is unknown, and purged like any other when it is known', async () => {
    app.acts(failing(new Error('the provider timed out')));
    await send('refuse', 'unresolved');
    app.acts();
    await send('refuse', 'resolved');
    const days = await database.query<{ key: string; days: number }>(
      `SELECT key, round(extract(epoch FROM expires_at - clock_timestamp()) / 86400)::int AS days
         FROM idempotency_records ORDER BY key`,
    );
    expect(days).toEqual([
      { key: 'resolved', days: 1 },
      { key: 'unresolved', days: 30 },
    ]);
    const purge = app.nest.get(IdempotencyPurgeService);
    await age(database, '2 days');
    expect(await purge.purge()).toBe(1);
    expectProblem(await send('refuse', 'unresolved'), 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
    await age(database, '29 days');
    expect(await purge.purge()).toBe(1);
    expect((await send('refuse', 'unresolved')).status).toBe(201);
  });
});

/** As if so much time had passed. */
async function age(database: TestDatabase, interval: string): Promise<void> {
  await database.query(
    `UPDATE idempotency_records SET created_at = created_at - $1::interval, expires_at = expires_at - $1::interval,
            locked_until = locked_until - $1::interval`,
    [interval],
  );
}
