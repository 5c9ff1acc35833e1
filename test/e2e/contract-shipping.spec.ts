import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { ADAPTERS } from '../helpers/application.js';
import { KEY, OTHER_KEY, SECOND, startSample, UUID, type RunningSample } from './sample.fixture.js';

const CONFLICT =
  '{"success":false,"error":{"code":"IDEMPOTENCY_CONFLICT","message":"Request payload differs from original request with this idempotencyKey"}}';
const UNKNOWN = '0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c01';
const ORDER = { reference: 'R-1', items: [{ sku: 'mug', quantity: 2 }] };

describe.each(ADAPTERS)('shipping API on %s', (adapter) => {
  let sample: RunningSample;
  let idempotencyKey: string;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  beforeEach(async () => {
    idempotencyKey = `key-${randomUUID()}`;
    await sample.database.query(
      'TRUNCATE shipping_orders, shipping_manifests, shipping_labels, idempotency_records',
    );
  });

  afterAll(() => sample.close());

  const post = (path: string, body: unknown, credentials: object = KEY): Promise<HttpResponse> =>
    sample.call('POST', `/api/v1/${path}`, body, credentials);

  const create = (own: object = {}): Promise<HttpResponse> =>
    post('orders/create', { idempotencyKey, ...ORDER, ...own });

  const rows = async (table: string): Promise<number> =>
    (await sample.database.query(`SELECT FROM ${table}`)).length;

  const orderId = async (): Promise<string> => {
    const { data } = (await create({ idempotencyKey: `for-${randomUUID()}` })).json() as {
      data: { id: string };
    };
    return data.id;
  };

  function expectError(answer: HttpResponse, status: number, code: string, message: unknown): void {
    expect({ status: answer.status, body: answer.json() }).toEqual({
      status,
      body: { success: false, error: { code, message } },
    });
    expect(Object.keys(answer.json() as object)).toEqual(['success', 'error']);
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
  }

  /** Every operation, with a body that it takes. */
  const operations: [path: string, body: () => Promise<object>, status: number, table: string][] = [
    ['orders/create', async () => ORDER, 201, 'shipping_orders'],
    ['orders/void', async () => ({ orderId: await orderId() }), 200, 'shipping_orders'],
    ['manifests/submit', async () => ({ orderIds: [await orderId()] }), 201, 'shipping_manifests'],
    ['labels/7/reprint', async () => ({}), 201, 'shipping_labels'],
  ];

  describe('endpoints', () => {
    it.each(['orders/create', 'orders/void', 'labels/7/reprint'])(
      'POST /api/v1/%s: key required',
      async (path) => {
        const answer = await post(path, { ...ORDER, orderId: randomUUID() });
        expectError(answer, 400, 'IDEMPOTENCY_KEY_REQUIRED', expect.stringContaining('idempotencyKey'));
        expect(await rows('idempotency_records')).toBe(0);
      },
    );

    it('POST /api/v1/manifests/submit: key optional, twice is two manifests', async () => {
      const body = { orderIds: [await orderId()] };
      const [first, second] = [await post('manifests/submit', body), await post('manifests/submit', body)];
      expect([first.status, second.status]).toEqual([201, 201]);
      expect(first.text).not.toBe(second.text);
      expect(first.headers['idempotency-created-at']).toBeUndefined();
      expect(await rows('shipping_manifests')).toBe(2);
    });
  });

  describe('rules', () => {
    it.each([
      ['7 characters', 'a'.repeat(7), 'IDEMPOTENCY_KEY_TOO_SHORT'],
      ['65 characters', 'a'.repeat(65), 'IDEMPOTENCY_KEY_TOO_LONG'],
      ['a space', 'order 123', 'IDEMPOTENCY_KEY_MALFORMED'],
      ['a dot', 'order.123', 'IDEMPOTENCY_KEY_MALFORMED'],
      ['a letter beyond ASCII', 'bestellung-ü', 'IDEMPOTENCY_KEY_MALFORMED'],
      ['quotation marks', '"order-123"', 'IDEMPOTENCY_KEY_MALFORMED'],
      ['a line feed', 'order-123\n', 'IDEMPOTENCY_KEY_MALFORMED'],
    ])('length and characters: %s are refused', async (_, key, code) => {
      const answer = await create({ idempotencyKey: key });
      expectError(answer, 400, code, expect.stringContaining('idempotencyKey'));
      expect(await rows('shipping_orders')).toBe(0);
    });

    it.each([[12_345_678], [null], [['order-123']], [{ key: 'order-123' }], [true]])(
      'a key that is no string is refused: %j',
      async (key) => {
        const answer = await create({ idempotencyKey: key });
        expect(answer.status).toBe(400);
        expect((answer.json() as { success: boolean }).success).toBe(false);
        expect(await rows('shipping_orders')).toBe(0);
      },
    );

    it.each(['a'.repeat(8), 'Z'.repeat(64), 'order-123_ABC'])(
      'length and characters: %s is taken',
      async (key) => {
        expect((await create({ idempotencyKey: key })).status).toBe(201);
      },
    );

    it('scope: the same key for create and for void are two requests', async () => {
      const created = await create({ idempotencyKey: 'order-123' });
      const { data } = created.json() as { data: { id: string } };
      const voided = await post('orders/void', { idempotencyKey: 'order-123', orderId: data.id });
      expect(voided.json()).toMatchObject({ success: true, data: { status: 'voided' } });
    });

    it('scope: the same key of another API key is another request', async () => {
      const first = await create({ idempotencyKey: 'order-123' });
      const other = await post('orders/create', { idempotencyKey: 'order-123', ...ORDER }, OTHER_KEY);
      expect(other.status).toBe(201);
      expect(other.text).not.toBe(first.text);
      expect(await rows('shipping_orders')).toBe(2);
    });

    it('expiry: 24 hours', async () => {
      const first = await create();
      const [record] = await sample.database.query<{ hours: number }>(
        `SELECT round(extract(epoch FROM expires_at - clock_timestamp()) / 3600)::int AS hours
           FROM idempotency_records`,
      );
      expect(record).toEqual({ hours: 24 });
      await sample.database.query(
        `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'`,
      );
      const second = await create();
      expect(second.status).toBe(201);
      expect(second.text).not.toBe(first.text);
    });

    it.each(operations)(
      'first request: %s runs, and the response is recorded',
      async (path, body, status) => {
        const answer = await post(path, { idempotencyKey, ...(await body()) });
        expect(answer.status).toBe(status);
        expect(answer.headers['idempotency-created-at']).toMatch(SECOND);
        const [record] = await sample.database.query('SELECT * FROM idempotency_records WHERE key = $1', [
          idempotencyKey,
        ]);
        expect(record).toMatchObject({ status: 'completed', response_status: status });
      },
    );

    it.each(operations)(
      'duplicate: %s answers the recorded response, HTTP 200',
      async (path, body, status, table) => {
        const request = { idempotencyKey, ...(await body()) };
        const first = await post(path, request);
        const effects = await rows(table);
        for (const duplicate of [await post(path, request), await post(path, request)]) {
          expect(duplicate.status).toBe(200);
          expect(duplicate.text).toBe(first.text);
          expect(duplicate.headers['idempotency-replayed']).toBe('true');
        }
        expect(first.status).toBe(status);
        expect(await rows(table)).toBe(effects);
      },
    );

    it.each(operations)('different payload, same key: %s answers 409', async (path, body) => {
      await post(path, { idempotencyKey, ...(await body()) });
      const answer = await post(path, { idempotencyKey, ...(await body()), note: 'changed' });
      expect({ status: answer.status, text: answer.text }).toEqual({ status: 409, text: CONFLICT });
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
    });
  });

  it('a duplicate may put the members of its body in another order, the key included', async () => {
    const first = await create();
    const { items, reference } = ORDER;
    const duplicate = await post('orders/create', { items, idempotencyKey, reference });
    expect({ status: duplicate.status, text: duplicate.text }).toEqual({ status: 200, text: first.text });
  });

  it('reprinting label 7 and label 8 with the same key is a different request on the same operation', async () => {
    const seven = await post('labels/7/reprint', { idempotencyKey });
    const eight = await post('labels/8/reprint', { idempotencyKey });
    expect(seven.status).toBe(201);
    expect({ status: eight.status, text: eight.text }).toEqual({ status: 409, text: CONFLICT });
    expect(await rows('shipping_labels')).toBe(1);
  });

  describe('in the sample application', () => {
    it('POST /api/v1/orders/create', async () => {
      const answer = await create();
      expect(answer.status).toBe(201);
      const { data } = answer.json() as { data: { id: string } };
      expect(data.id).toMatch(UUID);
      expect(answer.text).toBe(
        `{"success":true,"data":{"id":"${data.id}","reference":"R-1","status":"created"}}`,
      );
    });

    it('POST /api/v1/orders/void: 200, and voiding twice under different keys is 409', async () => {
      const order = await orderId();
      const first = await post('orders/void', { idempotencyKey, orderId: order });
      expect(first.status).toBe(200);
      expect(first.json()).toEqual({
        success: true,
        data: { id: order, reference: 'R-1', status: 'voided' },
      });
      for (let attempt = 0; attempt < 2; attempt++) {
        const again = await post('orders/void', { idempotencyKey: `${idempotencyKey}-2`, orderId: order });
        expectError(again, 409, 'ORDER_ALREADY_VOIDED', expect.any(String));
        expect(again.headers['idempotency-replayed']).toBe(attempt === 0 ? undefined : 'true');
      }
    });

    it('POST /api/v1/manifests/submit', async () => {
      const answer = await post('manifests/submit', { orderIds: [await orderId()] });
      expect(answer.status).toBe(201);
      expect(answer.json()).toMatchObject({ success: true, data: { id: expect.stringMatching(UUID) } });
    });

    it('POST /api/v1/labels/{id}/reprint', async () => {
      const first = await post('labels/7/reprint', { idempotencyKey });
      expect({ status: first.status, text: first.text }).toEqual({
        status: 201,
        text: '{"success":true,"data":{"labelId":"7","printCount":1}}',
      });
      const second = await post('labels/7/reprint', { idempotencyKey: `${idempotencyKey}-2` });
      expect(second.json()).toMatchObject({ data: { printCount: 2 } });
    });

    it('GET /api/v1/orders/created: the client’s own', async () => {
      const { data } = (await create()).json() as { data: object };
      const list = await sample.call('GET', '/api/v1/orders/created', undefined, KEY);
      expect({ status: list.status, body: list.json() }).toEqual({
        status: 200,
        body: { success: true, data: [data] },
      });
      const other = await sample.call('GET', '/api/v1/orders/created', undefined, OTHER_KEY);
      expect(other.text).toBe('{"success":true,"data":[]}');
    });
  });

  describe('other errors take the same envelope', () => {
    it.each(['orders/create', 'orders/void', 'manifests/submit', 'labels/7/reprint'])(
      'no known API key: %s',
      async (path) => {
        for (const credentials of [{}, { 'X-API-Key': 'sk_live_unknown' }]) {
          expectError(
            await post(path, { idempotencyKey }, credentials),
            401,
            'UNAUTHORIZED',
            expect.any(String),
          );
        }
      },
    );

    it.each([
      ['no JSON', 400, 'BAD_REQUEST', '{"idempotencyKey":'],
      ['too large', 413, 'PAYLOAD_TOO_LARGE', JSON.stringify({ ...ORDER, reference: 'x'.repeat(2 ** 21) })],
    ])('a body that is %s, which no controller sees: %i', async (_, status, code, body) => {
      const headers = { ...KEY, 'Content-Type': 'application/json' };
      const answer = await sendRequest(`${sample.url}/api/v1/orders/create`, {
        method: 'POST',
        headers,
        body,
      });
      expectError(answer, status, code, expect.any(String));
    });

    it.each(['orders/create/nothing', 'manifests', 'labels/7'])('no such operation: %s', async (path) => {
      expectError(await post(path, {}), 404, 'NOT_FOUND', `Cannot POST /api/v1/${path}`);
    });

    it('an error that nobody foresaw, which frees the key', async () => {
      await sample.database.query('ALTER TABLE shipping_orders RENAME TO away');
      sample.app.useLogger(false);
      const answer = await create();
      sample.app.useLogger(['error']);
      await sample.database.query('ALTER TABLE away RENAME TO shipping_orders');
      expectError(answer, 500, 'INTERNAL_SERVER_ERROR', 'Internal server error');
      expect((await create()).status).toBe(201);
    });

    it('not those of the API beside it', async () => {
      const answer = await sample.call('POST', '/api/v1/orders', {}, KEY);
      expect(answer.json()).toMatchObject({ statusCode: 401, error: 'Unauthorized' });
    });

    const item = (own: object): object => ({ items: [{ sku: 'mug', quantity: 1, ...own }] });
    it.each([
      ['orders/create', 'reference', { ...ORDER, reference: 'R\u0000' }],
      ['orders/create', 'reference', { ...ORDER, reference: 'R'.repeat(201) }],
      ['orders/create', 'sku', { ...ORDER, ...item({ sku: '\u0000' }) }],
      ['orders/create', 'sku', { ...ORDER, ...item({ sku: '\ud800' }) }],
      ['orders/create', 'quantity', { ...ORDER, ...item({ quantity: 1e300 }) }],
      ['orders/create', 'items', { ...ORDER, items: [null] }],
      ['orders/create', 'items', { ...ORDER, items: Array(101).fill(ORDER.items[0]) }],
      ['orders/void', 'orderId', { orderId: '7' }],
      ['manifests/submit', 'orderIds', { orderIds: [UNKNOWN, UNKNOWN.toUpperCase()] }],
      ['manifests/submit', 'orderIds', { orderIds: [null] }],
      ['labels/%00/reprint', 'id', {}],
    ])('what cannot be kept, or makes no sense, is no 500: %s with another %s', async (path, field, body) => {
      const answer = await post(path, { idempotencyKey, ...body });
      expectError(answer, 400, 'BAD_REQUEST', expect.stringContaining(field));
    });

    it('a body that is not valid frees its key', async () => {
      expectError(await create({ items: [] }), 400, 'BAD_REQUEST', expect.stringContaining('items'));
      expect((await create()).status).toBe(201);
    });

    it.each(['orders/void', 'manifests/submit'])('an unknown order: %s', async (path) => {
      const id = randomUUID();
      const body = path === 'orders/void' ? { orderId: id } : { orderIds: [id] };
      const answer = await post(path, { idempotencyKey, ...body });
      expectError(answer, 404, 'ORDER_NOT_FOUND', `There is no order ${id}`);
    });

    it('the order of another client', async () => {
      const answer = await post('orders/void', { idempotencyKey, orderId: await orderId() }, OTHER_KEY);
      expect(answer.status).toBe(404);
    });
  });
});
