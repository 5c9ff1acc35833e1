import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { IdempotencyPurgeService, IdempotencyService } from 'nestjs-pg-idempotency';
import { signWebhook } from '../../sample-app/webhooks/webhook-signature.js';
import { ADAPTERS, type TestApp } from '../helpers/application.js';
import { runTypeScript } from '../helpers/child-process.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest, type HttpResponse } from '../helpers/http.js';
import { Services, startOutsideApp } from './contract-patterns.fixture.js';
import { CLIENT, ENDPOINTS, ORDER, ORDERS, PAYOUT, PAYOUTS, resetRewards } from './rewards.fixture.js';
import { answerOf, startSample, type RunningSample } from './sample.fixture.js';

const CHARGE = { amount: 4200, ref: 'inv_88' };
const TICKET = { title: 'Need help', priority: 'high', tags: ['billing'] };
const SHIPPING_ORDER = { reference: 'R-1', items: [{ sku: 'mug', quantity: 2 }] };

/** One of each use, with the table of its effect. */
const USES = [
  { use: 'payment', path: '/charges', body: CHARGE, table: 'charges' },
  { use: 'bank transfer', path: PAYOUTS, body: PAYOUT, table: 'payouts' },
  { use: 'order', path: ORDERS, body: ORDER, table: 'orders' },
  { use: 'resource creation', path: '/tickets', body: TICKET, table: 'tickets' },
] as const;

/** Where the body holds the key. */
const SHIPPING_PATHS = ['orders/create', 'orders/void', 'labels/7/reprint'].map((path) => `/api/v1/${path}`);

