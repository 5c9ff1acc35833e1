import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { apiKey, createClient, endpoint, resource, unchecked } from 'nestjs-pg-idempotency/client';
import { ADAPTERS } from '../helpers/application.js';
import { startLossyHttp, type LossyHttp, type Mishap, type SeenRequest } from '../helpers/lossy-http.js';
import { CLIENT, ORDER, ORDERS } from './rewards.fixture.js';
import { KEY, OTHER_KEY, startSample, type RunningSample } from './sample.fixture.js';

interface NewTicket {
  readonly title: string;
  readonly priority?: string;
  readonly tags?: readonly string[];
}

interface Ticket extends Required<NewTicket> {
  readonly id: string;
  readonly status: string;
  readonly createdAt: string;
}

interface Message {
  readonly id: string;
  readonly ticketId: string;
  readonly body: string;
}

/** An SDK as a vendor of the API would publish it. */
const supportSdk = (baseUrl: string, secret: string) =>
  createClient(
    {
      baseUrl,
      auth: apiKey('X-API-Key', () => secret),
      idempotency: {},
      retry: { attempts: 3, backoff: { base: '5ms' } },
    },
    {
      tickets: resource('/tickets', {
        create: { method: 'POST', input: unchecked<NewTicket>(), output: unchecked<Ticket>() },
        update: {
          method: 'PATCH',
          path: '/:id',
          input: unchecked<Partial<NewTicket> & { status?: string }>(),
          output: unchecked<Ticket>(),
        },
        list: { method: 'GET', output: unchecked<Ticket[]>() },
        messages: resource('/{id}/messages', {
          create: { method: 'POST', input: unchecked<{ body: string }>(), output: unchecked<Message>() },
          list: { method: 'GET', output: unchecked<Message[]>() },
        }),
      }),
    },
  );

