import { Readable } from 'node:stream';
import { inspect } from 'node:util';
import { type } from 'arktype';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  apiKey,
  AnswerError,
  bearer,
  bodyFingerprintKey,
  CallError,
  derivedKey,
  endpoint,
  SchemaError,
  type AttemptReport,
  type Auth,
  type StandardSchema,
} from 'nestjs-pg-idempotency/client';
import * as v from 'valibot';
import { z } from 'zod';
import { AT_ONCE, failureAs, failureOf, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest, type ScriptedAnswer } from '../../helpers/client-server.js';

const server = serverOfTest(afterEach);

describe('a result', () => {
  it.each<[string, ScriptedAnswer, unknown]>([
    ['JSON', { body: { id: 1 } }, { id: 1 }],
    ['JSON of a type of its own', { body: '[1]', headers: { 'content-type': 'application/x+json' } }, [1]],
    ['text', { body: 'done', headers: { 'content-type': 'text/plain' } }, 'done'],
    ['bytes', { body: Buffer.of(0, 255), headers: { 'content-type': 'image/png' } }, Uint8Array.of(0, 255)],
    ['nothing', { headers: { 'content-type': 'application/json' } }, undefined],
    ['204', { status: 204 }, undefined],
  ])('has %s as data', async (_, answer, data) => {
    const { url } = await server.start([answer]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    expect((await charge()).data).toEqual(data);
  });

  it('of HEAD has status and headers', async () => {
    const { url } = await server.start([{ headers: { etag: '"7"', 'content-type': 'application/json' } }]);
    const result = await endpoint({ method: 'HEAD', baseUrl: url, path: '/charges' })();
    expect(result).toMatchObject({ status: 200, data: undefined, key: undefined, attempts: 1 });
    expect(result.headers.get('etag')).toBe('"7"');
  });

  it('of a first run is not replayed, and has no time where the server tells none', async () => {
    const { url, requests } = await server.start([{ status: 201 }]);
    const result = await endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} })();
    expect(result).toEqual({
      status: 201,
      data: undefined,
      headers: expect.anything(),
      key: requests[0]?.headers['idempotency-key'],
      replayed: false,
      attempts: 1,
      createdAt: undefined,
    });
  });

  it('of a replay says so, and when the original ran', async () => {
    const { url } = await server.start([
      { headers: { 'Idempotent-Replayed': 'true', 'X-Ran-At': '2026-01-02T03:04:05.678Z' } },
    ]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: { responseHeaders: { replayed: 'idempotent-replayed', createdAt: 'x-ran-at' } },
    });
    expect(await charge()).toMatchObject({
      replayed: true,
      createdAt: new Date('2026-01-02T03:04:05.678Z'),
    });
  });

  it('that calls itself JSON and is none is an error of a write that happened', async () => {
    const body = '<html>';
    const { url } = await server.start([{ body, headers: { 'content-type': 'application/json' } }]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    const error = await failureAs(SchemaError, 'CALL_OUTPUT_INVALID', charge());
    expect(error).toMatchObject({ effect: 'done', attempts: 1 });
    expect(error.message).toContain('POST /charges answered with a body that is no JSON.');
  });
});

