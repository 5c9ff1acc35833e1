import { describe, expect, it } from '@jest/globals';
import { typeErrorsOfConsumer } from '../../helpers/client-types.js';

const CONSUMER = `
  import { AnswerError, CallError, bearer, createClient, endpoint, env, resource, unchecked } from 'nestjs-pg-idempotency/client';
  const charge = endpoint({
    method: 'POST', baseUrl: 'https://api.example.com', path: '/shops/:shop/charges',
    input: unchecked<{ amount: number }>(), output: unchecked<{ id: string }>(),
    retry: { attempts: 3 }, idempotency: {}, auth: bearer(env('API_TOKEN')),
    fetch: (url, init) => fetch(url, { ...init, credentials: 'include' }),
    saveKey: ({ key }) => void key,
  });
  const controller = new AbortController();
  const { data, headers } = await charge({ params: { shop: 1 }, body: { amount: 1 } }, { signal: controller.signal });
  export const id: string = data.id + headers.get('etag');
  export const status = (error: unknown) =>
    error instanceof AnswerError ? error.answer.status : error instanceof CallError ? error.attempts : 0;
  const client = createClient({ baseUrl: '/api', idempotency: {} }, {
    tickets: resource('/tickets', { update: { method: 'PATCH', path: '/:id', input: unchecked<{ title: string }>() } }),
  });
  await client.tickets.update(7, { title: 'a' }, { idempotencyKey: 'b' });
`;

const MISTAKE = `
  import { endpoint } from 'nestjs-pg-idempotency/client';
  endpoint({ method: 'GET', baseUrl: '', path: '/', idempotency: {} });
`;

describe.each([
  ['a browser, without the types of Node.js', { lib: ['ES2022', 'DOM'], types: [] }],
  ['Node.js, without the types of a browser', { lib: ['ES2023'], types: ['node'] }],
])('on %s', (_, platform) => {
  it('the client compiles, sources and all, and so does who uses it', () => {
    expect(typeErrorsOfConsumer(CONSUMER, platform)).toEqual([]);
  });

  it('a mistake is noticed', () => {
    expect(typeErrorsOfConsumer(MISTAKE, platform)).toEqual([
      "consumer.ts: Type '{}' is not assignable to type 'undefined'.",
    ]);
  });
});

describe('this test', () => {
  it('notices what only Node.js has', () => {
    const source = `${CONSUMER}\nexport const bytes = Buffer.from('a');`;
    expect(typeErrorsOfConsumer(source, { lib: ['ES2022', 'DOM'], types: [] })).toEqual([
      expect.stringMatching(/^consumer\.ts: Cannot find name 'Buffer'/),
    ]);
  });

  it('notices a platform that the sources cannot do without', () => {
    const errors = typeErrorsOfConsumer(CONSUMER, { lib: ['ES2022'], types: [] });
    expect(errors.filter((error) => error.startsWith('lib/client/'))).not.toEqual([]);
  });
});