describe.each(ADAPTERS)('SDKs made with the client, on %s', (adapter) => {
  let sample: RunningSample;
  let gateway: LossyHttp;
  let requests: SeenRequest[];
  let mishaps: Mishap[];
  let support: ReturnType<typeof supportSdk>;
  let idempotencyKey: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    await sample.database.query('TRUNCATE ticket_messages, tickets, orders, idempotency_records');
    requests = [];
    mishaps = [];
    gateway = await startLossyHttp(sample.url, (request) => {
      requests.push(request);
      return mishaps.shift();
    });
    support = supportSdk(gateway.url, KEY['X-API-Key']);
    idempotencyKey = `submission_${randomUUID()}`;
  });

  afterEach(() => gateway.close());

  afterAll(() => sample.close());

  const TICKET = { title: 'Need help', priority: 'high' };

  describe('support', () => {
    it('a form that is submitted twice makes one ticket, and both get it', async () => {
      const first = await support.tickets.create(TICKET, { idempotencyKey: 'submission_form_42' });
      const again = await support.tickets.create(TICKET, { idempotencyKey: 'submission_form_42' });
      expect(first).toMatchObject({
        status: 201,
        replayed: false,
        attempts: 1,
        key: 'submission_form_42',
        data: { ...TICKET, tags: [], status: 'open' },
      });
      expect(again).toMatchObject({ status: 201, replayed: true, attempts: 1, data: first.data });
      expect(again.createdAt).toEqual(first.createdAt);
      expect((await support.tickets.list()).data).toEqual([first.data]);
      expect(requests.map(({ headers }) => headers['idempotency-key'])).toEqual([
        'submission_form_42',
        'submission_form_42',
        undefined,
      ]);
    });

    it('without a key, twice is two tickets, each of them safe to retry', async () => {
      mishaps.push('answer-lost');
      const first = await support.tickets.create(TICKET);
      const second = await support.tickets.create(TICKET);
      expect(first).toMatchObject({ replayed: true, attempts: 2 });
      expect(second).toMatchObject({ replayed: false, attempts: 1 });
      const { data } = await support.tickets.list();
      expect(data.map(({ id }) => id).sort()).toEqual([first.data.id, second.data.id].sort());
    });

    it('an update that is repeated late undoes nothing', async () => {
      const { data: ticket } = await support.tickets.create(TICKET);
      const closed = await support.tickets.update(ticket.id, { status: 'closed' }, { idempotencyKey });
      const reopened = await support.tickets.update(ticket.id, { status: 'open', title: 'Still' });
      const late = await support.tickets.update(ticket.id, { status: 'closed' }, { idempotencyKey });
      expect(closed.data).toEqual({ ...ticket, status: 'closed' });
      expect(late).toMatchObject({ status: 200, replayed: true, data: closed.data });
      expect((await support.tickets.list()).data).toEqual([reopened.data]);
    });

    it('a message is written once', async () => {
      const { data: ticket } = await support.tickets.create(TICKET);
      const first = await support.tickets.messages.create(ticket.id, { body: 'Thanks' }, { idempotencyKey });
      const again = await support.tickets.messages.create(ticket.id, { body: 'Thanks' }, { idempotencyKey });
      expect(first).toMatchObject({ replayed: false, data: { ticketId: ticket.id, body: 'Thanks' } });
      expect(again).toMatchObject({ replayed: true, data: first.data });
      expect((await support.tickets.messages.list(ticket.id)).data).toEqual([first.data]);
    });

    it('a key is for one endpoint of one team', async () => {
      const { data: ticket } = await support.tickets.create(TICKET, { idempotencyKey });
      expect(
        await support.tickets.messages.create(ticket.id, { body: 'Thanks' }, { idempotencyKey }),
      ).toMatchObject({ replayed: false });
      const others = supportSdk(gateway.url, OTHER_KEY['X-API-Key']);
      const theirs = await others.tickets.create(TICKET, { idempotencyKey });
      expect(theirs.replayed).toBe(false);
      expect((await others.tickets.list()).data).toEqual([theirs.data]);
      expect((await support.tickets.list()).data).toEqual([ticket]);
    });

    it('a webhook handler that runs twice for one event makes one ticket', async () => {
      const handle = async (event: { id: string; charge: string }): Promise<string> => {
        const { data } = await support.tickets.create(
          { title: `Disputed charge: ${event.charge}`, priority: 'urgent', tags: ['dispute'] },
          { idempotencyKey: `stripe_${event.id}` },
        );
        return data.id;
      };
      const event = { id: 'evt_1', charge: 'ch_42' };
      const atOnce = await Promise.all([handle(event), handle(event)]);
      mishaps.push('gateway-after', 'answer-cut');
      const redelivered = await handle(event);
      expect(new Set([...atOnce, redelivered]).size).toBe(1);
      await handle({ id: 'evt_2', charge: 'ch_42' });
      expect((await support.tickets.list()).data).toHaveLength(2);
    });

    it('a refused ticket is an error that carries what the server said', async () => {
      const create = support.tickets.create({ ...TICKET, priority: 'whatever' }, { idempotencyKey });
      await expect(create).rejects.toMatchObject({
        code: 'CALL_REFUSED',
        effect: 'none',
        attempts: 1,
        key: idempotencyKey,
        answer: { status: 400, replayed: false },
      });
      expect(requests).toHaveLength(1);
    });
  });

  describe('rewards', () => {
    const orders = (idempotency: object) =>
      endpoint({
        method: 'POST',
        baseUrl: gateway.url,
        path: ORDERS,
        auth: () => ({ ...CLIENT }),
        retry: { attempts: 3, backoff: { base: '5ms' } },
        idempotency: { rules: { minLength: 8, maxLength: 256 }, ...idempotency },
      });
    const codes = { keyReused: 'E_IDEMPOTENCY_KEY_REUSED' };

    it.each([
      ['short', '1234567', 'has 7 characters, the least is 8'],
      ['long', 'k'.repeat(257), 'has 257 characters, the most is 256'],
    ])('a key that is too %s is refused before anything is sent', async (_, key, why) => {
      for (const call of [
        orders({ key: () => key })({ body: ORDER }),
        orders({})({ body: ORDER }, { idempotencyKey: key }),
      ]) {
        await expect(call).rejects.toMatchObject({
          code: 'CALL_KEY_INVALID',
          effect: 'none',
          attempts: 0,
          message: expect.stringContaining(why),
        });
      }
      expect(requests).toEqual([]);
    });

    it.each([8, 256])('the server takes a key of %d characters as well', async (length) => {
      const result = await orders({ key: () => 'k'.repeat(length) })({ body: ORDER });
      expect(result).toMatchObject({ status: 201, replayed: false });
    });

    it('a key that was used for another order is recognised by the code of this API', async () => {
      await orders({ codes })({ body: ORDER }, { idempotencyKey });
      const other = { ...ORDER, quantity: ORDER.quantity + 1 };
      const refusal = {
        effect: 'none',
        attempts: 1,
        key: idempotencyKey,
        answer: { body: { code: 'E_IDEMPOTENCY_KEY_REUSED', error: 'IdempotencyKeyReused' } },
      };
      await expect(orders({ codes })({ body: other }, { idempotencyKey })).rejects.toMatchObject({
        ...refusal,
        code: 'CALL_KEY_REUSED',
      });
      // Whoever does not name it is refused as well, and told so in general.
      await expect(orders({})({ body: other }, { idempotencyKey })).rejects.toMatchObject({
        ...refusal,
        code: 'CALL_REFUSED',
      });
      expect(await sample.database.query('SELECT FROM orders')).toHaveLength(1);
      expect(requests).toHaveLength(3);
    });
  });
});
