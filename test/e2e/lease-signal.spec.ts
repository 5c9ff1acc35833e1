import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { IdempotencyService } from 'nestjs-pg-idempotency';
import { ADAPTERS, type Application, type Scene } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { LEASE, startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, leaseRow } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

describe.each(ADAPTERS)('the signal of a lease (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  beforeEach(async () => {
    proxy = await startDatabaseProxy(database.url);
    const databaseUrl = proxy.url(database.url);
    app = await startLeaseApplication({ adapter, database, databaseUrl, handler: untilAborted });
  });

  afterEach(async () => {
    await proxy.close();
    await app.close();
    await database.query('TRUNCATE orders, idempotency_records');
  });

  afterAll(() => database.drop());

  const send = (route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  const untilEntered = (): Promise<unknown> => eventually(() => app.milestones.length > 0);

  it.each([
    ['taken over', `UPDATE idempotency_records SET owner_token = gen_random_uuid(), attempt = 2`],
    ['deleted', 'DELETE FROM idempotency_records'],
  ])('is aborted when the record is %s', async (_, statement) => {
    const answer = send('refuse', 'lost');
    await untilEntered();
    await database.query(statement);
    expectProblem(await answer, 503, 'IDEMPOTENCY_LEASE_LOST');
    expect(app.milestones).toContain('aborted');
    expect((await leaseRow(database, 'lost'))?.attempt).not.toBe(1);
  });

  it.each(['refuses', 'is silent'])(
    'is aborted when the database %s for as long as the lease lasts',
    async (how) => {
      const answer = send('refuse', 'unreachable');
      await untilEntered();
      const { locked_until: lockedUntil } = (await leaseRow(database, 'unreachable'))!;
      const startedAt = performance.now();
      if (how === 'refuses') {
        proxy.refuse();
        proxy.cut();
      } else {
        proxy.pause();
      }
      await eventually(() => app.milestones.includes('aborted'));
      // One extension may have been on its way.
      expect(performance.now() - startedAt).toBeLessThan(2 * LEASE);
      expect(performance.now() - startedAt).toBeGreaterThan(LEASE / 2);
      expect(lockedUntil).not.toBeNull();
      const lost = await answer;
      expectProblem(lost, 503, 'IDEMPOTENCY_LEASE_LOST');
      expect((lost.json() as { detail: string }).detail).toContain('could not be reached');
    },
  );

  it('is aborted when the request has taken as long as it may, whether or not the database answers', async () => {
    let aborted: number | undefined;
    let reason: unknown;
    app.acts(async ({ execution }: Scene) => {
      const { signal } = execution;
      signal.addEventListener('abort', () => {
        aborted = performance.now();
        reason = signal.reason;
      });
      await new Promise(() => undefined);
    });
    const startedAt = performance.now();
    const answer = send('brief', 'slow');
    await untilEntered();
    await eventually(() => performance.now() - startedAt > 1_300);
    proxy.pause();
    await eventually(() => aborted !== undefined);
    expect(aborted! - startedAt).toBeLessThan(2_000);
    expect(reason).toMatchObject({ error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } });
    proxy.resume();
    expectProblem(await answer, 503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
  });

  it.each(['transaction', 'refuse'] as const)(
    'says that the execution is over when the handler throws 500 (%s)',
    async (route) => {
      const signals: AbortSignal[] = [];
      app.acts(({ execution }: Scene) => {
        signals.push(execution.signal);
        return Promise.reject(new Error('the handler fails'));
      });
      expect((await send(route, 'failing')).status).toBe(500);
      expect(signals[0]?.reason).toMatchObject({ message: expect.stringContaining('is over') });
    },
  );

  it('says that it took too long in transaction mode as well', async () => {
    const signals: AbortSignal[] = [];
    app.acts(async ({ execution }: Scene) => {
      signals.push(execution.signal);
      await new Promise(() => undefined);
    });
    expectProblem(await send('brief-transaction', 'slow'), 503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    expect(signals[0]?.reason).toMatchObject({ error: { code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' } });
  });

  it('is not aborted when the handler returns, nor by what an operator cannot do to a running request', async () => {
    app.block('handler');
    app.acts(async () => app.pass('handler'));
    const answer = send('refuse', 'kept');
    await untilEntered();
    const { client, endpoint } = (await app.nest.get(IdempotencyService).list({})).records[0]!;
    expect(await app.nest.get(IdempotencyService).release({ client, endpoint, key: 'kept' })).toBe('running');
    app.unblock('handler');
    expect((await answer).status).toBe(201);
    expect(app.milestones).not.toContain('aborted');
  });
});

/** A handler that passes its signal on, as `fetch` would take it. */
async function untilAborted({ execution: { signal } }: Scene): Promise<unknown> {
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
  signal.throwIfAborted();
  return {};
}
