import { describe, expect, it } from '@jest/globals';
import {
  clientFromHeader,
  clientFromUser,
  IdempotencyModule,
  IdempotencyUsageError,
  sharedClient,
  type IdempotencyModuleOptions,
} from 'nestjs-pg-idempotency';
import { validateRouteOptions } from '../../lib/idempotency.options.validation.js';

const client = sharedClient('tests');

/** What forRoot() says to options that the compiler would have refused as well. */
function refusal(options: unknown): string {
  return messageOf(() => IdempotencyModule.forRoot(options as IdempotencyModuleOptions));
}

function routeRefusal(options: unknown): string {
  return messageOf(() => validateRouteOptions(options, '@Idempotent() on Orders.create'));
}

function messageOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(IdempotencyUsageError);
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_OPTIONS_INVALID' });
    return (error as Error).message;
  }
  return 'accepted';
}

/** An option of module and route, a value that it must not have, and what the error must say about it. */
type BadValue = [option: string, value: unknown, remedy: RegExp];

const DURATION = /must be a positive number of milliseconds or a string such as '30s' or '24h'/;
const SHARED: BadValue[] = [
  ['client', 'x-api-key', /must be a function of the request|must be set.*clientFromUser/],
  ['client', null, /clientFromUser/],
  ...[0, -1, 1.5, Number.NaN, Infinity, '24', '24 hours', 'soon', '', null, true, {}].map(
    (value): BadValue => ['ttl', value, DURATION],
  ),
  ...[0, '25d', 2 ** 31, 'PT1M', null].map((value): BadValue => ['maxDuration', value, DURATION]),
  ['key', 'Idempotency-Key', /must be an object/],
  ['key', [], /must be an object/],
  ['key', null, /must be an object/],
  ['key.header', 'Idempotency Key', /must be a header name/],
  ['key.header', '', /must be a header name/],
  ['key.header', 7, /must be a header name/],
  ['key.minLength', 0, /must not be less than 1/],
  ['key.minLength', 1.5, /must be an integer/],
  ['key.maxLength', 1025, /must not be greater than 1024/],
  ['key.maxLength', '256', /must be an integer/],
  ['key.pattern', '[a-z]+', /must be a regular expression/],
  ['key.pattern', /[a-z]+/g, /must not have the flags g or y/],
  ['key.pattern', /[a-z]+/y, /must not have the flags g or y/],
  ['key.required', 'no', /must be a boolean/],
  ['key.lenght', 3, /unknown option.*known are body, from, header, maxLength, minLength, pattern, required/],
  ['fingerprint', () => 'x', /must be an object/],
  ['fingerprint', 'raw', /must be an object/],
  ['fingerprint', null, /must be an object/],
  ['fingerprint.exclude', 'sentAt', /must be an array/],
  ['fingerprint.exclude', [''], /should not be empty/],
  ['fingerprint.exclude', [7], /must be a string/],
  [
    'fingerprint.body',
    'bytes',
    /must be 'parsed', 'raw' or a function of the request that returns a string or bytes/,
  ],
  ['fingerprint.headers', 'Stripe-Account', /must be an array/],
  ['fingerprint.headers', ['Stripe Account'], /must be a header name/],
  ['fingerprint.headers', ['X-Tenant', 'x-tenant'], /unique/],
  ['fingerprint.excluded', [], /unknown option.*known are body, exclude, headers/],
  ['response', 201, /must be an object/],
  [
    'response.statuses',
    'below-400',
    /must be a function of the status, or a list of statuses from 200 to 499/,
  ],
  ['response.statuses', [], /from 200 to 499/],
  ['response.statuses', [500], /from 200 to 499/],
  ['response.statuses', [100], /from 200 to 499/],
  ['response.statuses', ['201'], /from 200 to 499/],
  ['response.headers', 'x-a', /must be an object/],
  ['response.headers', ['x-a'], /must be an object/],
  ['response.headers.allow', 'x-a', /must be an array/],
  ['response.headers.allow', ['x a'], /must be a header name/],
  [
    'response.headers.allow',
    ['Set-Cookie'],
    /cookies, authentication or hop-by-hop headers: they are never stored/,
  ],
  ['response.headers.deny', 'x-a', /must be an array/],
  ['response.headers.deny', [''], /must be a header name/],
  ['response.headers.denied', [], /unknown option.*known are allow, deny/],
  ['response.maxSize', '1MB', /must be an integer/],
  ['response.maxSize', 0, /must not be less than 1/],
  ['response.maxSize', 2 ** 30, /must not be greater than 267386880/],
  ['response.body', true, /unknown option.*known are headers, maxSize, statuses/],
  ['errors', { body: {} }, /must be a function of the error that returns \{ body \}/],
  [
    'isolation',
    'serializable',
    /must be one of the following values: READ COMMITTED, REPEATABLE READ, SERIALIZABLE/,
  ],
  ['tll', '24h', /unknown option.*known are .*ttl/],
];

