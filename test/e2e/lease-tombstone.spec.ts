import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ConflictException, InternalServerErrorException, StreamableFile } from '@nestjs/common';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, leaseRow } from '../helpers/leases.js';
import { createShop, shopState } from '../helpers/shop.js';

const LARGE = 'x'.repeat(2_000);

function brokenSource(): Readable {
  return Readable.from(
    (function* () {
      yield Buffer.from('half of ');
      throw new Error('the disk is gone');
    })(),
  );
}

/** What took effect, and cannot be kept. */
const UNKEEPABLE: Readonly<Record<string, () => unknown>> = {
  'a response that is too large': () => ({ text: LARGE }),
  'a stream that is too large': () => new StreamableFile(Buffer.from(LARGE)),
  'a stream whose source fails': () => new StreamableFile(brokenSource()),
  'an error that is too large': () => {
    throw new ConflictException({ text: LARGE });
  },
};

describe.each(ADAPTERS)('tombstones (%s)', (adapter) => {
  let database: TestDatabase;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    const idempotency = { response: { maxSize: 1_000 } };
    app = await startLeaseApplication({ adapter, database, idempotency });
  });

  afterEach(async () => {
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (key: string, route: Route = 'rerun'): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });

  const answering = (answer: () => unknown): void => {
    app.acts(async ({ execution, orders }) => {
      await execution.transaction(() => orders.save({ item: 'done', price: 1 }));
      return answer();
    });
  };

  it.each(Object.keys(UNKEEPABLE))('%s leaves one, and never runs again', async (what) => {
    answering(UNKEEPABLE[what]!);
    const first = await send('kept-out');
    expectProblem(first, 409, 'IDEMPOTENCY_RESPONSE_NOT_KEPT');
    expect(first.headers['retry-after']).toBeUndefined();
    expect(await leaseRow(database, 'kept-out')).toMatchObject({ status: 'failed', response_status: null });
    const retry = await send('kept-out');
    expectProblem(retry, 409, 'IDEMPOTENCY_RESPONSE_NOT_KEPT');
    expect(retry.text).toBe(first.text);
    expect(app.milestones).toHaveLength(1);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });

  it('does not lend its key to a different request', async () => {
    answering(UNKEEPABLE['a response that is too large']!);
    await send('other');
    const other = await postJson(`${app.url}/rerun`, { other: true }, { 'Idempotency-Key': 'other' });
    expectProblem(other, 422, 'IDEMPOTENCY_KEY_REUSED');
  });

  it('is not left by a 5xx, whose outcome is unknown however large it is', async () => {
    answering(() => {
      throw new InternalServerErrorException({ text: LARGE });
    });
    const first = await send('large-500', 'refuse');
    expectProblem(first, 500, 'IDEMPOTENCY_RESPONSE_TOO_LARGE');
    expect((first.json() as { detail: string }).detail).toContain('It is not known whether it took effect');
    expectProblem(await send('large-500', 'refuse'), 409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED');
  });

  it('is not left in transaction mode, where everything is rolled back', async () => {
    answering(UNKEEPABLE['a response that is too large']!);
    expectProblem(await send('rolled-back', 'transaction'), 500, 'IDEMPOTENCY_RESPONSE_TOO_LARGE');
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
  });
});
