import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  AnswerError,
  CallError,
  endpoint,
  SchemaError,
  type EndpointDeclaration,
  type StandardSchema,
} from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest } from '../../helpers/client-server.js';
import { deferred } from '../../helpers/conditions.js';

const server = serverOfTest(afterEach);

async function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

/** A schema that is given its `validate`. */
function schema(validate: (value: unknown) => unknown): StandardSchema {
  return { '~standard': { version: 1, vendor: 'test', validate: validate as never } };
}

type Part = Partial<
  EndpointDeclaration<'POST', '/charges', StandardSchema | undefined, StandardSchema | undefined>
>;

async function charge(baseUrl: string, part: Part, body: unknown = {}): Promise<unknown> {
  return endpoint({ method: 'POST', baseUrl, path: '/charges', idempotency: {}, ...part })({ body });
}

describe('the total limit', () => {
  const timeout = { total: 50 };

  it.each<[string, Part]>([
    ['auth', { auth: never }],
    ['a key strategy', { idempotency: { key: never } }],
    ['an input schema', { input: schema(never) }],
  ])('ends a call whose %s never comes to an end, and nothing is sent', async (_, part) => {
    const { url } = await server.start([]);
    const error = await failureAs(CallError, 'CALL_TIMED_OUT', charge(url, { timeout, ...part }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0 });
    expect(error.message).toBe('CALL_TIMED_OUT: POST /charges was not done within 50 ms.');
    expect(server.connections).toBe(0);
  });

  it('ends a call whose saveKey never comes to an end: who finds the key would send it', async () => {
    const { url } = await server.start([]);
    const idempotency = { key: () => 'mine' };
    const call = charge(url, { timeout, idempotency, saveKey: never });
    const error = await failureAs(CallError, 'CALL_TIMED_OUT', call);
    expect(error).toMatchObject({ effect: 'unknown', key: 'mine', attempts: 0 });
    expect(error.message).toContain('The outcome is unknown: retry with key mine.');
    expect(server.connections).toBe(0);
  });

  it('ends a call whose body is a stream that never ends', async () => {
    const { url } = await server.start([]);
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge(url, { timeout }, new ReadableStream()),
    );
    expect(error).toMatchObject({ effect: 'none', attempts: 0 });
    expect(server.connections).toBe(0);
  });

  it('ends a call that gets no answer, and says that the write may have happened', async () => {
    const { url } = await server.start(() => ({ after: never() }));
    const { reports, onAttempt } = recordAttempts();
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge(url, { timeout, onAttempt, retry: {} }),
    );
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1 });
    expect(error.message).toBe(
      `CALL_TIMED_OUT: POST /charges was not done within 50 ms. The outcome is unknown: retry with key ${error.key ?? ''}.`,
    );
    expect(reports).toMatchObject([{ outcome: { kind: 'timed-out' }, next: { kind: 'fail' } }]);
  });

  it('ends a call whose fetch does not listen to its signal', async () => {
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge('http://127.0.0.1', { timeout, fetch: never }),
    );
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1 });
  });

  it('ends a call whose answer never ends', async () => {
    const fetch = async (): Promise<Response> => new Response(new ReadableStream(), { status: 201 });
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge('http://127.0.0.1', { timeout, fetch }),
    );
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1 });
  });

  it('ends a call whose output schema never comes to an end, and says that the write happened', async () => {
    const { url } = await server.start([{ status: 201, body: {} }]);
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge(url, { timeout: { total: '2s' }, output: schema(never) }),
    );
    expect(error).toMatchObject({ effect: 'done', attempts: 1 });
    expect(error.message).toContain('The write happened: do not send it again under another key.');
  });

  it('is not outlasted by a saveKey that is late: what was never sent is not kept', async () => {
    const { url } = await server.start([]);
    const credentials = deferred<Record<string, string>>();
    const saved: string[] = [];
    const call = charge(url, {
      timeout,
      auth: async () => credentials.promise,
      saveKey: ({ key }) => void saved.push(key),
    });
    await failureAs(CallError, 'CALL_TIMED_OUT', call);
    credentials.resolve({});
    // Longer than the chain of promises that would still end in saveKey.
    await new Promise((resolve) => setImmediate(resolve));
    expect(saved).toEqual([]);
    expect(server.connections).toBe(0);
  });

  it('begins no pause that would not end in time, and fails with the answer it has', async () => {
    const { url, requests } = await server.start([
      { status: 503, headers: { 'retry-after': '31' } },
      { status: 201 },
    ]);
    const { reports, onAttempt } = recordAttempts();
    const error = await failureAs(AnswerError, 'CALL_REFUSED', charge(url, { onAttempt, retry: {} }));
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1, answer: { status: 503 } });
    expect(reports).toMatchObject([{ next: { kind: 'fail' } }]);
    expect(requests).toHaveLength(1);
  });

  it('begins no wait for the first request that would not end in time', async () => {
    const { url, requests } = await server.start([
      { status: 409, headers: { 'retry-after': '31' }, body: { code: 'IDEMPOTENCY_IN_PROGRESS' } },
      { status: 201 },
    ]);
    const error = await failureAs(AnswerError, 'CALL_IN_PROGRESS', charge(url, {}));
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1, answer: { status: 409 } });
    expect(error.message).toContain(`retry with key ${error.key ?? ''}`);
    expect(requests).toHaveLength(1);
  });
});

