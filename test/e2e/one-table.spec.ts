import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Identity } from 'nestjs-pg-idempotency';
import { ONE_ADAPTER, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import {
  startLeaseApplication,
  type LeaseApplicationOptions,
  type Route,
} from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop, resetShop, shopState } from '../helpers/shop.js';

/** How applications may come to the same table. */
const SPELLINGS: Readonly<Record<string, Pick<LeaseApplicationOptions, 'idempotency' | 'typeorm'>>> = {
  'by its name alone': {},
  "with `schema: 'public'`": { idempotency: { schema: 'public' } },
  'by a search_path of their own': { typeorm: { extra: { options: '-c search_path=elsewhere,public' } } },
};

const [PLAIN, ...OTHERS] = Object.keys(SPELLINGS) as [string, ...string[]];
const PAIRS = OTHERS.flatMap((other) => [[PLAIN, other] as const, [other, PLAIN] as const]);

describe.each(ONE_ADAPTER)('two applications on one table (%s)', (adapter) => {
  let database: TestDatabase;
  const apps = new Map<string, Application>();

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    await database.query('CREATE SCHEMA elsewhere');
    for (const [spelling, options] of Object.entries(SPELLINGS)) {
      // Past PgBouncer, which hands no search_path on.
      const own = { adapter, database, databaseUrl: database.directUrl, ...options };
      apps.set(
        spelling,
        await startLeaseApplication({ ...own, routes: { waits: { whenInProgress: { wait: '30s' } } } }),
      );
    }
  });

  afterEach(async () => {
    for (const app of apps.values()) app.reset();
    for (const app of apps.values()) await app.idle();
    await resetShop(database);
  });

  afterAll(async () => {
    for (const app of apps.values()) await app.close();
    await database.drop();
  });

  const send = (app: Application, route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  const identity = (route: Route, key: string): Identity => ({
    client: 'tests',
    endpoint: `POST /${route}`,
    key,
  });

  const lapse = (): Promise<unknown> =>
    database.query(`UPDATE idempotency_records SET locked_until = clock_timestamp() - interval '1 second'`);

  describe.each(PAIRS)('one finds it %s, the other %s', (here, there) => {
    let first: Application;
    let second: Application;

    beforeAll(() => {
      first = apps.get(here)!;
      second = apps.get(there)!;
    });

    it('runs one handler at a time, and replays its answer through both', async () => {
      first.block('transaction');
      const answer = send(first, 'transaction', 'one');
      await eventually(() => first.milestones.includes('wrote'));
      expectProblem(await send(second, 'transaction', 'one'), 409, 'IDEMPOTENCY_IN_PROGRESS');
      expect(second.milestones).toEqual([]);
      first.unblock('transaction');
      const original = await answer;
      expect(original.status).toBe(201);
      expectReplay(await send(second, 'transaction', 'one'), original);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('has duplicates wait for the handler of the other', async () => {
      first.block('transaction');
      const answer = first.send('waits', 'waits');
      await eventually(() => first.milestones.includes('wrote'));
      const { answers } = await second.sendAndArrive(3, 'waits', 'waits');
      expect(second.milestones).toEqual([]);
      first.unblock('transaction');
      const original = await answer;
      expect(original.status).toBe(201);
      for (const duplicate of await answers) expectReplay(duplicate, original);
      expect(second.milestones).toEqual([]);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('says of a record that the other is at work on it', async () => {
      first.block('transaction');
      const answer = send(first, 'transaction', 'released');
      await eventually(() => first.milestones.includes('wrote'));
      expect(await second.service.release(identity('transaction', 'released'))).toBe('running');
      first.unblock('transaction');
      expect((await answer).status).toBe(201);
      expect(await second.service.release(identity('transaction', 'released'))).toBe('done');
      expect(await first.service.find(identity('transaction', 'released'))).toBeUndefined();
    });

    it('says so of an expired record that the other has taken over', async () => {
      await send(first, 'transaction', 'expired');
      await database.query(`UPDATE idempotency_records SET expires_at = now() - interval '1 hour'`);
      first.reset();
      first.block('transaction');
      const answer = send(first, 'transaction', 'expired');
      await eventually(() => first.milestones.includes('wrote'));
      expect(await second.service.release(identity('transaction', 'expired'))).toBe('running');
      expectProblem(await send(second, 'transaction', 'expired'), 409, 'IDEMPOTENCY_IN_PROGRESS');
      first.unblock('transaction');
      expect((await answer).status).toBe(201);
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
    });

    it('does not take over from an owner that is inside a fenced transaction', async () => {
      first.block('transaction');
      const answer = send(first, 'long', 'fenced');
      await eventually(() => first.milestones.includes('wrote'));
      await lapse();
      expectProblem(await send(second, 'long', 'fenced'), 409, 'IDEMPOTENCY_IN_PROGRESS');
      expect(await second.service.release(identity('long', 'fenced'))).toBe('running');
      expect(second.milestones).toEqual([]);
      first.unblock('transaction');
      const original = await answer;
      expect(original.status).toBe(201);
      expectReplay(await send(second, 'long', 'fenced'), original);
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });

    it('commits nothing of an owner from which the other has taken over', async () => {
      first.block('handler');
      const stale = send(first, 'long', 'stale');
      await eventually(() => first.milestones.some((milestone) => milestone.startsWith('entered')));
      await lapse();
      const original = await send(second, 'long', 'stale');
      expect(original.status).toBe(201);
      first.unblock('handler');
      expectProblem(await stale, 503, 'IDEMPOTENCY_LEASE_LOST');
      expectReplay(await send(first, 'long', 'stale'), original);
      expect(await leaseRow(database, 'stale')).toMatchObject({ status: 'completed', attempt: 2 });
      expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
    });
  });
});
