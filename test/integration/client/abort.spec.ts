import { getEventListeners } from 'node:events';
import { afterEach, describe, expect, it } from '@jest/globals';
import { CallError, endpoint, type EndpointDeclaration } from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest } from '../../helpers/client-server.js';
import { deferred } from '../../helpers/conditions.js';
import { runTypeScript } from '../../helpers/child-process.js';

const server = serverOfTest(afterEach);

type Part = Partial<EndpointDeclaration<'POST', '/charges', undefined, undefined>>;

function charging(baseUrl: string, part: Part = {}): (signal: AbortSignal) => Promise<unknown> {
  const charge = endpoint({ method: 'POST', baseUrl, path: '/charges', idempotency: {}, ...part });
  return async (signal) => charge({ body: {} }, { signal });
}

describe("the caller's signal", () => {
  it('serves as many calls as there are, without a word of a leak', async () => {
    const { url } = await server.start(() => ({ status: 201, body: {} }));
    const controller = new AbortController();
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    const call = charging(url);
    await Promise.all(Array.from({ length: 40 }, () => call(controller.signal)));
    expect(getEventListeners(controller.signal, 'abort').length).toBeLessThanOrEqual(1);
    await new Promise(setImmediate);
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });

  it('that is aborted already asks nobody and sends nothing', async () => {
    const { url } = await server.start([]);
    const asked: string[] = [];
    const call = charging(url, {
      auth: () => ({ asked: String(asked.push('auth')) }),
      idempotency: { key: () => String(asked.push('key')) },
      saveKey: () => void asked.push('saveKey'),
    });
    const error = await failureAs(CallError, 'CALL_ABORTED', call(AbortSignal.abort('why')));
    expect(error).toMatchObject({ effect: 'none', attempts: 0, cause: 'why' });
    expect(error.message).toBe('CALL_ABORTED: POST /charges was aborted by its caller.');
    expect(asked).toEqual([]);
    expect(server.connections).toBe(0);
  });

  it('stops a call before anything is sent', async () => {
    const { url } = await server.start([]);
    const controller = new AbortController();
    const call = charging(url, {
      auth: async () => {
        controller.abort();
        return new Promise(() => undefined);
      },
    });
    const error = await failureAs(CallError, 'CALL_ABORTED', call(controller.signal));
    expect(error).toMatchObject({ effect: 'none', attempts: 0 });
    expect(server.connections).toBe(0);
  });

  it.each<[string, () => unknown]>([
    ['never comes to its end', async () => new Promise(() => undefined)],
    ['comes to its end all the same', () => undefined],
  ])('stops a call whose saveKey %s, and whoever finds the key would send it', async (_, end) => {
    const { url } = await server.start([]);
    const controller = new AbortController();
    const saved: string[] = [];
    const call = charging(url, {
      saveKey: ({ key }) => {
        saved.push(key);
        controller.abort();
        return end();
      },
    });
    const error = await failureAs(CallError, 'CALL_ABORTED', call(controller.signal));
    expect(error).toMatchObject({ effect: 'unknown', key: saved[0], attempts: 0 });
    expect(server.connections).toBe(0);
  });

  it('stops a call whose request is on its way, and breaks that off', async () => {
    const arrived = deferred();
    const { url, requests } = await server.start(() => {
      arrived.resolve();
      return { after: new Promise(() => undefined) };
    });
    const controller = new AbortController();
    const { reports, onAttempt } = recordAttempts();
    const signals: AbortSignal[] = [];
    const pending = charging(url, {
      retry: { backoff: AT_ONCE },
      onAttempt,
      fetch: async (address, init) => {
        signals.push(init.signal);
        return fetch(address, init);
      },
    })(controller.signal);
    await arrived.promise;
    controller.abort(new Error('enough'));
    const error = await failureAs(CallError, 'CALL_ABORTED', pending);
    expect(error).toMatchObject({ effect: 'unknown', attempts: 1, cause: { message: 'enough' } });
    expect(error.key).toBe(requests[0]?.headers['idempotency-key']);
    expect(error.message).toContain(`retry with key ${error.key ?? ''}`);
    expect(reports).toMatchObject([{ outcome: { kind: 'aborted' }, next: { kind: 'fail' } }]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    expect(requests).toHaveLength(1);
  });

  it.each([
    ['503', 'unknown'],
    ['429', 'none'],
  ])('stops a call between two attempts: after %s its effect is %s', async (status, effect) => {
    const { url, requests } = await server.start([{ status: Number(status) }, { status: 201 }]);
    const controller = new AbortController();
    const call = charging(url, {
      retry: { backoff: { base: '1h', max: '1h' } },
      timeout: { total: '500h' },
      onAttempt: () => controller.abort(),
    });
    const error = await failureAs(CallError, 'CALL_ABORTED', call(controller.signal));
    expect(error).toMatchObject({ effect, attempts: 1, key: requests[0]?.headers['idempotency-key'] });
    expect(requests).toHaveLength(1);
  });

  it('means nothing to a call that is over', async () => {
    const { url } = await server.start([{ status: 201, body: { id: 1 } }]);
    const controller = new AbortController();
    const result = await charging(url)(controller.signal);
    controller.abort();
    expect(result).toMatchObject({ data: { id: 1 } });
  });

  it('that is a time limit is told by its reason', async () => {
    const call = charging('http://127.0.0.1', { fetch: async () => new Promise(() => undefined) });
    const error = await failureAs(CallError, 'CALL_ABORTED', call(AbortSignal.timeout(20)));
    expect(error).toMatchObject({ effect: 'unknown', cause: { name: 'TimeoutError' } });
  });
});

describe('nothing is left behind', () => {
  it('on the signal of the caller, however its calls end', async () => {
    const { url } = await server.start(
      (_, index) => [{ status: 201 }, { status: 400 }, { status: 503 }][index % 3]!,
    );
    const { signal } = new AbortController();
    const call = charging(url, { retry: { backoff: AT_ONCE } });
    const calls = Array.from({ length: 10 }, async () => call(signal));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    await Promise.allSettled(calls);
    await failureAs(CallError, 'CALL_KEY_INVALID', charging(url, { idempotency: { key: () => '' } })(signal));
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('that keeps a process: no timer outlives its call', async () => {
    const { url } = await server.start((_, index) => (index === 0 ? { status: 503 } : { status: 201 }));
    const child = runTypeScript(
      `import { endpoint } from './lib/client/index.ts';
       const call = (part) =>
         endpoint({
           method: 'POST', baseUrl: process.env.SERVER, path: '/', idempotency: {},
           retry: { attempts: 3, backoff: { base: 1, max: 1 } }, timeout: { total: '1h', perAttempt: '1h' }, ...part,
         })({ body: {} }).catch(({ code }) => ({ code }));
       const { attempts } = await call({});
       const { code: aborted } = await endpoint({
         method: 'POST', baseUrl: process.env.SERVER, path: '/', idempotency: {},
         fetch: () => new Promise(() => undefined), timeout: { total: '1h' },
       })({}, { signal: AbortSignal.timeout(20) }).catch((error) => error);
       const { code: late } = await call({ timeout: { total: 20 }, auth: () => new Promise(() => undefined) });
       const { code: refused } = await call({ idempotency: { key: () => '' } });
       const timers = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
       console.log(JSON.stringify({ attempts, aborted, late, refused, timers }));`,
      { SERVER: url },
    );
    const exited = new Promise((resolve) => child.process.once('exit', resolve));
    expect(JSON.parse(await child.nextLine())).toEqual({
      attempts: 2,
      aborted: 'CALL_ABORTED',
      late: 'CALL_TIMED_OUT',
      refused: 'CALL_KEY_INVALID',
      timers: 0,
    });
    // By itself: a handle that is left would hold it for an hour.
    expect(await exited).toBe(0);
  });
});