describe.each<[string, StandardSchema, StandardSchema]>([
  [
    'zod',
    z.object({ amount: z.number().int(), ref: z.string().trim() }),
    z.object({ id: z.string(), at: z.string().transform((text) => new Date(text)) }),
  ],
  [
    'valibot',
    v.object({ amount: v.pipe(v.number(), v.integer()), ref: v.pipe(v.string(), v.trim()) }),
    v.object({
      id: v.string(),
      at: v.pipe(
        v.string(),
        v.transform((text) => new Date(text)),
      ),
    }),
  ],
  [
    'arktype',
    type({ amount: 'number.integer', ref: 'string.trim' }),
    type({ id: 'string', at: 'string.date.parse' }),
  ],
])('schemas of %s', (_, input, output) => {
  it('make what is sent of what is given, and the data of what comes back', async () => {
    const { url, requests } = await server.start([{ body: { id: 'a', at: '2026-01-02T03:04:05.000Z' } }]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: { key: derivedKey(({ body }) => [(body as { ref: string }).ref.length]) },
      input,
      output,
    });
    const result = await charge({ body: { amount: 1, ref: ' a ' } });
    expect(result.data).toEqual({ id: 'a', at: new Date('2026-01-02T03:04:05.000Z') });
    expect(requests[0]?.text).toBe('{"amount":1,"ref":"a"}');
    // The strategy has seen what was given.
    expect(result.key).toBe('3');
  });

  it('refuse an input before anybody is asked for a key or credentials', async () => {
    const { url } = await server.start([]);
    const asked: string[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: { key: () => `key ${asked.push('key')}` },
      auth: () => ({ x: String(asked.push('auth')) }),
      saveKey: () => void asked.push('saveKey'),
      input,
    });
    const error = await failureAs(
      SchemaError,
      'CALL_INPUT_INVALID',
      charge({ body: { amount: '1', ref: '' } }),
    );
    expect(error).toMatchObject({ effect: 'none', attempts: 0, key: undefined });
    expect(error.issues).toHaveLength(1);
    expect(error.message).toMatch(/the body of POST \/charges does not match its input schema: amount: /);
    expect(asked).toEqual([]);
    expect(server.connections).toBe(0);
  });

  it('refuse an output, and say that the write happened', async () => {
    const { url, requests } = await server.start([
      { status: 201, body: { id: 7, at: '2026-01-02T03:04:05.000Z' } },
    ]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      output,
    });
    const error = await failureAs(SchemaError, 'CALL_OUTPUT_INVALID', charge({ body: {} }));
    expect(error).toMatchObject({
      effect: 'done',
      attempts: 1,
      key: requests[0]?.headers['idempotency-key'],
    });
    expect(error.message).toMatch(/answered with a body that does not match the output schema: id: /);
    expect(error.message).toContain('The write happened: do not send it again under another key.');
    expect(requests).toHaveLength(1);
  });

  it('refuse the output of a call that only reads, which wrote nothing', async () => {
    const { url } = await server.start([{ body: {} }]);
    const get = endpoint({ method: 'GET', baseUrl: url, path: '/charges/1', output });
    expect(await failureAs(SchemaError, 'CALL_OUTPUT_INVALID', get())).toMatchObject({ effect: 'none' });
  });
});

describe('an asynchronous schema', () => {
  it('is waited for', async () => {
    const { url, requests } = await server.start([{ body: 1 }]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: {},
      input: z.string().transform(async (text) => text.toUpperCase()),
      output: z.number().transform(async (number) => number + 1),
    });
    expect(await charge({ body: 'a' })).toMatchObject({ data: 2 });
    expect(requests[0]?.text).toBe('"A"');
  });
});

