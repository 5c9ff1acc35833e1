import { afterEach, describe, expect, it } from '@jest/globals';
import {
  CallError,
  endpoint,
  type AttemptReport,
  type CallHooks,
  type PendingCall,
} from 'nestjs-pg-idempotency/client';
import { runTypeScript } from '../../helpers/child-process.js';
import { AT_ONCE, failureAs, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest, startScriptedServer } from '../../helpers/client-server.js';

const server = serverOfTest(afterEach);

describe('saveKey', () => {
  it('is awaited before a connection is made, first that of the declaration, then that of the call', async () => {
    const running = await server.start([{ status: 503 }, { status: 201 }]);
    const seen: [string, string, number][] = [];
    const save =
      (who: string): CallHooks['saveKey'] =>
      async ({ key }) => {
        // A round trip on the same loop: a request that was not held back would have been heard of by now.
        const probe = await startScriptedServer([{}]);
        await fetch(probe.url).then(async (response) => response.text());
        await probe.close();
        seen.push([who, key, running.connections]);
      };
    const charge = endpoint({
      method: 'POST',
      baseUrl: running.url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      saveKey: save('declaration'),
    });
    const { key, attempts } = await charge({ body: {} }, { saveKey: save('call') });
    // Once for the call, not for each attempt.
    expect(attempts).toBe(2);
    expect(seen).toEqual([
      ['declaration', key, 0],
      ['call', key, 0],
    ]);
    expect(running.connections).toBeGreaterThan(0);
  });

  it('is told all that a later process needs to go on', async () => {
    const { url, requests } = await server.start([{ cut: 'before' }, { status: 201 }]);
    const saved: string[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/shops/:shop/charges',
      idempotency: {},
      saveKey: (call) => void saved.push(JSON.stringify(call)),
    });
    const error = await failureAs(
      CallError,
      'CALL_NETWORK_FAILED',
      charge({
        params: { shop: 'a b' },
        query: { ref: 'x' },
        headers: { 'X-Trace': '1' },
        body: { at: new Date(0), none: undefined },
      }),
    );
    const pending = JSON.parse(saved[0]!) as PendingCall;
    expect(pending).toEqual({
      key: error.key,
      method: 'POST',
      url: `${url}/shops/a%20b/charges?ref=x`,
      input: {
        params: { shop: 'a b' },
        query: { ref: 'x' },
        headers: { 'X-Trace': '1' },
        body: { at: '1970-01-01T00:00:00.000Z' },
      },
    });
    const input = pending.input as { params: { shop: string } };
    expect(await charge(input, { idempotencyKey: pending.key })).toMatchObject({ status: 201 });
    expect(requests[1]).toEqual(requests[0]);
  });

  it('is told the query as it was when the call was made', async () => {
    const { url, requests } = await server.start([{}]);
    const saved: unknown[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      idempotency: {},
      saveKey: ({ input }) => void saved.push(input),
    });
    const tag = ['a', 'b'];
    const call = charge({ query: { tag } });
    tag.push('late');
    await call;
    expect(requests[0]?.url).toBe('/charges?tag=a&tag=b');
    expect(saved).toMatchObject([{ query: { tag: ['a', 'b'] } }]);
  });

  it('is not called without a key', async () => {
    const { url } = await server.start([{ status: 201 }]);
    const saved: unknown[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      saveKey: (call) => void saved.push(call),
    });
    await charge({ body: {} });
    expect(saved).toEqual([]);
  });

  const failing: [string, CallHooks['saveKey']][] = [
    [
      'throws',
      () => {
        throw new Error('disk full');
      },
    ],
    ['rejects', async () => Promise.reject(new Error('disk full'))],
  ];

  it.each(failing)('that %s keeps everything from being sent', async (_, saveKey) => {
    const { url } = await server.start([]);
    const declared = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {}, saveKey });
    const plain = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    for (const call of [
      declared({ body: {} }, { idempotencyKey: 'mine' }),
      plain({ body: {} }, { idempotencyKey: 'mine', saveKey }),
    ]) {
      const error = await failureAs(CallError, 'CALL_KEY_NOT_SAVED', call);
      expect(error).toMatchObject({
        effect: 'none',
        attempts: 0,
        key: 'mine',
        cause: { message: 'disk full' },
      });
      expect(error.message).toContain('could not be saved, and nothing was sent: disk full');
    }
    expect(server.connections).toBe(0);
  });
});

describe('onAttempt', () => {
  it('is told of each attempt, by the declaration and by the call', async () => {
    const { url } = await server.start([{ status: 503 }, { cut: 'before' }, { status: 201 }]);
    const declared = recordAttempts();
    const called = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      onAttempt: declared.onAttempt,
    });
    const { key } = await charge({ body: { card: '4242' } }, { onAttempt: called.onAttempt });
    const shared = {
      method: 'POST',
      url: `${url}/charges`,
      key,
      duration: expect.any(Number),
    };
    expect(called.reports).toEqual([
      {
        ...shared,
        attempt: 1,
        outcome: { kind: 'answer', status: 503, replayed: false },
        next: { kind: 'retry', pause: expect.any(Number) },
      },
      {
        ...shared,
        attempt: 2,
        outcome: { kind: 'network-failed', cause: expect.anything() },
        next: { kind: 'retry', pause: expect.any(Number) },
      },
      {
        ...shared,
        attempt: 3,
        outcome: { kind: 'answer', status: 201, replayed: false },
        next: { kind: 'return' },
      },
    ]);
    expect(declared.reports).toEqual(called.reports);
  });

  it('changes nothing, whatever it does', async () => {
    const { url } = await server.start(
      Array(6).fill({ status: 503 }).with(2, { status: 201 }).with(5, { status: 201 }),
    );
    // In a process of its own, which a rejection that nobody handles would end.
    const child = runTypeScript(
      `import { endpoint } from './lib/client/index.ts';
       const call = (onAttempt) =>
         endpoint({
           method: 'POST', baseUrl: process.env.SERVER, path: '/', idempotency: {},
           retry: { backoff: { base: 1, max: 1 } }, onAttempt,
         })({ body: {} }, { onAttempt });
       const { attempts: one } = await call(() => { throw new Error('thrown'); });
       const { attempts: other } = await call(async () => { throw new Error('rejected'); });
       await new Promise((resolve) => setImmediate(resolve));
       console.log(one, other);`,
      { SERVER: url },
    );
    const exited = new Promise((resolve) => child.process.once('exit', resolve));
    expect(await child.nextLine()).toBe('3 3');
    expect(await exited).toBe(0);
  });

  it('is not waited for', async () => {
    const { url } = await server.start([{ status: 503 }, { status: 201 }]);
    const reports: AttemptReport[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
      onAttempt: async (report: AttemptReport) => {
        reports.push(report);
        return new Promise<void>(() => undefined);
      },
    });
    expect(await charge({ body: {} })).toMatchObject({ attempts: 2 });
    expect(reports).toHaveLength(2);
  });
});
