import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { IdempotencyService, outside, type Identity, type RecordSummary } from 'nestjs-pg-idempotency';
import { Application } from '../helpers/application.js';
import { deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, shopState } from '../helpers/shop.js';

const identity = (route: string, key: string): Identity => ({
  client: 'tests',
  endpoint: `POST /${route}`,
  key,
});

describe('IdempotencyService', () => {
  let database: TestDatabase;
  let app: Application;
  let service: IdempotencyService;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await Application.start({
      adapter: 'express',
      database,
      routes: { plain: {}, lease: { mode: 'lease' }, reject: { whenInProgress: 'reject' } },
    });
    service = app.nest.get(IdempotencyService);
  });

  afterEach(async () => {
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  /** Leaves an attempt in lease mode whose outcome is unknown. */
  const leaveUnresolved = async (key: string): Promise<Identity> => {
    app.acts(() => {
      throw new Error('the provider timed out');
    });
    expect((await app.send('lease', key)).status).toBe(500);
    app.acts();
    return identity('lease', key);
  };

  describe('find', () => {
    it('gives a record with its recorded answer', async () => {
      const answer = await app.send('plain', 'found');
      const record = await service.find(identity('plain', 'found'));
      expect(record).toMatchObject({
        ...identity('plain', 'found'),
        state: 'completed',
        mode: 'transaction',
        attempt: 1,
        lockedUntil: undefined,
        responseStatus: 201,
      });
      expect(record?.response?.status).toBe(201);
      expect(record?.response?.body.toString()).toBe(answer.text);
      const { createdAt, completedAt, expiresAt } = record!;
      expect(completedAt!.getTime()).toBeGreaterThanOrEqual(createdAt.getTime());
      expectApart(completedAt!, expiresAt, 24 * 3_600_000);
    });

    it('gives nothing for an identity that has none, or whose record has expired', async () => {
      await app.send('plain', 'expired');
      expect(
        await service.find({ ...identity('plain', 'expired'), client: 'somebody else' }),
      ).toBeUndefined();
      await database.query("UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 ms'");
      expect(await service.find(identity('plain', 'expired'))).toBeUndefined();
    });

    it('tells an attempt that runs from one whose outcome is unknown', async () => {
      const handler = app.hold();
      const running = app.send('lease', 'runs');
      await handler.entered;
      const found = await service.find(identity('lease', 'runs'));
      expect(found).toMatchObject({
        state: 'processing',
        mode: 'lease',
        completedAt: undefined,
        response: undefined,
      });
      expect(found!.lockedUntil).toBeInstanceOf(Date);
      handler.end();
      await running;
      expect(await service.find(await leaveUnresolved('unknown'))).toMatchObject({ state: 'unresolved' });
    });
  });

  describe('list', () => {
    const insert = (rows: string): Promise<unknown> =>
      database.query(`
        INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version,
                                         response_status, created_at, completed_at, expires_at)
        ${rows}`);

    it('pages through many records without a gap or a duplicate', async () => {
      await insert(`
        SELECT 'client-' || i % 7, 'POST /' || i % 3, 'key-' || i, '\\x01', 'completed', 'transaction', 1, 201,
               clock_timestamp(), clock_timestamp(), clock_timestamp() + interval '1 day'
          FROM generate_series(1, 230) AS i`);
      const seen: string[] = [];
      const sizes: number[] = [];
      let after: string | undefined;
      do {
        const page = await service.list({ limit: 46, ...(after === undefined ? {} : { after }) });
        seen.push(
          ...page.records.map(({ client, endpoint, key }) => JSON.stringify([client, endpoint, key])),
        );
        sizes.push(page.records.length);
        after = page.next;
      } while (after !== undefined);
      // The last page is full, and says all the same that none follows.
      expect(sizes).toEqual([46, 46, 46, 46, 46]);
      expect(new Set(seen).size).toBe(230);
      expect((await service.list()).records).toHaveLength(50);
    });

    it('goes on in the right place between identities that sort by bytes', async () => {
      const clients = ['a', 'A', 'ä', 'a b', 'a!', 'Z', '😀', '\\', '"', ','];
      for (const client of clients) {
        await database.query(
          `INSERT INTO idempotency_records (client, endpoint, key, fingerprint, status, mode, format_version, expires_at)
           VALUES ($1, 'e', 'k', '\\x01', 'completed', 'transaction', 1, clock_timestamp() + interval '1 day')`,
          [client],
        );
      }
      const seen: string[] = [];
      for (
        let page = await service.list({ limit: 1 });
        ;
        page = await service.list({ limit: 1, after: page.next })
      ) {
        seen.push(...page.records.map(({ client }) => client));
        if (page.next === undefined) break;
      }
      expect([...seen].sort()).toEqual([...clients].sort());
    });

    it('filters by client, endpoint, state and age, all at once', async () => {
      await insert(`
        VALUES ('a', 'x', '1', '\\x01'::bytea, 'completed', 'transaction', 1, 201, now() - interval '3 hours', now(), now() + interval '1 day'),
               ('a', 'x', '2', '\\x01', 'failed', 'transaction', 1, 409, now() - interval '2 hours', now(), now() + interval '1 day'),
               ('a', 'y', '3', '\\x01', 'completed', 'transaction', 1, 201, now() - interval '1 hour', now(), now() + interval '1 day'),
               ('b', 'x', '4', '\\x01', 'completed', 'transaction', 1, 201, now() - interval '1 hour', now(), now() + interval '1 day'),
               ('b', 'x', '5', '\\x01', 'completed', 'transaction', 1, 201, now() - interval '2 days', now(), now() - interval '1 second')`);
      await leaveUnresolved('6');
      const hoursAgo = (hours: number): Date => new Date(Date.now() - hours * 3_600_000);
      const keys = async (filter: Parameters<IdempotencyService['list']>[0]): Promise<string[]> =>
        (await service.list(filter)).records.map(({ key }: RecordSummary) => key);
      expect(await keys({})).toEqual(['1', '2', '3', '4', '6']);
      expect(await keys({ client: 'a' })).toEqual(['1', '2', '3']);
      expect(await keys({ endpoint: 'x' })).toEqual(['1', '2', '4']);
      expect(await keys({ state: 'failed' })).toEqual(['2']);
      expect(await keys({ state: 'unresolved' })).toEqual(['6']);
      expect(await keys({ state: 'processing' })).toEqual([]);
      expect(await keys({ createdBefore: hoursAgo(1.5) })).toEqual(['1', '2']);
      expect(await keys({ createdAfter: hoursAgo(1.5) })).toEqual(['3', '4', '6']);
      expect(await keys({ client: 'a', state: 'completed', createdAfter: hoursAgo(2.5) })).toEqual(['3']);
    });

    it.each([0, -1, 1.5, 1_001, Number.NaN])('refuses a limit of %p', async (limit) => {
      await expect(service.list({ limit })).rejects.toMatchObject({ code: 'IDEMPOTENCY_ARGUMENT_INVALID' });
    });

    it.each([
      '',
      'nonsense',
      Buffer.from('["a","b"]').toString('base64url'),
      Buffer.from('{}').toString('base64url'),
    ])('refuses to go on after %p', async (after) => {
      await expect(service.list({ after })).rejects.toMatchObject({ code: 'IDEMPOTENCY_ARGUMENT_INVALID' });
    });
  });

  describe('release', () => {
    it('lets the next request run', async () => {
      await app.send('plain', 'again');
      expect(await service.release(identity('plain', 'again'))).toBe('done');
      const next = await app.send('plain', 'again');
      expect(next.status).toBe(201);
      expect(next.headers['idempotency-replayed']).toBeUndefined();
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 1 });
    });

    it('lets a request run whose outcome was unknown', async () => {
      expect(await service.release(await leaveUnresolved('unknown'))).toBe('done');
      expect((await app.send('lease', 'unknown')).status).toBe(201);
    });

    it.each(['plain', 'lease'])('changes nothing while the handler runs (%s)', async (route) => {
      const handler = app.hold();
      const running = app.send(route, 'runs');
      await handler.entered;
      expect(await service.release(identity(route, 'runs'))).toBe('running');
      handler.end();
      expect((await running).status).toBe(201);
      expect((await app.send(route, 'runs')).headers['idempotency-replayed']).toBe('true');
      expect(app.scenes).toHaveLength(1);
    });

    it('finds nothing to release', async () => {
      expect(await service.release(identity('plain', 'absent'))).toBe('absent');
    });
  });

  describe('settle', () => {
    it('records exactly that answer for an attempt whose outcome was unknown', async () => {
      const unresolved = await leaveUnresolved('paid');
      expect((await app.send('lease', 'paid')).json()).toMatchObject({
        code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED',
      });
      const headers = { Location: '/payments/7', 'X-Receipt': 'r-7' };
      expect(await service.settle(unresolved, { status: 202, body: { id: 7, note: 'äöü' }, headers })).toBe(
        'done',
      );
      const replay = await app.send('lease', 'paid');
      expect({ status: replay.status, text: replay.text }).toEqual({
        status: 202,
        text: '{"id":7,"note":"äöü"}',
      });
      expect(replay.headers).toMatchObject({
        location: '/payments/7',
        'x-receipt': 'r-7',
        'content-type': 'application/json; charset=utf-8',
        'idempotency-replayed': 'true',
      });
      expect(app.scenes).toHaveLength(1);
      expect(await service.find(unresolved)).toMatchObject({ state: 'completed', responseStatus: 202 });
    });

    it('takes bytes as they are, and no body at all', async () => {
      const bytes = Buffer.from([0, 255, 128]);
      await service.settle(await leaveUnresolved('bytes'), {
        body: bytes,
        headers: { 'Content-Type': 'image/x' },
      });
      const replay = await app.send('lease', 'bytes');
      expect(replay.status).toBe(200);
      expect(replay.body).toEqual(bytes);
      expect(replay.headers['content-type']).toBe('image/x');
      await service.settle(await leaveUnresolved('nothing'), { status: 204 });
      const empty = await app.send('lease', 'nothing');
      expect({ status: empty.status, text: empty.text }).toEqual({ status: 204, text: '' });
      expect(empty.headers['content-type']).toBeUndefined();
    });

    it('keeps it for the time to live that is given', async () => {
      const unresolved = await leaveUnresolved('ttl');
      await service.settle(unresolved, { body: {} }, '2h');
      const { completedAt, expiresAt } = (await service.find(unresolved))!;
      expectApart(completedAt!, expiresAt, 2 * 3_600_000);
    });

    it('changes no outcome that is known, and none that is still open', async () => {
      const original = await app.send('plain', 'known');
      expect(await service.settle(identity('plain', 'known'), { body: 'other' })).toBe('not-applicable');
      expect((await app.send('plain', 'known')).text).toBe(original.text);
      expect(await service.settle(identity('plain', 'absent'), { body: 'other' })).toBe('absent');
      const handler = app.hold();
      const running = app.send('lease', 'open');
      await handler.entered;
      expect(await service.settle(identity('lease', 'open'), { body: 'other' })).not.toBe('done');
      handler.end();
      expect((await running).status).toBe(201);
    });

    it.each([
      ['a status', { status: 500 }],
      ['a status', { status: 101 }],
      ['a body', { body: () => undefined }],
      ['a header value', { headers: { 'X-A': 'a\r\nb: c' } }],
      ['a header name', { headers: { 'not a name': 'a' } }],
      ['a secret header', { headers: { 'Set-Cookie': 'session=1' } }],
      ['a framing header', { headers: { 'Content-Length': '3' } }],
    ])('refuses %s that could not be replayed: %j', async (_what, response) => {
      const unresolved = await leaveUnresolved('refused');
      await expect(service.settle(unresolved, response)).rejects.toMatchObject({
        code: 'IDEMPOTENCY_ARGUMENT_INVALID',
      });
      expect(await service.find(unresolved)).toMatchObject({ state: 'unresolved' });
    });

    it('refuses a time to live that is none', async () => {
      await expect(service.settle(identity('lease', 'x'), {}, 'soon')).rejects.toMatchObject({
        code: 'IDEMPOTENCY_ARGUMENT_INVALID',
      });
    });
  });

  it('works outside the transaction of the handler that calls it', async () => {
    const unresolved = await leaveUnresolved('by-another');
    await app.send('plain', 'unwanted');
    const seen = deferred<unknown>();
    app.acts(async ({ orders }) => {
      await orders.save({ item: 'rolled back', price: 1 });
      seen.resolve({
        own: await service.find(identity('plain', 'operator')),
        ownReleased: await service.release(identity('plain', 'operator')),
        listed: (await service.list({ endpoint: 'POST /plain' })).records.map(({ key }) => key),
        released: await service.release(identity('plain', 'unwanted')),
        settled: await service.settle(unresolved, { body: 'settled' }),
        sameOutside: await outside(() => service.find(identity('plain', 'unwanted'))),
      });
      throw new Error('everything the handler wrote is undone');
    });
    expect((await app.send('plain', 'operator')).status).toBe(500);
    expect(await seen.promise).toEqual({
      own: undefined,
      ownReleased: 'running',
      listed: ['unwanted'],
      released: 'done',
      settled: 'done',
      sameOutside: undefined,
    });
    expect(await service.find(unresolved)).toMatchObject({ state: 'completed' });
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });
});

/** Both times are read from the clock, one after the other. */
function expectApart(earlier: Date, later: Date, milliseconds: number): void {
  expect(Math.abs(later.getTime() - earlier.getTime() - milliseconds)).toBeLessThan(5);
}
