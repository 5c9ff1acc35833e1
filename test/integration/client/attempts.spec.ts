import { afterEach, describe, expect, it } from '@jest/globals';
import { AnswerError, apiKey, CallError, endpoint, env, type KeyInput } from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest, type ScriptedAnswer } from '../../helpers/client-server.js';

const TOKEN = 'CLIENT_ATTEMPTS_SPEC_TOKEN';

const server = serverOfTest(afterEach);

afterEach(() => void Reflect.deleteProperty(process.env, TOKEN));

const CREATED: ScriptedAnswer = { status: 201, body: { id: 1 } };

describe('a call is tried again', () => {
  it.each<[string, ScriptedAnswer]>([
    ['a status of retry.on', { status: 503 }],
    ['another status of retry.on', { status: 429, body: 'slow down' }],
    ['a connection that was cut before the answer', { cut: 'before' }],
    [
      'a connection that was cut within the answer',
      { status: 201, body: { id: 'x'.repeat(1_000) }, cut: 'within' },
    ],
    [
      'a connection that was cut within an error',
      { status: 400, body: { error: 'x'.repeat(1_000) }, cut: 'within' },
    ],
  ])('after %s', async (_, first) => {
    const { url, requests } = await server.start([first, first, CREATED]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { on: [429, 503], backoff: AT_ONCE },
      idempotency: {},
    });
    const result = await charge({ body: { amount: 1 } });
    expect(result).toMatchObject({ status: 201, data: { id: 1 }, attempts: 3, replayed: false });
    expect(requests).toHaveLength(3);
    expect(new Set(requests.map(({ headers }) => headers['idempotency-key']))).toEqual(new Set([result.key]));
  });

  it('after an attempt that got no answer in its time', async () => {
    const { url, requests } = await server.start((_, index) =>
      index === 0 ? { ...CREATED, after: new Promise(() => undefined) } : CREATED,
    );
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 10, backoff: AT_ONCE },
      timeout: { perAttempt: '500ms' },
      idempotency: {},
      onAttempt,
    });
    const { key, attempts } = await charge({ body: {} });
    expect(reports[0]).toMatchObject({ outcome: { kind: 'timed-out' }, next: { kind: 'retry' } });
    expect(attempts).toBeGreaterThanOrEqual(2);
    expect(requests).toHaveLength(attempts);
    for (const { headers } of requests) expect(headers['idempotency-key']).toBe(key);
  });

  it('not after a connection that was cut behind the answer', async () => {
    const { url, requests } = await server.start([{ ...CREATED, cut: 'behind' }]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
    });
    expect(await charge({ body: {} })).toMatchObject({ data: { id: 1 }, attempts: 1 });
    expect(requests).toHaveLength(1);
  });

  it('as often as it says, and then fails with what came last', async () => {
    const { url, requests } = await server.start((_, index) => ({ status: 503, body: { index } }));
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 4, backoff: AT_ONCE },
      idempotency: {},
      onAttempt,
    });
    const error = await failureAs(AnswerError, 'CALL_REFUSED', charge({ body: {} }));
    expect(error).toMatchObject({
      attempts: 4,
      effect: 'unknown',
      answer: { status: 503, body: { index: 3 } },
    });
    expect(error.message).toContain('after 4 attempts');
    expect(error.message).toContain(`retry with key ${error.key ?? ''}`);
    expect(requests).toHaveLength(4);
    expect(reports.map(({ attempt, next }) => [attempt, next.kind])).toEqual([
      [1, 'retry'],
      [2, 'retry'],
      [3, 'retry'],
      [4, 'fail'],
    ]);
  });

  it('never where nothing is said of retry', async () => {
    const { url, requests } = await server.start([{ status: 503 }]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    expect(await failureAs(AnswerError, 'CALL_REFUSED', charge({ body: {} }))).toMatchObject({ attempts: 1 });
    expect(requests).toHaveLength(1);
  });

  it('without a key where it says that this is unsafe', async () => {
    const { url, requests } = await server.start([{ status: 503 }, CREATED]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { unsafe: true, backoff: AT_ONCE },
    });
    expect(await charge({ body: {} })).toMatchObject({ key: undefined, attempts: 2 });
    for (const { headers } of requests) expect(headers).not.toHaveProperty('idempotency-key');
  });

  it('when it reads, without a key', async () => {
    const { url, requests } = await server.start([{ cut: 'before' }, { status: 503 }, { body: [1] }]);
    const list = endpoint({ method: 'GET', baseUrl: url, path: '/charges', retry: { backoff: AT_ONCE } });
    expect(await list({ query: { ref: 'a' } })).toMatchObject({ data: [1], key: undefined, attempts: 3 });
    expect(requests.map((request) => request.url)).toEqual(Array(3).fill('/charges?ref=a'));
  });

  it('when it reads, also where it is sent elsewhere', async () => {
    const { url, requests } = await server.start([
      { status: 302, headers: { location: '/new' } },
      { body: [1] },
    ]);
    const list = endpoint({ method: 'GET', baseUrl: url, path: '/old' });
    expect(await list()).toMatchObject({ data: [1], attempts: 1 });
    expect(requests.map((request) => request.url)).toEqual(['/old', '/new']);
  });

  it('after a refused connection, and says that nothing was written', async () => {
    const { url } = await server.start([]);
    await server.close();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 2, backoff: AT_ONCE },
      idempotency: {},
    });
    const error = await failureAs(CallError, 'CALL_NETWORK_FAILED', charge({ body: {} }));
    expect(error).toMatchObject({ attempts: 2, effect: 'none', cause: { message: 'fetch failed' } });
    expect(error.message).toBe('CALL_NETWORK_FAILED: POST /charges got no answer after 2 attempts.');
  });
});