describe.each(ADAPTERS)('patterns in the sample application on %s', (adapter) => {
  let sample: RunningSample;
  let database: TestDatabase;
  let key: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
    ({ database } = sample);
    await database.query('CREATE TABLE commits (source text, xid text)');
    await database.query(
      `CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           -- That of the whole transaction, whatever savepoint this is under.
           INSERT INTO commits VALUES (TG_TABLE_NAME, pg_current_xact_id()::text);
           RETURN NULL;
         END $$`,
    );
    for (const table of ['idempotency_records', 'wallets', ...USES.map((use) => use.table)]) {
      await database.query(
        `CREATE TRIGGER note AFTER INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION note_commit()`,
      );
    }
    await database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused' USING ERRCODE = '40001'; END $$`,
    );
  });

  beforeEach(async () => {
    key = `key-${randomUUID()}`;
    await resetRewards(database);
    await database.query('TRUNCATE charges, ticket_messages, tickets, shipping_orders, commits');
  });

  afterAll(() => sample.close());

  const send = (path: string, body: unknown, own: string | undefined = key): Promise<HttpResponse> =>
    sample.call('POST', path, body, own === '' ? CLIENT : { ...CLIENT, 'Idempotency-Key': own });

  const rows = async (table: string): Promise<number> =>
    (await database.query(`SELECT FROM ${table}`)).length;

  /** Has the database refuse what is written to a table while `work` is done. */
  async function refusing<T>(table: string, work: () => Promise<T>): Promise<T> {
    await database.query(
      `CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION refuse()`,
    );
    try {
      return await work();
    } finally {
      await database.query(`DROP TRIGGER refuse ON ${table}`);
    }
  }

  describe.each(USES)('$use', ({ path, body, table }) => {
    it('the effect and the record commit together', async () => {
      expect((await send(path, body)).status).toBe(201);
      const commits = await database.query<{ source: string; xid: string }>(
        'SELECT source, xid FROM commits',
      );
      expect(new Set(commits.map(({ xid }) => xid)).size).toBe(1);
      const sources = commits.map(({ source }) => source);
      expect(sources).toEqual(expect.arrayContaining([table, 'idempotency_records']));
    });

    it.each([
      ['the effect', table],
      ['the record', 'idempotency_records'],
    ])('or neither does: %s cannot be written', async (_, refused) => {
      const answer = await refusing(refused, () => send(path, body));
      expect(answer.status).toBeGreaterThanOrEqual(500);
      expect([await rows(table), await rows('idempotency_records'), await rows('commits')]).toEqual([
        0, 0, 0,
      ]);
      const retry = await send(path, body);
      expect(retry.status).toBe(201);
      expect(retry.headers['idempotency-replayed']).toBeUndefined();
      expect([await rows(table), await rows('idempotency_records')]).toEqual([1, 1]);
    });

    it('API endpoint with retries: replay', async () => {
      const first = await send(path, body);
      for (let retry = 0; retry < 3; retry++) {
        const again = await send(path, body);
        expect(answerOf(again)).toEqual(answerOf(first));
        expect(again.headers['idempotency-replayed']).toBe('true');
      }
      expect(await rows(table)).toBe(1);
    });

    it('not the same request twice at once', async () => {
      const answers = await Promise.all(Array.from({ length: 5 }, () => send(path, body)));
      expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
      expect(answers.filter(({ headers }) => headers['idempotency-replayed'] === undefined)).toHaveLength(1);
      expect(await rows(table)).toBe(1);
    });

    it('not without checking the body', async () => {
      await send(path, body);
      const other = await send(path, { ...body, [Object.keys(body)[0]!]: 'another' });
      expect(other.status).toBe(422);
      expect(await rows(table)).toBe(1);
    });

    it('request and response are stored together', async () => {
      const { status, text } = await send(path, body);
      const records = await database.query(
        `SELECT key, length(fingerprint) > 0 AS request, response_status AS status,
                convert_from(response_body, 'UTF8') AS text
           FROM idempotency_records`,
      );
      expect(records).toEqual([{ key, request: true, status, text }]);
    });

    it('not for ever: there is a time to live, after which the key is fresh', async () => {
      const first = await send(path, body);
      expect(await rows(`idempotency_records WHERE expires_at - completed_at < '24:00:01'`)).toBe(1);
      await database.query('UPDATE idempotency_records SET expires_at = clock_timestamp()');
      const fresh = await send(path, body);
      expect(fresh.headers['idempotency-replayed']).toBeUndefined();
      expect(fresh.text).not.toBe(first.text);
      expect(await rows(table)).toBe(2);
    });

    it('old records are cleaned, live ones are kept', async () => {
      await send(path, body);
      await send(path, body, `${key}-2`);
      await database.query('UPDATE idempotency_records SET expires_at = clock_timestamp() WHERE key = $1', [
        key,
      ]);
      const purge = sample.app.get(IdempotencyPurgeService);
      expect(await purge.purge()).toBe(1);
      expect(await database.query('SELECT key FROM idempotency_records')).toEqual([{ key: `${key}-2` }]);
      expect((await send(path, body, `${key}-2`)).headers['idempotency-replayed']).toBe('true');
      expect(await rows(table)).toBe(2);
    });
  });

  it('webhook receiver: the event id is the key, and a redelivery is acknowledged as the first was', async () => {
    const event = { id: `evt_${key}`, type: 'charge.failed', data: { object: { id: 'ch_42' } } };
    const deliver = (): Promise<HttpResponse> => {
      const body = JSON.stringify(event);
      const signature = signWebhook(body, 'whsec_sample_secret', Math.floor(Date.now() / 1_000));
      const headers = { 'Content-Type': 'application/json', 'Stripe-Signature': signature };
      return sendRequest(`${sample.url}/webhooks/stripe`, { method: 'POST', headers, body });
    };
    const first = await deliver();
    expect(first.status).toBe(200);
    expect(answerOf(await deliver())).toEqual(answerOf(first));
    expect(await rows('tickets')).toBe(1);
    expect(await database.query('SELECT key FROM idempotency_records')).toEqual([{ key: event.id }]);
  });

  it('queue consumer: one effect, and a redelivered message returns the recorded result', async () => {
    const { job } = (await send('/jobs/charges', CHARGE)).json() as { job: string };
    const charges = async (): Promise<unknown[]> =>
      (await sample.call('GET', '/charges', undefined, CLIENT)).json() as unknown[];
    const [charge] = await eventually(async () => {
      const made = await charges();
      return made.length > 0 && made;
    });
    const [client] = await database.query<{ id: string }>('SELECT id FROM api_clients WHERE api_key = $1', [
      CLIENT['X-API-Key'],
    ]);
    // As the queue delivers it, to a consumer that must not do it again.
    const redelivered = await sample.app
      .get(IdempotencyService)
      .run(
        { client: 'jobs', endpoint: 'charge', key: job, payload: { owner: client?.id, ...CHARGE } },
        () => {
          throw new Error('It ran again');
        },
      );
    expect(redelivered).toMatchObject({ value: charge, replayed: true });
    expect(await charges()).toHaveLength(1);
  });

  describe('states of a record', () => {
    it('completed, failed', async () => {
      await send(ORDERS, ORDER);
      await send(ORDERS, { ...ORDER, quantity: 1_000 }, `${key}-2`);
      expect(
        await database.query('SELECT status, response_status FROM idempotency_records ORDER BY key'),
      ).toEqual([
        { status: 'completed', response_status: 201 },
        { status: 'failed', response_status: 402 },
      ]);
    });

    it('no other', async () => {
      await send(ORDERS, ORDER);
      await expect(database.query(`UPDATE idempotency_records SET status = 'done'`)).rejects.toMatchObject({
        code: '23514',
      });
    });
  });

  describe('rules of the house', () => {
    it.each([...ENDPOINTS.map(({ path }) => path), ...SHIPPING_PATHS])(
      'keys are required on mutations that matter: %s',
      async (path) => {
        const { body } = ENDPOINTS.find((endpoint) => endpoint.path === path) ?? { body: SHIPPING_ORDER };
        const answer = await send(path, body, '');
        expect(answer.status).toBe(400);
        expect(answer.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
        expect(await rows('idempotency_records')).toBe(0);
      },
    );

    it('the key may be in the body, and duplicates get the same response', async () => {
      const body = { idempotencyKey: key, ...SHIPPING_ORDER };
      const first = await send('/api/v1/orders/create', body, '');
      expect((await send('/api/v1/orders/create', body, '')).text).toBe(first.text);
      expect(await rows('shipping_orders')).toBe(1);
    });

    it('not on GET: it sees what is there now, under whatever key', async () => {
      for (let charged = 0; charged < 2; charged++) {
        const list = await sample.call('GET', '/charges', undefined, { ...CLIENT, 'Idempotency-Key': key });
        expect(list.json()).toHaveLength(charged);
        expect(list.headers['idempotency-key']).toBeUndefined();
        expect(await rows('idempotency_records')).toBe(charged);
        await send('/charges', CHARGE);
      }
    });

    it('atomicity is that of a constraint: the database takes no second record of an identity', async () => {
      await send(ORDERS, ORDER);
      const copy = 'INSERT INTO idempotency_records SELECT * FROM idempotency_records';
      await expect(database.query(copy)).rejects.toMatchObject({
        code: '23505',
        constraint: 'idempotency_records_identity',
      });
    });
  });
});