describe('a request', () => {
  it('has the address of base, path, parameters and query', async () => {
    const { url, requests } = await server.start([{}]);
    const get = endpoint({ method: 'GET', baseUrl: `${url}/v1/`, path: '/shops/:shop/charges/{id}' });
    await get({
      params: { shop: 'a/b', id: 7 },
      query: { ref: 'x y&z', page: 2, all: false, none: undefined, tag: ['a', 'b'], empty: [] },
    });
    expect(requests[0]?.url).toBe('/v1/shops/a%2Fb/charges/7?ref=x+y%26z&page=2&all=false&tag=a&tag=b');
  });

  it('has each header once: of the call before those of the declaration, then credentials, then the key', async () => {
    const { url, requests } = await server.start([{}]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      headers: {
        Accept: 'application/x+json',
        'X-A': 'declared',
        'X-B': 'declared',
        AUTHORIZATION: 'declared',
      },
      auth: bearer('s3cret'),
      idempotency: {},
    });
    await charge(
      {
        headers: {
          'x-a': 'called',
          authorization: 'called',
          'idempotency-key': 'called',
          'Content-Type': 'a/b',
        },
        body: {},
      },
      { idempotencyKey: 'given' },
    );
    expect(requests[0]?.headers).toMatchObject({
      accept: 'application/x+json',
      'x-a': 'called',
      'x-b': 'declared',
      authorization: 'Bearer s3cret',
      'idempotency-key': 'given',
      'content-type': 'a/b',
    });
  });

  it('asks for JSON unless it says otherwise', async () => {
    const { url, requests } = await server.start([{}]);
    await endpoint({ method: 'GET', baseUrl: url, path: '/' })();
    expect(requests[0]?.headers.accept).toBe('application/json');
  });

  it('is refused for a parameter that is missing or unknown', async () => {
    const { url } = await server.start([]);
    const path: string = '/charges/:id';
    const get = endpoint({ method: 'GET', baseUrl: url, path });
    for (const params of [{}, { id: '' }, { id: '..' }, { id: 1, other: 2 }] as Record<string, string>[]) {
      const error = await failureAs(CallError, 'CALL_INPUT_INVALID', get({ params }));
      expect(error).toMatchObject({ effect: 'none', attempts: 0 });
      expect(error.message).toMatch(/cannot be sent: (parameter id of )?the path/);
    }
    expect(server.connections).toBe(0);
  });

  it.each<[string, unknown]>([
    ['a promise that nobody awaited', Promise.resolve({ amount: 4200 })],
    ['a Map', new Map([['amount', 4200]])],
    ['a Set', new Set([4200])],
    ['a stream of Node.js', Readable.from(['{"amount":4200}'])],
    ['a form of a library', { [Symbol.toStringTag]: 'FormData' }],
  ])('is refused for %s as its body, of which JSON would make {}', async (_what, body) => {
    const { url } = await server.start([]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', charge({ body }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0 });
    expect(server.connections).toBe(0);
  });

  it('is refused for an option that it would ignore, such as a misspelt key', async () => {
    const { url } = await server.start([]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    const options = { idempotency_key: 'order-7' } as object;
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', charge({ body: {} }, options));
    expect(error.message).toContain('unknown option idempotency_key');
    expect(server.connections).toBe(0);
  });
});

describe('a key', () => {
  it.each([
    ['', 'is empty'],
    ['ü', 'does not match'],
    ['x'.repeat(257), 'has 257 characters, the most is 256'],
    [undefined, 'is not a string'],
  ])('%j is refused, chosen or given', async (key, fault) => {
    const { url } = await server.start([]);
    const idempotency = { key: () => key as string };
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency });
    const calls = [charge(), ...(key === undefined ? [] : [charge({}, { idempotencyKey: key })])];
    for (const call of calls) {
      const error = await failureAs(CallError, 'CALL_KEY_INVALID', call);
      expect(error).toMatchObject({ effect: 'none', attempts: 0 });
      expect(error.message).toContain(`the key of POST /charges ${fault}`);
    }
    expect(server.connections).toBe(0);
  });

  it('is held to the rules of the server', async () => {
    const charge = endpoint({
      method: 'POST',
      baseUrl: 'http://127.0.0.1',
      path: '/charges',
      idempotency: { rules: { minLength: 8, pattern: /^[a-z]+$/ } },
    });
    for (const idempotencyKey of ['abcdefg', 'ABCDEFGH']) {
      await failureAs(CallError, 'CALL_KEY_INVALID', charge({}, { idempotencyKey }));
    }
  });

  it('of an endpoint without idempotency is refused: it would not be sent', async () => {
    const charge = endpoint({ method: 'POST', baseUrl: 'http://127.0.0.1', path: '/charges' });
    const error = await failureAs(CallError, 'CALL_KEY_INVALID', charge({}, { idempotencyKey: 'mine' }));
    expect(error.message).toContain('has no idempotency, and would not send the key');
  });

  it('whose strategy fails is an error with its cause', async () => {
    const charge = endpoint({
      method: 'POST',
      baseUrl: 'http://127.0.0.1',
      path: '/charges',
      idempotency: { key: derivedKey(({ body }) => ['order', (body as { id?: string }).id]) },
    });
    const error = await failureAs(CallError, 'CALL_KEY_INVALID', charge({ body: {} }));
    expect(error).toMatchObject({
      cause: { message: 'part 2 of the derived key is missing, or neither text nor a number' },
    });
  });

  it('that is the fingerprint of what is sent is the same for the same', async () => {
    const { url } = await server.start(() => ({}));
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: { key: bodyFingerprintKey() },
    });
    const keys = [
      await charge({ body: { a: 1, b: 2 } }),
      await charge({ body: { b: 2, a: 1 } }),
      await charge({ body: { a: 1, b: 3 } }),
    ].map(({ key }) => key);
    expect(keys[1]).toBe(keys[0]);
    expect(keys[2]).not.toBe(keys[0]);
  });
});

