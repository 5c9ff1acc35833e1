import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { ADAPTERS } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import type { HttpResponse } from '../helpers/http.js';
import { answerOf, KEY, startSample, type RunningSample } from './sample.fixture.js';

describe.each(ADAPTERS)('jobs of the sample application on %s', (adapter) => {
  let sample: RunningSample;
  let ref: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(() => {
    ref = `inv_${randomUUID()}`;
  });

  afterAll(() => sample.close());

  const enqueue = (idempotencyKey: string, amount = 4200): Promise<HttpResponse> =>
    sample.call('POST', '/jobs/charges', { amount, ref }, { ...KEY, 'Idempotency-Key': idempotencyKey });

  const charges = async (): Promise<unknown[]> =>
    (await sample.call('GET', `/charges?ref=${ref}`, undefined, KEY)).json() as unknown[];

  const stateOf = async (job: string): Promise<string | undefined> => {
    const [row] = await sample.database.query<{ state: string }>(
      'SELECT state FROM pgboss.job WHERE id = $1',
      [job],
    );
    return row?.state;
  };

  it('a job charges once', async () => {
    const answer = await enqueue(randomUUID());
    expect(answer.status).toBe(202);
    const { job } = answer.json() as { job: string };
    await eventually(async () => (await stateOf(job)) === 'completed');
    expect(await charges()).toMatchObject([{ amount: 4200, ref, status: 'succeeded' }]);
  });

  it('a job that is delivered again returns the recorded result', async () => {
    const { job } = (await enqueue(randomUUID())).json() as { job: string };
    await eventually(async () => (await stateOf(job)) === 'completed');
    await sample.database.query(
      `UPDATE pgboss.job SET state = 'retry', start_after = now(), completed_on = NULL WHERE id = $1`,
      [job],
    );
    await eventually(async () => (await stateOf(job)) === 'completed');
    expect(await charges()).toHaveLength(1);
  });

  it('a retried request puts one job into the queue', async () => {
    const key = randomUUID();
    const first = await enqueue(key);
    expect(answerOf(await enqueue(key))).toEqual(answerOf(first));
    const { job } = first.json() as { job: string };
    await eventually(async () => (await stateOf(job)) === 'completed');
    expect(await charges()).toHaveLength(1);
  });

  it('a request that is rolled back puts no job into the queue', async () => {
    const key = randomUUID();
    // The record cannot be finished, so that the handler, which has sent its job by then, is undone.
    await sample.database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$`,
    );
    await sample.database.query(
      'CREATE TRIGGER refuse BEFORE INSERT ON idempotency_records FOR EACH ROW EXECUTE FUNCTION refuse()',
    );
    const before = await sample.database.query('SELECT id FROM pgboss.job');
    const refused = await enqueue(key);
    await sample.database.query('DROP FUNCTION refuse CASCADE');
    expect(refused.status).toBeGreaterThanOrEqual(500);
    expect(await sample.database.query('SELECT id FROM pgboss.job')).toEqual(before);
    expect((await enqueue(key)).status).toBe(202);
  });
});
