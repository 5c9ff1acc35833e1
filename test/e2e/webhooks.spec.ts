import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { signWebhook } from '../../sample-app/webhooks/webhook-signature.js';
import { ADAPTERS } from '../helpers/application.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { answerOf, KEY, startSample, UUID, type RunningSample } from './sample.fixture.js';

const SECRET = 'whsec_sample_secret';

const now = (): number => Math.floor(Date.now() / 1_000);

describe.each(ADAPTERS)('webhooks of the sample application on %s', (adapter) => {
  let sample: RunningSample;
  let event: { id: string; type: string; pending_webhooks: number; data: object };

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    event = {
      id: `evt_${randomUUID()}`,
      type: 'charge.dispute.created',
      pending_webhooks: 2,
      data: { object: { id: 'ch_42' } },
    };
    await sample.database.query('TRUNCATE ticket_messages, tickets, idempotency_records');
  });

  afterAll(() => sample.close());

  const deliver = (
    body: string = JSON.stringify(event),
    signature: string | undefined = signWebhook(body, SECRET, now()),
  ): Promise<HttpResponse> =>
    sendRequest(`${sample.url}/webhooks/stripe`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Stripe-Signature': signature },
      body,
    });

  const tickets = async (): Promise<unknown[]> =>
    (await sample.call('GET', '/tickets', undefined, KEY)).json() as unknown[];

  it('an event opens a ticket', async () => {
    const answer = await deliver();
    expect({ status: answer.status, body: answer.json() }).toEqual({
      status: 200,
      body: { received: true, ticket: expect.stringMatching(UUID) },
    });
    expect(await tickets()).toMatchObject([
      { title: 'Disputed charge: ch_42', priority: 'high', tags: ['charge.dispute.created'] },
    ]);
  });

  it('a redelivery is acknowledged as the first was, and opens none', async () => {
    const first = await deliver();
    // Signed anew, with another count, as a provider does.
    const again = await deliver(JSON.stringify({ ...event, pending_webhooks: 1 }));
    expect(answerOf(again)).toEqual(answerOf(first));
    expect(again.headers['idempotency-replayed']).toBe('true');
    expect(await tickets()).toHaveLength(1);
  });

  it('ten deliveries at once open one ticket', async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, () => deliver()));
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
    expect(await tickets()).toHaveLength(1);
  });

  it('another event opens another ticket', async () => {
    await deliver();
    event = { ...event, id: `evt_${randomUUID()}` };
    await deliver();
    expect(await tickets()).toHaveLength(2);
  });

  it('an event of no interest is acknowledged', async () => {
    event = { ...event, type: 'customer.created' };
    expect((await deliver()).text).toBe('{"received":true}');
    expect(await tickets()).toEqual([]);
  });

  it('an event without an id is refused', async () => {
    const answer = await deliver(JSON.stringify({ type: event.type }));
    expect(answer.status).toBe(400);
    expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REQUIRED' });
    expect(await tickets()).toEqual([]);
  });

  it.each(['{}', '[]', '{"id":7}', 'null', '7', '"evt_1"'])('a signed %s is no event', async (body) => {
    expect((await deliver(body)).status).toBe(400);
  });

  describe('the signature is over the bytes', () => {
    it('of another spelling of the same JSON it is worth nothing', async () => {
      const signature = signWebhook(JSON.stringify(event), SECRET, now());
      expect((await deliver(JSON.stringify(event, undefined, 2), signature)).status).toBe(401);
    });

    it.each([
      ['none', ''],
      ['nonsense', 'v1=00'],
      ['of another secret', signWebhook('{}', 'whsec_other', now())],
      ['of yesterday', signWebhook('{}', SECRET, now() - 86_400)],
      ['of tomorrow', signWebhook('{}', SECRET, now() + 86_400)],
    ])('%s', async (_, signature) => {
      expect((await deliver('{}', signature)).status).toBe(401);
      expect(await sample.database.query('SELECT FROM idempotency_records')).toEqual([]);
    });

    it('one of several secrets will do, while the provider changes them', async () => {
      const body = JSON.stringify(event);
      const [time, right] = signWebhook(body, SECRET, now()).split(',');
      expect((await deliver(body, `${time},v1=${'0'.repeat(64)},${right}`)).status).toBe(200);
    });
  });
});
