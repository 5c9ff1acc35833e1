import { afterEach, describe, expect, it } from '@jest/globals';
import { apiKey, bearer, CallError, endpoint, type Auth } from 'nestjs-pg-idempotency/client';
import { failureOf } from '../../helpers/client-calls.js';
import { serverOfTest, startScriptedServer, type ScriptedServer } from '../../helpers/client-server.js';

const server = serverOfTest(afterEach);
let elsewhere: ScriptedServer | undefined;

afterEach(async () => {
  await elsewhere?.close();
  elsewhere = undefined;
});

interface Given {
  readonly auth?: Auth;
  readonly headers?: Readonly<Record<string, string>>;
}

const reading = (baseUrl: string, given: Given): Promise<{ data: unknown }> =>
  endpoint({ method: 'GET', baseUrl, path: '/charges', ...given })({});

const CREDENTIALS: [string, Given, string][] = [
  ['a token', { auth: bearer('s3cret') }, 'authorization'],
  ['a key', { auth: apiKey('X-API-Key', 's3cret') }, 'x-api-key'],
  ['a name that sounds like none', { auth: async () => ({ 'x-who': 's3cret' }) }, 'x-who'],
  ['a header of the declaration', { headers: { 'X-Access-Token': 's3cret' } }, 'x-access-token'],
  ['a cookie', { headers: { Cookie: 's3cret' } }, 'cookie'],
];

describe('a redirection of a read', () => {
  it.each(CREDENTIALS)('takes %s along within its origin, and nowhere else', async (_what, given, name) => {
    elsewhere = await startScriptedServer([{ body: { from: 'elsewhere' } }]);
    const away = elsewhere.url;
    const { url } = await server.start([
      { status: 302, headers: { location: '/moved' } },
      { status: 307, headers: { location: `${away}/charges` } },
    ]);
    expect((await reading(url, given)).data).toEqual({ from: 'elsewhere' });
    expect(server.requests.map((request) => [request.url, request.headers[name]])).toEqual([
      ['/charges', expect.stringContaining('s3cret')],
      ['/moved', expect.stringContaining('s3cret')],
    ]);
    expect(elsewhere.requests).toHaveLength(1);
    expect(JSON.stringify(elsewhere.requests[0]!.headers)).not.toContain('s3cret');
    expect(elsewhere.requests[0]!.headers.accept).toBe('application/json');
  });

  it('does not take them up again on its way back', async () => {
    const { url } = await server.start(({ url: path }) =>
      path === '/charges'
        ? { status: 301, headers: { location: `${elsewhere!.url}/away` } }
        : { body: { at: path } },
    );
    elsewhere = await startScriptedServer([{ status: 301, headers: { location: `${url}/back` } }]);
    expect((await reading(url, { auth: bearer('s3cret') })).data).toEqual({ at: '/back' });
    expect(server.requests[1]!.headers.authorization).toBeUndefined();
  });

  it.each([
    ['in a circle', '/charges'],
    ['nowhere', 'ftp://127.0.0.1/charges'],
  ])('fails that leads %s', async (_where, location) => {
    const { url } = await server.start(() => ({ status: 302, headers: { location } }));
    expect(await failureOf(reading(url, { auth: bearer('s3cret') }))).toBeInstanceOf(CallError);
    expect(server.requests.length).toBeLessThanOrEqual(21);
  });

  it('is an answer where it says nothing of where', async () => {
    const { url } = await server.start([{ status: 302 }]);
    expect(await failureOf(reading(url, { auth: bearer('s3cret') }))).toMatchObject({ code: 'CALL_REFUSED' });
  });
});
