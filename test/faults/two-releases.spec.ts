import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { FirstRelease } from '../helpers/first-release.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication } from '../helpers/lease-application.js';
import { expectProblem, leaseRow } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';

const ROUTES = ['transaction', 'rerun'] as const;

/** A record, as far as the key and the request are concerned. */
interface Known {
  readonly client: string;
  readonly endpoint: string;
  readonly fingerprint: Buffer;
}

describe.each(ADAPTERS)('two releases on one table (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startLeaseApplication({ adapter, database });
  });

  afterEach(async () => {
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  /** How requests to a route are recorded; nothing of it depends on the key. */
  const known = async (route: string): Promise<Known> => {
    await send(route, 'known');
    const [row] = await database.query<Known>(
      `DELETE FROM idempotency_records WHERE key = 'known' RETURNING client, endpoint, fingerprint`,
    );
    app.milestones.length = 0;
    return row!;
  };

  const older = async (route: string, key: string): Promise<FirstRelease> => {
    const { client, endpoint, fingerprint } = await known(route);
    return FirstRelease.request(database, { client, endpoint, key }, fingerprint);
  };

  describe.each(ROUTES)('this one and a newer one (%s)', (route) => {
    it.each([
      ['a newer format', 'format_version = 2'],
      ['an unknown mode', `mode = 'saga'`],
      ['a newer format, still running', `format_version = 2, status = 'processing'`],
      [
        'an unknown mode, lapsed',
        `mode = 'saga', status = 'processing', locked_until = now() - interval '1 day'`,
      ],
      ['a newer fingerprint', `fingerprint = '\\xff'::bytea || substr(fingerprint, 2)`],
    ])('does not touch a record of %s', async (_, change) => {
      await send(route, 'newer');
      await database.query(`UPDATE idempotency_records SET ${change}`);
      const [before] = await database.query('SELECT xmin, ctid, * FROM idempotency_records');
      app.milestones.length = 0;
      for (let retry = 0; retry < 2; retry++) {
        const answer = await send(route, 'newer');
        expectProblem(answer, 503, 'IDEMPOTENCY_RECORD_UNREADABLE');
        expect(answer.headers['retry-after']).toBe('5');
      }
      expect(await database.query('SELECT xmin, ctid, * FROM idempotency_records')).toEqual([before]);
      expect(app.milestones).toEqual([]);
    });
  });

  describe.each(ROUTES)('this one and the first one (%s)', (route) => {
    it('replays what the first has recorded', async () => {
      const first = await older(route, 'recorded');
      expect(await first.claim()).toMatchObject({ free: true, claimed_at: expect.any(Date) });
      expect(await first.complete({ by: 'the first' })).toBe(1);
      await first.end('COMMIT');
      expect(await leaseRow(database, 'recorded')).toMatchObject({
        attempt: 1,
        owner_token: null,
        locked_until: null,
      });
      const retry = await send(route, 'recorded');
      expect({ status: retry.status, body: retry.json() }).toEqual({
        status: 201,
        body: { by: 'the first' },
      });
      expect(retry.headers['idempotency-replayed']).toBe('true');
      expect(app.milestones).toEqual([]);
    });

    it('keeps out of what runs in the first, and runs what that gave back', async () => {
      const first = await older(route, 'running');
      await first.claim();
      expectProblem(await send(route, 'running'), 409, 'IDEMPOTENCY_IN_PROGRESS');
      await first.end('ROLLBACK');
      expect((await send(route, 'running')).status).toBe(201);
    });

    it('records what the first can replay', async () => {
      const first = await older(route, 'replayed');
      const original = await send(route, 'replayed');
      const found = await first.claim();
      expect(found).toMatchObject({
        claimed_at: null,
        live: true,
        status: 'completed',
        response_status: 201,
      });
      expect(found.response_body!.toString()).toBe(original.text);
      await first.end('ROLLBACK');
    });

    it('keeps the first out of what runs here', async () => {
      const first = await older(route, 'kept-out');
      app.block('end');
      const answer = send(route, 'kept-out');
      await eventually(() => app.milestones.includes('left'));
      const found = await first.claim();
      expect(found.claimed_at).toBeNull();
      // It refuses what is not of the only mode it knows.
      if (route === 'transaction') expect(found).toMatchObject({ free: false, mode: null });
      else expect(found).toMatchObject({ mode: 'lease', live: true });
      await first.end('ROLLBACK');
      app.unblock('end');
      expect((await answer).status).toBe(201);
    });

    it('lets the first take over what has expired, and replays what that recorded', async () => {
      const first = await older(route, 'expired');
      app.acts(() => Promise.reject(new Error('the provider timed out')));
      if (route === 'transaction') app.acts();
      await send(route, 'expired');
      await database.query(
        `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'`,
      );
      expect(await first.claim()).toMatchObject({ free: true, claimed_at: null, live: false });
      expect(await first.takeOver()).toBe(1);
      expect(await first.complete({ by: 'the first' })).toBe(1);
      await first.end('COMMIT');
      const retry = await send(route, 'expired');
      expect(retry.json()).toEqual({ by: 'the first' });
      expect(retry.headers['idempotency-replayed']).toBe('true');
    });
  });
});