describe('the limit of one attempt', () => {
  it('counts for each attempt, also where fetch does not listen to its signal', async () => {
    const { reports, onAttempt } = recordAttempts();
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge('http://127.0.0.1', {
        timeout: { perAttempt: 20 },
        retry: { attempts: 3, backoff: AT_ONCE },
        fetch: never,
        onAttempt,
      }),
    );
    expect(error).toMatchObject({ effect: 'unknown', attempts: 3 });
    expect(error.message).toContain('POST /charges got no answer in time after 3 attempts.');
    expect(reports.map(({ outcome, next }) => [outcome.kind, next.kind])).toEqual([
      ['timed-out', 'retry'],
      ['timed-out', 'retry'],
      ['timed-out', 'fail'],
    ]);
  });

  it('covers the answer to its last byte', async () => {
    const fetch = async (): Promise<Response> => new Response(new ReadableStream(), { status: 201 });
    const error = await failureAs(
      CallError,
      'CALL_TIMED_OUT',
      charge('http://127.0.0.1', { timeout: { perAttempt: 20 }, fetch }),
    );
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1 });
  });

  it('tells fetch to let go of the connection', async () => {
    const signals: AbortSignal[] = [];
    const call = charge('http://127.0.0.1', {
      timeout: { perAttempt: 20 },
      retry: { attempts: 2, backoff: AT_ONCE },
      fetch: async (_, { signal }) => {
        signals.push(signal);
        return never();
      },
    });
    await failureAs(CallError, 'CALL_TIMED_OUT', call);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
    expect(new Set(signals).size).toBe(2);
  });
});

describe('a schema whose promise is none of ours', () => {
  const answered = { value: { id: 'checked' } };
  const PROMISES: [string, () => unknown][] = [
    ['of another realm', () => runInNewContext('Promise.resolve({ value: { id: "checked" } })') as unknown],
    ['that is only thenable', () => ({ then: (resolve: (value: unknown) => void) => resolve(answered) })],
  ];

  it.each(PROMISES)('is waited for, before a request and after: %s', async (_what, promise) => {
    const { url } = await server.start([{ status: 201, body: { id: 'sent' } }]);
    const parts = { input: schema(promise), output: schema(promise) };
    const { data } = (await charge(url, parts)) as { data: unknown };
    expect(server.requests[0]!.text).toBe('{"id":"checked"}');
    expect(data).toEqual({ id: 'checked' });
  });
});

describe('a schema that throws', () => {
  const failing = schema(() => {
    throw new Error('out of order');
  });

  it('fails the call before anything is sent, where it is for the input', async () => {
    const { url } = await server.start([]);
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', charge(url, { input: failing }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0, cause: { message: 'out of order' } });
    expect(server.connections).toBe(0);
  });

  it.each([
    ['throws', failing],
    ['rejects', schema(async () => Promise.reject(new Error('out of order')))],
  ])('fails the call of a write that happened, where it is for the output and %s', async (_, output) => {
    const { url } = await server.start([{ status: 201, body: {} }]);
    const error = await failureAs(SchemaError, 'CALL_OUTPUT_INVALID', charge(url, { output }));
    expect(error).toMatchObject({ effect: 'done', attempts: 1, cause: { message: 'out of order' } });
  });
});
