import { afterEach, describe, expect, it } from '@jest/globals';
import {
  apiKey,
  CallError,
  createClient,
  DeclarationError,
  resource,
  unchecked,
  type ClientOptions,
} from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs } from '../../helpers/client-calls.js';
import { serverOfTest } from '../../helpers/client-server.js';

const server = serverOfTest(afterEach);

const title = unchecked<{ title: string }>();

function support(baseUrl: string, options: Partial<ClientOptions> = {}) {
  return createClient(
    { baseUrl, idempotency: {}, headers: { 'X-A': 'client', 'X-B': 'client' }, ...options },
    {
      ping: { method: 'GET', path: '/ping' },
      tickets: resource('/tickets', {
        create: { method: 'POST', input: title, headers: { 'x-b': 'operation' } },
        list: { method: 'GET' },
        update: { method: 'PATCH', path: '/:id', input: title },
        close: { method: 'POST', path: '/{id}:close' },
        plain: { method: 'POST', path: '/plain', idempotency: false, retry: { attempts: 1 } },
        own: { method: 'POST', path: '/own', idempotency: { header: 'X-Own' } },
        messages: resource('/:ticketId/messages', {
          create: { method: 'POST', input: unchecked<{ text: string }>() },
          remove: { method: 'DELETE', path: '/:messageId' },
        }),
      }),
    },
  );
}

describe('a client', () => {
  it('puts values into the path in its order, then the body, then the options', async () => {
    const { url, requests } = await server.start(() => ({}));
    const client = support(url);
    await client.ping();
    await client.tickets.create({ title: 'a' }, { idempotencyKey: 'mine' });
    await client.tickets.list({ query: { page: 2 }, headers: { 'x-a': 'call' } });
    await client.tickets.update('a/b', { title: 'b' });
    await client.tickets.close(7);
    await client.tickets.messages.create(7, { text: 'c' });
    await client.tickets.messages.remove(7, 8, { idempotencyKey: 'gone' });
    expect(requests.map(({ method, url: path, text }) => [method, path, text])).toEqual([
      ['GET', '/ping', ''],
      ['POST', '/tickets', '{"title":"a"}'],
      ['GET', '/tickets?page=2', ''],
      ['PATCH', '/tickets/a%2Fb', '{"title":"b"}'],
      ['POST', '/tickets/7:close', ''],
      ['POST', '/tickets/7/messages', '{"text":"c"}'],
      ['DELETE', '/tickets/7/messages/8', ''],
    ]);
    expect(requests[1]?.headers).toMatchObject({
      'idempotency-key': 'mine',
      'x-a': 'client',
      'x-b': 'operation',
    });
    expect(requests[2]?.headers).toMatchObject({ 'x-a': 'call', 'x-b': 'client' });
    expect(requests[6]?.headers).toMatchObject({ 'idempotency-key': 'gone' });
  });

  it('gives a key to what writes, unless an operation says otherwise', async () => {
    const { url, requests } = await server.start(() => ({}));
    const { tickets } = support(url);
    const keys = [
      await tickets.create({ title: 'a' }),
      await tickets.list(),
      await tickets.plain(),
      await tickets.own({ idempotencyKey: 'mine' }),
    ].map(({ key }) => key);
    expect(keys).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), undefined, undefined, 'mine']);
    expect(requests.map(({ headers }) => [headers['idempotency-key'], headers['x-own']])).toEqual([
      [keys[0], undefined],
      [undefined, undefined],
      [undefined, undefined],
      [undefined, 'mine'],
    ]);
  });

  it('has retry, credentials and hooks for all of its operations', async () => {
    const { url, requests } = await server.start([{ status: 503 }, {}]);
    const saved: string[] = [];
    const client = support(url, {
      retry: { backoff: AT_ONCE },
      auth: apiKey('X-API-Key', 's3cret'),
      saveKey: ({ key }) => saved.push(key),
    });
    const { attempts, key } = await client.tickets.create({ title: 'a' });
    expect({ attempts, saved }).toEqual({ attempts: 2, saved: [key] });
    expect(requests.map(({ headers }) => headers['x-api-key'])).toEqual(['s3cret', 's3cret']);
  });

  it('refuses values that a path cannot have, before anything is sent', async () => {
    const { url } = await server.start([]);
    const { tickets } = support(url);
    for (const id of ['', '..', undefined as unknown as string]) {
      await failureAs(CallError, 'CALL_INPUT_INVALID', tickets.update(id, { title: 'a' }));
    }
    expect(server.connections).toBe(0);
  });

  it('takes no body for options where an operation has no input', async () => {
    const { url } = await server.start([]);
    const close = support(url).tickets.close as (...args: unknown[]) => Promise<unknown>;
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', close(7, { title: 'a' }));
    expect(error.message).toContain('unknown option title');
    expect(server.connections).toBe(0);
  });

  it('refuses more arguments than an operation takes', async () => {
    const { tickets } = support('http://127.0.0.1');
    const update = tickets.update as (...args: unknown[]) => Promise<unknown>;
    await expect(update(7, { title: 'a' }, {}, {})).rejects.toThrow(DeclarationError);
    await expect(update(7, { title: 'a' }, {}, {})).rejects.toThrow('update takes 2 arguments and options');
  });
});

describe('a client is refused', () => {
  const base = { baseUrl: 'https://api.example.com' };

  it.each<[string, () => unknown]>([
    [
      'POST with retry and without idempotency',
      () => createClient({ ...base, retry: {} }, { create: { method: 'POST', path: '/a' } }),
    ],
    [
      'POST with retry and without idempotency',
      () =>
        createClient(
          { ...base, retry: {}, idempotency: {} },
          { create: { method: 'POST', path: '/a', idempotency: false } },
        ),
    ],
    [
      'path /a/:id/b/:id names a parameter twice',
      () =>
        createClient(base, { a: resource('/a/:id', { b: resource('/b/:id', { get: { method: 'GET' } }) }) }),
    ],
    [
      'path tickets must begin with "/"',
      () => createClient(base, { tickets: resource('tickets', { list: { method: 'GET' } }) }),
    ],
    [
      'endpoint has no field retries',
      () => createClient(base, { list: { method: 'GET', path: '/a', retries: 3 } as never }),
    ],
    [
      'endpoint has no field tries',
      () => createClient({ ...base, tries: 3 } as never, { list: { method: 'GET' } }),
    ],
  ])('for: %s', (message, declare) => {
    expect(declare).toThrow(DeclarationError);
    expect(declare).toThrow(message);
  });
});