describe('secrets', () => {
  const SECRET = 'sk_live_s3cret';

  it.each<[string, ScriptedAnswer[], Auth, object]>([
    ['a refusal', [{ status: 401 }], bearer(SECRET), {}],
    ['a network failure', [{ cut: 'before' }], apiKey('X-API-Key', SECRET), {}],
    ['an answer cut short', [{ body: 'x'.repeat(99), cut: 'within' }], bearer(SECRET), {}],
    ['a time-out', [{ after: new Promise(() => undefined) }], bearer(SECRET), { timeout: { total: 50 } }],
    ['an output that does not match', [{ body: 1 }], bearer(SECRET), { output: z.string() }],
    ['a secret that HTTP does not allow', [], bearer(`${SECRET}\n${SECRET}`), {}],
    ['a secret that is no Latin text', [], apiKey('X-API-Key', `${SECRET} ✓`), {}],
    ['a header that HTTP does not allow', [], apiKey('X API Key', SECRET), {}],
    [
      'a key that cannot be saved',
      [],
      bearer(SECRET),
      {
        saveKey: (): never => {
          throw new Error('disk full');
        },
      },
    ],
  ])('are nowhere in the error of %s', async (_, script, auth, part) => {
    const { url } = await server.start(script);
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: {},
      auth,
      onAttempt,
      ...part,
    });
    const error = await failureOf(charge({ body: {} }));
    expect(everythingOf(error, reports)).not.toContain(SECRET);
  });
});

/** All that a log could show of an error and of what was reported on the way. */
function everythingOf(error: CallError, reports: readonly AttemptReport[]): string {
  const shown: unknown[] = [error, reports];
  for (let cause: unknown = error; cause instanceof Object; cause = (cause as Error).cause) {
    const { message, stack } = cause as Error;
    shown.push(message, stack);
  }
  const deep = inspect(shown, {
    depth: Infinity,
    showHidden: true,
    maxArrayLength: null,
    maxStringLength: null,
  });
  return [deep, JSON.stringify(error), String(error)].join('\n');
}

describe('an error', () => {
  it('of an answer has all of it', async () => {
    const { url } = await server.start([
      {
        status: 402,
        body: { code: 'CARD_DECLINED' },
        headers: { 'idempotency-replayed': 'true', 'idempotency-created-at': '2026-01-02T03:04:05.000Z' },
      },
    ]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    const error = await failureAs(AnswerError, 'CALL_REFUSED', charge({ body: {} }));
    expect(error).toMatchObject({
      name: 'AnswerError',
      effect: 'none',
      message: 'CALL_REFUSED: POST /charges was answered 402 CARD_DECLINED, as recorded.',
      answer: {
        status: 402,
        body: { code: 'CARD_DECLINED' },
        replayed: true,
        createdAt: new Date('2026-01-02T03:04:05.000Z'),
      },
    });
    expect(error.answer.headers.get('idempotency-replayed')).toBe('true');
    expect(error).toBeInstanceOf(CallError);
  });

  it.each([503, 408])('after %d names the key to go on with', async (status) => {
    const { url } = await server.start([{ status }]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    const error = await failureAs(AnswerError, 'CALL_REFUSED', charge({}, { idempotencyKey: 'mine' }));
    expect(error).toMatchObject({ effect: 'unknown', key: 'mine' });
    expect(error.message).toContain('The outcome is unknown: retry with key mine.');
  });

  it('without a key says what to do instead', async () => {
    const { url } = await server.start([{ cut: 'before' }]);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges' });
    const error = await failureAs(CallError, 'CALL_NETWORK_FAILED', charge());
    expect(error).toMatchObject({ effect: 'unknown', key: undefined });
    expect(error.message).toContain(
      'without an idempotency key a retry may do it twice: look before you retry',
    );
  });

  it('of a key of another request is known by the code of another server', async () => {
    const { url } = await server.start([{ status: 422, body: { error: 'E_REUSED' } }]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: { codes: { keyReused: 'E_REUSED' } },
    });
    const error = await failureAs(AnswerError, 'CALL_KEY_REUSED', charge());
    expect(error.message).toContain('has the key of a different request (422 E_REUSED)');
  });

  it('of credentials that cannot be had is of a call that sent nothing', async () => {
    const { url } = await server.start([]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: {},
      auth: async () => Promise.reject(new Error('vault is sealed')),
    });
    const error = await failureAs(CallError, 'CALL_AUTH_UNAVAILABLE', charge({}, { idempotencyKey: 'mine' }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0, key: 'mine' });
    expect(error.cause).toMatchObject({ message: 'vault is sealed' });
    expect(error.message).toContain('POST /charges has no credentials: vault is sealed');
    expect(server.connections).toBe(0);
  });

  it('of a call that only reads has no effect, whatever happened', async () => {
    const { url } = await server.start([{ cut: 'before' }, { status: 500 }]);
    const list = endpoint({ method: 'GET', baseUrl: url, path: '/charges' });
    expect(await failureOf(list())).toMatchObject({ code: 'CALL_NETWORK_FAILED', effect: 'none' });
    expect(await failureOf(list())).toMatchObject({ code: 'CALL_REFUSED', effect: 'none' });
  });
});