describe('every attempt sends the same', () => {
  const twice: ScriptedAnswer[] = [{ status: 503 }, { cut: 'before' }, CREATED];

  it('key, headers and bytes, whatever becomes of the objects that were given', async () => {
    const { url, requests } = await server.start(twice);
    const body = { amount: 4_200, lines: [{ sku: 'a' }] };
    const params = { shop: 'one' };
    const query = { tags: ['x', 'y'] };
    const headers = { 'X-Trace': 'first' };
    const spoil = (): void => {
      body.amount += 1;
      body.lines.push({ sku: 'b' });
      params.shop += '!';
      query.tags.push('z');
      headers['X-Trace'] += '!';
    };
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/shops/:shop/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      onAttempt: spoil,
    });
    const pending = charge({ body, params, query, headers });
    spoil();
    await pending;
    expect(requests).toHaveLength(3);
    for (const request of requests) {
      expect(request.text).toBe('{"amount":4200,"lines":[{"sku":"a"}]}');
      expect(request.url).toBe('/shops/one/charges?tags=x&tags=y');
      expect(request.headers['x-trace']).toBe('first');
      expect(request.headers).toEqual(requests[0]?.headers);
    }
    // The objects did change: that it does not show is no accident.
    expect(body.amount).toBe(4_204);
  });

  it.each([
    ['derived from the body', ({ body }: KeyInput): string => `order_${(body as { id: number }).id}`],
    [
      'derived from what will be sent',
      ({ request }: KeyInput): string => `order_${new TextDecoder().decode(request.bytes).length}`,
    ],
  ])('key %s before the caller goes on', async (_, key) => {
    const { url, requests } = await server.start([CREATED]);
    const body = { id: 1, note: '' };
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/orders', idempotency: { key } });
    const expected = key({
      body,
      request: { bytes: new TextEncoder().encode(JSON.stringify(body)) },
    } as KeyInput);
    const pending = charge({ body });
    Object.assign(body, { id: 2, note: 'changed' });
    expect(await pending).toMatchObject({ key: expected });
    expect(requests[0]).toMatchObject({
      text: '{"id":1,"note":""}',
      headers: { 'idempotency-key': expected },
    });
  });

  it('key, which is chosen once', async () => {
    const { url, requests } = await server.start(twice);
    let asked = 0;
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: { key: async () => `key-${++asked}`, header: 'X-Request-Id' },
    });
    expect(await charge({ body: {} })).toMatchObject({ key: 'key-1', attempts: 3 });
    expect(requests.map(({ headers }) => headers['x-request-id'])).toEqual(['key-1', 'key-1', 'key-1']);
    for (const { headers } of requests) expect(headers).not.toHaveProperty('idempotency-key');
  });

  it('credentials, which are resolved once for each call', async () => {
    const { url, requests } = await server.start([...twice, CREATED]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      auth: apiKey('X-API-Key', env(TOKEN)),
      onAttempt: () => (process.env[TOKEN] = 'rotated'),
    });
    // Not there when the endpoint is declared.
    process.env[TOKEN] = 'first';
    await charge({ body: {} });
    await charge({ body: {} });
    expect(requests.map(({ headers }) => headers['x-api-key'])).toEqual([
      'first',
      'first',
      'first',
      'rotated',
    ]);
  });

  it('key that was given, and strategy is not asked', async () => {
    const { url, requests } = await server.start(twice);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {
        key: () => {
          throw new Error('asked');
        },
      },
    });
    expect(await charge({ body: {} }, { idempotencyKey: 'mine' })).toMatchObject({ key: 'mine' });
    expect(requests.map(({ headers }) => headers['idempotency-key'])).toEqual(['mine', 'mine', 'mine']);
  });

  it('headers, also where what stands in for fetch adds to them', async () => {
    const { url, requests } = await server.start(twice);
    let attempt = 0;
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      fetch: async (address, init) => {
        init.headers[`x-attempt-${++attempt}`] = 'true';
        return fetch(address, init);
      },
    });
    await charge({ body: {} });
    const added = requests.map(({ headers }) => Object.keys(headers).filter((name) => name.startsWith('x-')));
    expect(added).toEqual([['x-attempt-1'], ['x-attempt-2'], ['x-attempt-3']]);
  });

  it('also where a hundred calls run at once', async () => {
    const seen = new Map<string, number>();
    const { url, requests } = await server.start(({ text }) => {
      const times = (seen.get(text) ?? 0) + 1;
      seen.set(text, times);
      return times < 3 ? { status: 503 } : { body: JSON.parse(text) as unknown };
    });
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
    });
    const results = await Promise.all(Array.from({ length: 100 }, async (_, n) => charge({ body: { n } })));
    results.forEach(({ data, attempts }, n) =>
      expect({ data, attempts }).toEqual({ data: { n }, attempts: 3 }),
    );
    expect(new Set(results.map(({ key }) => key)).size).toBe(100);
    expect(requests).toHaveLength(300);
    for (const [n, { key }] of results.entries()) {
      const own = requests.filter(({ text }) => text === JSON.stringify({ n }));
      expect(own.map(({ headers }) => headers['idempotency-key'])).toEqual([key, key, key]);
    }
  });
});

