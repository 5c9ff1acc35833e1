import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { ADAPTERS } from '../helpers/application.js';
import type { HttpResponse } from '../helpers/http.js';
import { answerOf, KEY, OTHER_KEY, startSample, UUID, type RunningSample } from './sample.fixture.js';

const CHARGE = { amount: 4200, ref: 'inv_88' };

describe.each(ADAPTERS)('charges, as the client contract has them, on %s', (adapter) => {
  let sample: RunningSample;
  let key: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    key = randomUUID();
    await sample.database.query('TRUNCATE charges, idempotency_records');
  });

  afterAll(() => sample.close());

  const charge = (body: unknown, idempotencyKey?: string, credentials: object = {}): Promise<HttpResponse> =>
    sample.call('POST', '/charges', body, {
      ...credentials,
      ...(idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }),
    });

  const charged = async (ref: string, credentials: object = {}): Promise<unknown> =>
    (await sample.call('GET', `/charges?ref=${ref}`, undefined, credentials)).json();

  it('POST /charges answers 201', async () => {
    const answer = await charge(CHARGE);
    expect(answer.status).toBe(201);
    expect(Object.entries(answer.json() as object)).toEqual([
      ['id', expect.stringMatching(UUID)],
      ['amount', 4200],
      ['ref', 'inv_88'],
      ['status', 'succeeded'],
    ]);
  });

  it('GET /charges?ref= lists what was charged', async () => {
    const first = (await charge(CHARGE)).json();
    await charge({ ...CHARGE, ref: 'inv_89' });
    expect(await charged('inv_88')).toEqual([first]);
  });

  it('with a key, a retry is the same charge', async () => {
    const first = await charge(CHARGE, key);
    const retry = await charge(CHARGE, key);
    expect(answerOf(retry)).toEqual(answerOf(first));
    expect(retry.headers['idempotency-replayed']).toBe('true');
    expect(await charged('inv_88')).toHaveLength(1);
  });

  it('without a key, a retry charges again', async () => {
    await charge(CHARGE);
    await charge(CHARGE);
    expect(await charged('inv_88')).toHaveLength(2);
  });

  it('422 for a key that was used for another charge', async () => {
    await charge(CHARGE, key);
    expect((await charge({ ...CHARGE, amount: 1 }, key)).status).toBe(422);
    expect(await charged('inv_88')).toHaveLength(1);
  });

  it.each([
    [{ amount: 0, ref: 'r' }],
    [{ amount: 1.5, ref: 'r' }],
    [{ amount: '1', ref: 'r' }],
    [{ amount: 1 }],
    [{ amount: 1, ref: '\u0000' }],
    [{ amount: 1, ref: null }],
    [{ amount: 2 ** 31, ref: 'r' }],
  ])('400 for %j, which frees the key', async (body) => {
    expect((await charge(body, key)).status).toBe(400);
    expect((await charge(CHARGE, key)).status).toBe(201);
  });

  it.each(['ref=%00', 'ref=a&ref=b', 'reference=a'])('GET /charges?%s: 400', async (query) => {
    expect((await sample.call('GET', `/charges?${query}`)).status).toBe(400);
  });

  it('keeps clients apart, by X-API-Key or by a bearer token', async () => {
    const bearer = { Authorization: `Bearer ${KEY['X-API-Key']}` };
    const first = await charge(CHARGE, key, KEY);
    expect(answerOf(await charge(CHARGE, key, bearer))).toEqual(answerOf(first));
    for (const credentials of [OTHER_KEY, {}]) {
      expect(await charged('inv_88', credentials)).toEqual([]);
      expect((await charge(CHARGE, key, credentials)).headers['idempotency-replayed']).toBeUndefined();
      expect(await charged('inv_88', credentials)).toHaveLength(1);
    }
    expect((await charge(CHARGE, key, { Authorization: 'Bearer nobody' })).status).toBe(401);
  });
});