const MODULE_ONLY: BadValue[] = [
  ...['x', 0, '25d', null].map((value): BadValue => ['acquireTimeout', value, DURATION]),
  ['documentation', '/errors', /must be an absolute URL/],
  ['documentation', 'https://example.com/#errors', /without a fragment/],
  ['documentation', 7, /must be an absolute URL/],
  ['table', '', /must be a name of 1 to 51 bytes/],
  ['table', 't'.repeat(52), /must be a name of 1 to 51 bytes/],
  ['table', 'é'.repeat(26), /must be a name of 1 to 51 bytes/],
  ['table', 'a\0b', /must be a name/],
  ['schema', '', /must be a name of 1 to 63 bytes/],
  ['schema', 's'.repeat(64), /must be a name of 1 to 63 bytes/],
  ['schema', 7, /must be a name/],
  ['dataSource', '', /must be the name of a DataSource, a DataSource, or options for one/],
  ['dataSource', 7, /must be the name of a DataSource/],
  ['dataSource', null, /must be the name of a DataSource/],
  ['purge', true, /must be an object/],
  ['purge', null, /must be an object/],
  ['purge', 'daily', /must be an object/],
  ['purge.interval', 'often', DURATION],
  ['purge.interval', '13d', DURATION],
  ['purge.batchSize', 0, /must not be less than 1/],
  ['purge.batchSize', 100_001, /must not be greater than 100000/],
  ['purge.batch', 5, /unknown option.*known are batchSize, interval/],
  ['allowAsynchronousCommit', 'yes', /must be a boolean/],
  ['preparedStatements', 1, /must be a boolean/],
  ['preparedStatements', 'all', /must be a boolean/],
  ['preparedStatements', null, /must be a boolean/],
  ['tuning', {}, /unknown option.*known are/],
  ['endpoint', 'orders', /unknown option.*known are/],
];

const ROUTE_ONLY: BadValue[] = [
  ['endpoint', '', /must be a name of 1 to 512 bytes/],
  ['endpoint', 'e'.repeat(513), /must be a name of 1 to 512 bytes/],
  ['endpoint', 7, /must be a name of 1 to 512 bytes/],
  ['table', 'records', /unknown option/],
  ['purge', false, /unknown option/],
  ['preparedStatements', false, /unknown option/],
];

describe('options of the module', () => {
  it.each([...SHARED, ...MODULE_ONLY])('refuse %s: %p', (option, value, remedy) => {
    const message = refusal(option === 'client' ? { client: value } : { client, ...nested(option, value) });
    expect(message).toContain('IdempotencyModule.forRoot()');
    expect(message).toContain(`option "${option}"`);
    expect(message).toMatch(remedy);
  });

  it('need a client, and say how it can be told', () => {
    const message = refusal({});
    for (const remedy of [
      'option "client"',
      'clientFromUser(',
      "clientFromHeader('X-API-Key')",
      'sharedClient(',
    ])
      expect(message).toContain(remedy);
  });

  it.each([undefined, null, 'options', [], () => client])('refuse %p in place of options', (options) => {
    expect(refusal(options)).toContain('must be an object');
  });

  it('name everything that is wrong at once', () => {
    const message = refusal({ client, ttl: 0, key: { header: '', colour: 'red' }, table: '' });
    for (const option of ['"ttl"', '"key.header"', '"key.colour"', '"table"'])
      expect(message).toContain(option);
  });

  it('refuse a shortest key that is longer than the longest', () => {
    expect(refusal({ client, key: { minLength: 9, maxLength: 8 } })).toContain(
      'option "key.minLength" must not be greater than "key.maxLength"',
    );
  });

  it.each<Partial<IdempotencyModuleOptions>>([
    {},
    { ttl: 1 },
    { ttl: ' 1.5 h ' },
    { ttl: '365d', maxDuration: '24d', acquireTimeout: '250 ms' },
    { ttl: undefined, key: undefined, response: { maxSize: undefined, headers: { allow: undefined } } },
    { client: clientFromHeader('X-API-Key') },
    { client: clientFromUser((user: { id: number }) => user.id) },
    { client: async () => undefined },
    { key: { header: 'X-Request-Key', minLength: 8, maxLength: 8, pattern: /^[a-f]+$/iu, required: false } },
    { fingerprint: { body: 'raw' } },
    { fingerprint: { exclude: ['meta.sentAt'], body: 'parsed', headers: ['Stripe-Account'] } },
    { fingerprint: { body: () => new Uint8Array() } },
    {
      response: {
        statuses: [200, 201, 499],
        headers: { allow: ['X-Request-Id'], deny: ['etag'] },
        maxSize: 1,
      },
    },
    { response: { statuses: (status) => status < 300 } },
    { errors: ({ code }) => ({ body: { code } }), documentation: 'https://example.com/errors' },
    { table: 'T'.repeat(51), schema: 's'.repeat(63) },
    { table: 'it"s; DROP TABLE' },
    { purge: false },
    { purge: {} },
    { purge: { interval: '12d', batchSize: 100_000 } },
    { preparedStatements: false },
    { preparedStatements: true },
    { preparedStatements: undefined },
    { isolation: 'SERIALIZABLE', allowAsynchronousCommit: true, dataSource: 'other' },
    { dataSource: { type: 'postgres', url: 'postgres://localhost' } },
  ])('accept %j', (options) => {
    expect(refusal({ client, ...options })).toBe('accepted');
  });
});

describe('options of a route', () => {
  it.each([...SHARED, ...ROUTE_ONLY])('refuse %s: %p', (option, value, remedy) => {
    const message = routeRefusal(nested(option, value));
    expect(message).toContain('@Idempotent() on Orders.create');
    expect(message).toContain(`option "${option}"`);
    if (option !== 'client') expect(message).toMatch(remedy);
    else expect(message).toContain('clientFromUser(');
  });

  it('need nothing', () => {
    expect(routeRefusal({})).toBe('accepted');
    expect(routeRefusal({ endpoint: 'e'.repeat(512), ttl: '1m', client: undefined })).toBe('accepted');
  });
});

/** `{ a: { b: value } }` for `a.b`. */
function nested(path: string, value: unknown): object {
  return path.split('.').reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as object;
}