describe('final after one request', () => {
  const script = (answer: ScriptedAnswer): ScriptedAnswer[] => [answer, { status: 201 }];

  it.each<[string, ScriptedAnswer, object]>([
    ['400', { status: 400, body: { message: 'no' } }, { code: 'CALL_REFUSED', effect: 'none' }],
    ['404', { status: 404 }, { code: 'CALL_REFUSED', effect: 'none' }],
    ['409', { status: 409, body: { code: 'VERSION_CONFLICT' } }, { code: 'CALL_REFUSED', effect: 'none' }],
    ['422', { status: 422, body: { code: 'AMOUNT_TOO_LARGE' } }, { code: 'CALL_REFUSED', effect: 'none' }],
    [
      '422 for a key that was used before',
      { status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } },
      { code: 'CALL_KEY_REUSED', effect: 'none' },
    ],
    [
      'a replayed error whose status is in retry.on',
      { status: 503, body: { code: 'DOWN' }, headers: { 'idempotency-replayed': 'true' } },
      { code: 'CALL_REFUSED', effect: 'unknown' },
    ],
    ['an error that is not in retry.on', { status: 501 }, { code: 'CALL_REFUSED', effect: 'unknown' }],
    ...[301, 302, 303, 307, 308].map((status): [string, ScriptedAnswer, object] => [
      `${status}, whose address is not gone to`,
      { status, headers: { location: '/elsewhere' } },
      { code: 'CALL_REFUSED', effect: 'unknown' },
    ]),
  ])('%s', async (_, answer, expected) => {
    const { url, requests } = await server.start(script(answer));
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 5, backoff: AT_ONCE },
      idempotency: {},
    });
    const { code } = expected as { code: 'CALL_REFUSED' };
    const error = await failureAs(AnswerError, code, charge({ body: {} }));
    expect(error).toMatchObject({ ...expected, attempts: 1, answer: { status: answer.status } });
    expect(requests).toHaveLength(1);
    expect(error.key).toBe(requests[0]?.headers['idempotency-key']);
  });
});
