import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { endpoint, unchecked, type RetryOptions } from 'nestjs-pg-idempotency/client';
import { startSample, type RunningSample } from '../e2e/sample.fixture.js';
import { ADAPTERS } from '../helpers/application.js';
import {
  ChargeSchedule,
  chargeViolations,
  makeCharges,
  planCharges,
  type Charge,
  type ChargeOutcome,
  type PlannedCharge,
} from '../helpers/client-charges.js';
import { amount, chooseSeed, printFigures, seededRandom } from '../helpers/fault-run.js';
import { MISHAPS, startLossyHttp, type LossyHttp } from '../helpers/lossy-http.js';

const CHARGES = amount({ short: 1_000, full: 10_000 });
const TIMEOUT = amount({ short: 900_000, full: 3_600_000 });
const CONCURRENCY = 16;
const ATTEMPTS = 4;
const RETRY: RetryOptions = { attempts: ATTEMPTS, backoff: { base: '5ms', max: '50ms' } };
/** Long for a charge, and short for somebody who waits in vain for one in three. */
const PER_ATTEMPT = '500ms';

describe.each(ADAPTERS)('charges through a gateway that loses, delays and refuses, on %s', (adapter) => {
  const seed = chooseSeed();
  let sample: RunningSample;
  let gateway: LossyHttp | undefined;
  let plan: PlannedCharge[];
  let schedule: ChargeSchedule;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    await sample.database.query('TRUNCATE charges, idempotency_records');
    plan = planCharges(seededRandom(seed), CHARGES, ATTEMPTS);
    schedule = new ChargeSchedule(plan);
    gateway = await startLossyHttp(sample.url, schedule.judge);
  });

  afterEach(() => gateway?.close());

  afterAll(() => sample.close());

  const declare = (
    baseUrl: string,
    safety: { readonly idempotency: object } | { readonly retry: RetryOptions },
  ) =>
    endpoint({
      method: 'POST',
      baseUrl,
      path: '/charges',
      input: unchecked<{ amount: number; ref: string }>(),
      output: unchecked<Charge>(),
      retry: RETRY,
      timeout: { perAttempt: PER_ATTEMPT },
      ...safety,
    });

  const rows = (): Promise<Charge[]> => sample.database.query('SELECT id, amount, ref, status FROM charges');

  const print = (run: string, outcomes: readonly ChargeOutcome[], figures: Record<string, number>): void => {
    const unknown = outcomes.filter(({ errors }) => errors.length > 0);
    printFigures(`client, ${run}, ${adapter}`, seed, {
      charges: outcomes.length,
      requests: schedule.total,
      ...gateway!.mishaps,
      'unknown at first': unknown.length,
      ...figures,
    });
  };

  it(
    'are made once each, and each caller is told which one it is',
    async () => {
      const charge = declare(gateway!.url, { idempotency: {} });
      const outcomes = await makeCharges(plan, CONCURRENCY, (body, idempotencyKey) =>
        charge({ body: bodyOf(body) }, idempotencyKey === undefined ? {} : { idempotencyKey }),
      );
      await gateway!.settled();
      const made = await rows();
      const replays = outcomes.filter(({ result }) => result.replayed).length;
      const violations = chargeViolations(outcomes, made, schedule);
      print('keys', outcomes, { replays, effects: made.length, violations: violations.length });

      expect(violations).toEqual([]);
      expect(outcomes).toHaveLength(CHARGES);
      expect(made).toHaveLength(CHARGES);
      for (const mishap of MISHAPS) expect([mishap, gateway!.mishaps[mishap]]).not.toEqual([mishap, 0]);
      // Not all of them were duplicates, and not all went through at once: both ways to be right were taken.
      expect(replays).toBeGreaterThan(0);
      expect(replays).toBeLessThan(CHARGES);
      // A call that gave up said so, and going on under its key has not charged a second time.
      const stubborn = plan.filter(({ mishaps }) => mishaps.length >= ATTEMPTS).length;
      expect(stubborn).toBeGreaterThan(0);
      const unknown = outcomes.filter(({ errors }) => errors.length > 0);
      expect(unknown.length).toBeGreaterThanOrEqual(stubborn);
      for (const error of unknown.flatMap(({ errors }) => errors)) {
        expect(error.message).toContain(`retry with key ${error.key}`);
        expect(['CALL_NETWORK_FAILED', 'CALL_TIMED_OUT', 'CALL_REFUSED']).toContain(error.code);
      }

      // The check that found nothing does find what there is to find.
      const [first, second] = made as [Charge, Charge];
      const ids = new Set(outcomes.map(({ result }) => result.data.id));
      expect(ids.size).toBe(CHARGES);
      expect(chargeViolations(outcomes, [...made, { ...first, id: second.id }], schedule)).toEqual([
        `${first.ref} was made 2 times`,
      ]);
      expect(chargeViolations(outcomes, made.slice(1), schedule)).toEqual([
        `${first.ref} was made 0 times`,
        `${first.ref} is not the one of the answer`,
      ]);
      const swapped = [{ ...first, id: second.id }, ...made.slice(1)];
      expect(chargeViolations(outcomes, swapped, schedule)).toEqual([
        `${first.ref} is not the one of the answer`,
      ]);
    },
    TIMEOUT,
  );

  it(
    'are made more than once without keys, as the control shows',
    async () => {
      const charge = declare(gateway!.url, { retry: { ...RETRY, unsafe: true } });
      const outcomes = await makeCharges(plan, CONCURRENCY, (body) => charge({ body: bodyOf(body) }));
      await gateway!.settled();
      const made = await rows();
      const duplicates = made.length - CHARGES;
      const violations = chargeViolations(outcomes, made, schedule);
      print('no keys', outcomes, { effects: made.length, duplicates, violations: violations.length });

      expect(outcomes).toHaveLength(CHARGES);
      expect(duplicates).toBeGreaterThan(0);
      expect(violations.filter((each) => /was made \d+ times/.test(each)).length).toBeGreaterThan(0);
      expect(outcomes.filter(({ result }) => result.replayed || result.key !== undefined)).toEqual([]);
    },
    TIMEOUT,
  );
});

function bodyOf({ amount: cents, ref }: PlannedCharge): { amount: number; ref: string } {
  return { amount: cents, ref };
}
