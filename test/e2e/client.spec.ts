import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  bodyFingerprintKey,
  derivedKey,
  endpoint,
  unchecked,
  type AnswerError,
  type AttemptReport,
  type Fetch,
  type IdempotencyOptions,
  type KeyInput,
  type TimeoutOptions,
} from 'nestjs-pg-idempotency/client';
import { withClient } from '../helpers/admin.js';
import { ADAPTERS } from '../helpers/application.js';
import { failureOf } from '../helpers/client-calls.js';
import type { Charge } from '../helpers/client-charges.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { startLossyHttp, type LossyHttp, type Mishap, type SeenRequest } from '../helpers/lossy-http.js';
import { CLIENT, ORDER, ORDERS } from './rewards.fixture.js';
import { startSample, type RunningSample } from './sample.fixture.js';

interface NewCharge {
  readonly amount: number;
  readonly ref: string;
}

const newCharge = unchecked<NewCharge>();

describe.each(ADAPTERS)('the client against the sample application on %s', (adapter) => {
  let sample: RunningSample;
  let gateway: LossyHttp;
  let requests: SeenRequest[];
  let mishaps: Mishap[];
  /** Bodies of answers, as they came. */
  let answers: string[];
  let body: NewCharge;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    await sample.database.query('TRUNCATE charges, orders, idempotency_records');
    requests = [];
    mishaps = [];
    answers = [];
    body = { amount: 4200, ref: `inv_${randomUUID()}` };
    gateway = await startLossyHttp(sample.url, (request) => {
      requests.push(request);
      return mishaps.shift();
    });
  });

  afterEach(() => gateway.close());

  afterAll(() => sample.close());

  const listeningFetch: Fetch = async (url, init) => {
    const response = await fetch(url, init);
    answers.push(await response.clone().text());
    return response;
  };

  const declareCharge = (
    idempotency: IdempotencyOptions<KeyInput<object, unknown, NewCharge>>,
    timeout: TimeoutOptions = {},
  ) =>
    endpoint({
      method: 'POST',
      baseUrl: gateway.url,
      path: '/charges',
      input: newCharge,
      output: unchecked<Charge>(),
      retry: { attempts: 3, backoff: { base: '5ms' } },
      timeout,
      idempotency,
      fetch: listeningFetch,
    });

  const charged = (): Promise<{ id: string }[]> => sample.database.query('SELECT id FROM charges');

  const sentKeys = (): string[] => requests.map(({ headers }) => String(headers['idempotency-key']));

  describe('a double click', () => {
    it.each([
      ['a derived key', derivedKey<{ body: NewCharge }>(({ body: { ref } }) => ['charge', ref])],
      ['the fingerprint of the body', bodyFingerprintKey()],
    ])('with %s is one charge, and so is every call after it', async (_, key) => {
      const charge = declareCharge({ key });
      const both = await Promise.all([charge({ body }), charge({ body })]);
      const third = await charge({ body: { ref: body.ref, amount: body.amount } });

      const made = await charged();
      expect(made).toEqual([{ id: third.data.id }]);
      expect(both.map(({ replayed }) => replayed).sort()).toEqual([false, true]);
      expect(third).toMatchObject({ replayed: true, attempts: 1, status: 201 });
      expect(requests).toHaveLength(3);
      expect(new Set(sentKeys())).toEqual(new Set([third.key]));
      expect(new Set(answers).size).toBe(1);
      for (const { data, createdAt } of both) {
        expect(data).toEqual(third.data);
        expect(createdAt).toEqual(third.createdAt);
      }
    });

    it('with the default is two charges', async () => {
      const charge = declareCharge({});
      const both = await Promise.all([charge({ body }), charge({ body })]);
      const made = await charged();
      expect(made.map(({ id }) => id).sort()).toEqual(both.map(({ data }) => data.id).sort());
      expect(made).toHaveLength(2);
      expect(both.map(({ replayed }) => replayed)).toEqual([false, false]);
      expect(new Set(sentKeys()).size).toBe(2);
    });

    it('of another amount is another charge by its fingerprint, and refused by its derived key', async () => {
      const byContent = declareCharge({ key: bodyFingerprintKey() });
      const other = { ...body, amount: body.amount + 1 };
      await byContent({ body });
      expect(await byContent({ body: other })).toMatchObject({ replayed: false });
      expect(await charged()).toHaveLength(2);

      const byName = declareCharge({ key: derivedKey(({ body: { ref } }) => ['charge', ref]) });
      const { data, key } = await byName({ body });
      const refusal = await failureOf(byName({ body: other }));
      expect(refusal).toMatchObject({
        code: 'CALL_KEY_REUSED',
        effect: 'none',
        attempts: 1,
        key,
        answer: { status: 422, replayed: false },
      });
      expect(await charged()).toHaveLength(3);
      expect((await byName({ body })).data).toEqual(data);
    });
  });

  it.each<Mishap>(['answer-lost', 'answer-cut', 'gateway-after'])(
    'a charge whose first answer is lost (%s) is made once, and tells of it',
    async (mishap) => {
      mishaps.push(mishap);
      const result = await declareCharge({})({ body });
      expect(await charged()).toEqual([{ id: result.data.id }]);
      expect(result).toMatchObject({ replayed: true, attempts: 2, status: 201 });
      const [record] = await sample.database.query<{ created_at: Date }>(
        `SELECT date_trunc('second', created_at) AS created_at FROM idempotency_records`,
      );
      expect(result.createdAt).toEqual(record!.created_at);
      expect(sentKeys()).toEqual([result.key, result.key]);
      expect(requests[1]!.body).toEqual(requests[0]!.body);
    },
  );

  describe('an error', () => {
    it('of the input is final, and leaves the key free', async () => {
      const charge = declareCharge({ key: () => 'charge_88' });
      for (let call = 1; call <= 2; call++) {
        const refusal = await failureOf(charge({ body: { ...body, amount: -1 } }));
        expect(refusal).toMatchObject({
          code: 'CALL_REFUSED',
          effect: 'none',
          attempts: 1,
          answer: { status: 400, replayed: false },
        });
        expect(requests).toHaveLength(call);
      }
      expect(await charge({ body })).toMatchObject({ replayed: false });
    });

    it('of the operation is final, and is what every repetition gets', async () => {
      const order = endpoint({
        method: 'POST',
        baseUrl: gateway.url,
        path: ORDERS,
        auth: () => ({ ...CLIENT }),
        // Even where one would try again: the result is in.
        retry: { attempts: 3, on: [402, 503], backoff: { base: '5ms' } },
        idempotency: { key: () => 'too-dear-an-order' },
      });
      const tooDear = { ...ORDER, quantity: 1_000 };
      const first = await failureOf(order({ body: tooDear }));
      const again = await failureOf(order({ body: tooDear }));
      for (const refusal of [first, again]) {
        expect(refusal).toMatchObject({ code: 'CALL_REFUSED', effect: 'none', answer: { status: 402 } });
      }
      // The first call has tried again, as it was told to, and was answered what is recorded.
      expect(first).toMatchObject({ attempts: 2, answer: { replayed: true } });
      expect(again).toMatchObject({ attempts: 1, answer: { replayed: true } });
      expect((again as AnswerError).answer.body).toEqual((first as AnswerError).answer.body);
      expect(requests).toHaveLength(3);
      expect(await sample.database.query('SELECT FROM orders')).toEqual([]);
    });
  });

  it('waits for a charge that is in progress, or says that its outcome is unknown', async () => {
    const [locked, gate] = [deferred(), deferred()];
    const locking = withClient(sample.database.directUrl, async (client) => {
      await client.query('BEGIN');
      await client.query('LOCK TABLE charges IN EXCLUSIVE MODE');
      locked.resolve();
      await gate.promise;
      await client.query('COMMIT');
    });
    await locked.promise;
    try {
      const key = derivedKey<{ body: NewCharge }>(({ body: { ref } }) => ['charge', ref]);
      const charge = declareCharge({ key }, { total: '60s', perAttempt: '30s' });
      const first = charge({ body });
      await eventually(async () => {
        const blocked = await sample.database.query(
          `SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO "charges"%'`,
        );
        return blocked.length === 1;
      });
      // The application answers duplicates after five seconds, and asks for about as many.
      const impatient = failureOf(declareCharge({ key }, { total: '9s' })({ body }));
      const reports: AttemptReport[] = [];
      const waiting = deferred();
      const patient = charge(
        { body },
        {
          onAttempt: (report) => {
            reports.push(report);
            if (report.next.kind === 'wait') waiting.resolve();
          },
        },
      );
      await Promise.race([waiting.promise, patient]);
      const gaveUp = await impatient;
      expect(gaveUp).toMatchObject({
        code: 'CALL_IN_PROGRESS',
        effect: 'unknown',
        attempts: 1,
        answer: { status: 409, replayed: false },
      });
      gate.resolve();
      const original = await first;
      const duplicate = await patient;
      expect(original).toMatchObject({ replayed: false, attempts: 1 });
      expect(duplicate).toMatchObject({ replayed: true, data: original.data });
      expect(reports[0]).toMatchObject({
        attempt: 1,
        outcome: { kind: 'answer', status: 409 },
        next: { kind: 'wait' },
      });
      const resumed = await declareCharge({})({ body }, { idempotencyKey: gaveUp.key! });
      expect(resumed).toMatchObject({ replayed: true, data: original.data });
      expect(await charged()).toEqual([{ id: original.data.id }]);
    } finally {
      gate.resolve();
      await locking;
    }
  }, 60_000);
});