describe.each(ADAPTERS)('patterns whose effects are outside, on %s', (adapter) => {
  let database: TestDatabase;
  let services: Services;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  beforeEach(async () => {
    services = await Services.start();
    app = await startOutsideApp(adapter, database.url, services.url);
    await database.query('TRUNCATE idempotency_records');
  });

  afterEach(async () => {
    await app.close();
    await services.close();
  });

  afterAll(() => database.drop());

  const send = (path: string, url = app.url): Promise<HttpResponse> =>
    postJson(`${url}/${path}`, { client: 'shop' }, { 'Idempotency-Key': 'receipt-1' });

  describe('e-mail and other outside effects', () => {
    it('a lease, and a derived key to hand on: one e-mail, although the first answer was lost', async () => {
      services.troubles.set('mail', 'lost');
      expect((await send('receipts')).status).toBe(500);
      const retry = await send('receipts');
      expect({ status: retry.status, body: retry.json() }).toEqual({ status: 201, body: { mail: 1 } });
      expect(answerOf(await send('receipts'))).toEqual(answerOf(retry));
      const [first, second, ...further] = services.calls['mail']!;
      expect(first).toEqual(expect.any(String));
      expect(second).toBe(first);
      expect(further).toEqual([]);
      expect(services.done('mail')).toBe(1);
    });

    it('control: without them the retry sends a second one', async () => {
      services.troubles.set('mail', 'lost');
      expect((await send('unprotected-receipts')).status).toBe(500);
      await send('unprotected-receipts');
      expect(services.done('mail')).toBe(2);
    });

    it('the record is processing while the work is going on, and completed after it', async () => {
      const gate = deferred();
      services.gates.set('mail', gate.promise);
      const answer = send('receipts');
      await eventually(() => services.calls['mail']?.length === 1);
      const status = 'SELECT status FROM idempotency_records';
      expect(await database.query(status)).toEqual([{ status: 'processing' }]);
      gate.resolve();
      expect((await answer).status).toBe(201);
      expect(await database.query(status)).toEqual([{ status: 'completed' }]);
    });
  });

  describe('steps across services', () => {
    it.each([
      ['reserve', { reserve: 2, charge: 1, ship: 1 }],
      ['charge', { reserve: 1, charge: 2, ship: 1 }],
      ['ship', { reserve: 1, charge: 1, ship: 2 }],
    ])('work that got as far as %s resumes after its last completed step', async (broken, calls) => {
      services.troubles.set(broken, 'refused');
      expect((await send('fulfilments')).status).toBe(500);
      const retry = await send('fulfilments');
      expect({ status: retry.status, body: retry.json() }).toEqual({
        status: 201,
        body: { attempt: 2, reserve: 1, charge: 1, ship: 1 },
      });
      expect(answerOf(await send('fulfilments'))).toEqual(answerOf(retry));
      const counted = Object.entries(services.calls).map(([name, keys]) => [name, keys.length]);
      expect(Object.fromEntries(counted)).toEqual(calls);
    });

    it('a step whose answer was lost is asked for again under the key it had', async () => {
      services.troubles.set('charge', 'lost');
      expect((await send('fulfilments')).status).toBe(500);
      expect((await send('fulfilments')).json()).toMatchObject({ attempt: 2, charge: 1 });
      expect(services.calls['charge']).toHaveLength(2);
      expect(new Set(services.calls['charge']).size).toBe(1);
      expect(services.done('charge')).toBe(1);
      expect(services.calls['reserve']).toHaveLength(1);
    });

    it('a process that died half way is followed by one that does what is left', async () => {
      const gate = deferred();
      services.gates.set('ship', gate.promise);
      const child = runTypeScript(`
        import { startOutsideApp } from './test/e2e/contract-patterns.fixture.ts';
        const options = ${JSON.stringify([adapter, database.url, services.url, '1s'])};
        console.log((await startOutsideApp(...options)).url);
      `);
      try {
        const broken = send('fulfilments', await child.nextLine());
        broken.catch(() => undefined);
        await eventually(() => services.calls['ship']?.length === 1);
        await child.kill('SIGKILL');
        await expect(broken).rejects.toThrow();
      } finally {
        await child.kill();
        gate.resolve();
      }
      // Until the leases of the dead have run out it is in progress.
      const retry = await eventually(async () => {
        const answer = await send('fulfilments');
        return answer.status === 201 && answer;
      });
      expect(retry.json()).toMatchObject({ reserve: 1, charge: 1, ship: 1 });
      const { reserve, charge, ship } = services.calls;
      expect([reserve?.length, charge?.length, ship?.length]).toEqual([1, 1, 2]);
      expect(ship?.[1]).toBe(ship?.[0]);
      expect(services.done('ship')).toBe(1);
    });
  });
});
