import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { ADAPTERS } from '../helpers/application.js';
import type { HttpResponse } from '../helpers/http.js';
import {
  answerOf,
  KEY,
  MILLISECOND,
  OTHER_KEY,
  SECOND,
  startSample,
  UUID,
  type RunningSample,
} from './sample.fixture.js';

const TICKET = { title: 'Need help', priority: 'high', tags: ['billing'] };

describe.each(ADAPTERS)('support API on %s', (adapter) => {
  let sample: RunningSample;
  let key: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    key = `submission_${randomUUID()}`;
    await sample.database.query('TRUNCATE ticket_messages, tickets, idempotency_records');
  });

  afterAll(() => sample.close());

  const send = (
    method: string,
    path: string,
    body?: unknown,
    idempotencyKey?: string,
    credentials: object = KEY,
  ): Promise<HttpResponse> =>
    sample.call(method, path, body, {
      ...credentials,
      ...(idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }),
    });

  const ticketId = async (): Promise<string> =>
    ((await send('POST', '/tickets', TICKET)).json() as { id: string }).id;

  const rows = async (table: string): Promise<number> =>
    (await sample.database.query(`SELECT FROM ${table}`)).length;

  /** Every mutation, with a body, how many rows it makes, and where. */
  const mutations: [
    method: string,
    path: () => Promise<string>,
    body: object,
    status: number,
    table: string,
  ][] = [
    ['POST', async () => '/tickets', TICKET, 201, 'tickets'],
    [
      'PATCH',
      async () => `/tickets/${await ticketId()}`,
      { title: 'Solved', status: 'closed' },
      200,
      'tickets',
    ],
    ['POST', async () => `/tickets/${await ticketId()}/messages`, { body: 'Thanks' }, 201, 'ticket_messages'],
  ];

  describe('every create, update and sub-resource create takes an optional key', () => {
    it.each(mutations)(
      '%s %s with a key: the first response again, no duplicate row',
      async (method, pathOf, body, status, table) => {
        const path = await pathOf();
        const first = await send(method, path, body, key);
        const effects = await rows(table);
        expect(first.status).toBe(status);
        expect(first.headers).toMatchObject({ 'idempotency-key': key });
        expect(first.headers['idempotency-created-at']).toMatch(SECOND);
        for (const duplicate of [await send(method, path, body, key), await send(method, path, body, key)]) {
          expect(answerOf(duplicate)).toEqual(answerOf(first));
          expect(duplicate.headers['idempotency-replayed']).toBe('true');
        }
        expect(await rows(table)).toBe(effects);
      },
    );

    it.each(mutations)('%s %s with a key: within 24 hours', async (method, pathOf, body) => {
      const path = await pathOf();
      await send(method, path, body, key);
      const [record] = await sample.database.query(
        `SELECT round(extract(epoch FROM expires_at - clock_timestamp()) / 3600)::int AS hours
           FROM idempotency_records`,
      );
      expect(record).toEqual({ hours: 24 });
      await sample.database.query('UPDATE idempotency_records SET expires_at = clock_timestamp()');
      const again = await send(method, path, body, key);
      expect(again.headers['idempotency-replayed']).toBeUndefined();
    });

    it.each(mutations)('%s %s without a key: no dedup', async (method, pathOf, body, status) => {
      const path = await pathOf();
      for (const answer of [await send(method, path, body), await send(method, path, body)]) {
        expect(answer.status).toBe(status);
        expect(answer.headers['idempotency-key']).toBeUndefined();
        expect(answer.headers['idempotency-created-at']).toBeUndefined();
      }
      expect(await rows('idempotency_records')).toBe(0);
    });

    it.each(mutations)('%s %s with the key of another request: 422', async (method, pathOf, body) => {
      const path = await pathOf();
      await send(method, path, body, key);
      const answer = await send(method, path, { ...body, title: 'Something else', body: 'Else' }, key);
      expect({ status: answer.status, body: answer.json() }).toMatchObject({
        status: 422,
        body: { code: 'IDEMPOTENCY_KEY_REUSED' },
      });
    });

    it('without a key, twice is two rows', async () => {
      await send('POST', '/tickets', TICKET);
      await send('POST', '/tickets', TICKET);
      expect(await rows('tickets')).toBe(2);
      const id = await ticketId();
      await send('POST', `/tickets/${id}/messages`, { body: 'Thanks' });
      await send('POST', `/tickets/${id}/messages`, { body: 'Thanks' });
      expect(await rows('ticket_messages')).toBe(2);
    });

    it('ten at once with one key are one row and one answer', async () => {
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => send('POST', '/tickets', TICKET, key)),
      );
      expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
      expect(await rows('tickets')).toBe(1);
    });

    it('the team of the API key is the client', async () => {
      const first = await send('POST', '/tickets', TICKET, key);
      const other = await send('POST', '/tickets', TICKET, key, OTHER_KEY);
      expect(other.status).toBe(201);
      expect(other.text).not.toBe(first.text);
    });
  });

  it.each(['submission_form42_user7', 'stripe_evt_1PqVbL2eZvKYlo2C', 'job_8d3f9e', 'submission_form_42'])(
    'a key that its users choose: %s',
    async (chosen) => {
      const first = await send('POST', '/tickets', TICKET, chosen);
      expect(answerOf(await send('POST', '/tickets', TICKET, chosen))).toEqual(answerOf(first));
      expect(await rows('tickets')).toBe(1);
    },
  );

  describe('in the sample application', () => {
    it('POST /tickets', async () => {
      const answer = await send('POST', '/tickets', TICKET);
      expect(answer.status).toBe(201);
      expect(Object.entries(answer.json() as object)).toEqual([
        ['id', expect.stringMatching(UUID)],
        ['title', 'Need help'],
        ['priority', 'high'],
        ['tags', ['billing']],
        ['status', 'open'],
        ['createdAt', expect.stringMatching(MILLISECOND)],
      ]);
    });

    it('POST /tickets with a title and a priority, as the SDK sends it', async () => {
      const answer = await send('POST', '/tickets', { title: 'Need help', priority: 'high' });
      expect(answer.json()).toMatchObject({ title: 'Need help', priority: 'high', tags: [], status: 'open' });
    });

    it('PATCH /tickets/{id}', async () => {
      const created = (await send('POST', '/tickets', TICKET)).json() as { id: string };
      const answer = await send('PATCH', `/tickets/${created.id}`, { priority: 'low' });
      expect({ status: answer.status, body: answer.json() }).toEqual({
        status: 200,
        body: { ...created, priority: 'low' },
      });
    });

    it('POST /tickets/{id}/messages', async () => {
      const id = await ticketId();
      const answer = await send('POST', `/tickets/${id}/messages`, { body: 'Thanks' });
      expect(answer.status).toBe(201);
      expect(Object.entries(answer.json() as object)).toEqual([
        ['id', expect.stringMatching(UUID)],
        ['ticketId', id],
        ['body', 'Thanks'],
        ['createdAt', expect.stringMatching(MILLISECOND)],
      ]);
      expect((await send('GET', `/tickets/${id}/messages`)).json()).toEqual([answer.json()]);
    });

    it('GET /tickets: the client’s own', async () => {
      const first = (await send('POST', '/tickets', TICKET)).json();
      const second = (await send('POST', '/tickets', { title: 'More help' })).json();
      expect((await send('GET', '/tickets')).json()).toEqual([first, second]);
      expect((await send('GET', '/tickets', undefined, undefined, OTHER_KEY)).text).toBe('[]');
    });

    it.each(mutations)('%s %s needs a known API key', async (method, pathOf, body) => {
      const path = await pathOf();
      for (const credentials of [{}, { 'X-API-Key': 'sk_live_unknown' }]) {
        expect((await send(method, path, body, key, credentials)).status).toBe(401);
      }
    });

    it('POST /tickets: null is as good as nothing', async () => {
      const answer = await send('POST', '/tickets', { title: 'Need help', priority: null, tags: null });
      expect(answer.status).toBe(201);
      expect(answer.json()).toMatchObject({ priority: 'normal', tags: [] });
    });

    it.each([
      [{ title: '\u0000' }],
      [{ title: 'x'.repeat(501) }],
      [{ tags: ['\u0000'] }],
      [{ tags: [null] }],
      [{ priority: 'asap' }],
    ])('POST and PATCH refuse what no ticket can be: %j', async (fields) => {
      expect((await send('POST', '/tickets', { ...TICKET, ...fields }, key)).status).toBe(400);
      expect((await send('PATCH', `/tickets/${await ticketId()}`, fields, key)).status).toBe(400);
    });

    it.each(['title', 'priority', 'tags', 'status'])('PATCH cannot take the %s away', async (field) => {
      const path = `/tickets/${await ticketId()}`;
      expect((await send('PATCH', path, { [field]: null }, key)).status).toBe(400);
      expect((await send('PATCH', path, {}, key)).json()).toMatchObject(TICKET);
    });

    it('a message that cannot be stored is refused', async () => {
      const path = `/tickets/${await ticketId()}/messages`;
      expect((await send('POST', path, { body: '\u0000' }, key)).status).toBe(400);
    });

    it('knows nothing of the tickets of another client', async () => {
      const id = await ticketId();
      expect((await send('PATCH', `/tickets/${id}`, { title: 'Mine' }, key, OTHER_KEY)).status).toBe(404);
      const message = await send('POST', `/tickets/${id}/messages`, { body: 'Hi' }, key, OTHER_KEY);
      expect(message.status).toBe(404);
    });
  });
});
