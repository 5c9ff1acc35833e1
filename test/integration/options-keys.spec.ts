import { describe, expect, it } from '@jest/globals';
import { Controller, Post } from '@nestjs/common';
import {
  Idempotent,
  IdempotencyModule,
  sharedClient,
  type IdempotencyModuleOptions,
  type IdempotentRouteOptions,
  type KeyOptions,
  type KeyReader,
} from 'nestjs-pg-idempotency';
import { startApp } from '../helpers/application.js';
import { createTestDatabase } from '../helpers/database.js';

type Options = Partial<Record<keyof IdempotencyModuleOptions, unknown>>;

const client = sharedClient('tests');
const forRoot = (options: Options): unknown =>
  IdempotencyModule.forRoot({ client, ...options } as IdempotencyModuleOptions);

const eventId: KeyReader<{ body: { id?: string } }> = ({ body }) => body.id;

const ACCEPTED: Options[] = [
  { key: { body: 'idempotencyKey' } },
  { key: { body: 'Idempotency-Key', header: undefined, from: undefined } },
  { key: { from: eventId, required: false, maxLength: 64 } },
  { answers: { reused: 422 } },
  { answers: { reused: 409, replay: 'original' } },
  ...[200, 201, 202, 203, 207, 299].map((replay) => ({ answers: { replay } })),
  { responseHeaders: false },
  { responseHeaders: {} },
  { responseHeaders: undefined },
  { responseHeaders: { key: 'X-Key', replayed: false, createdAt: 'Date-Of-Original' } },
  { responseHeaders: { key: false, replayed: false, createdAt: false } },
];

const ONE_SOURCE = 'option "key" must name one source: "header", "body" or "from"';

/** Options that are wrong, and what the error says of them. */
const REFUSED: [Options, string][] = [
  [{ key: { header: 'X-Key', body: 'key' } }, ONE_SOURCE],
  [{ key: { header: 'X-Key', from: eventId } }, ONE_SOURCE],
  [{ key: { body: 'key', from: eventId } }, ONE_SOURCE],
  ...[7, '', null, 'meta.key', ['key']].map((body): [Options, string] => [
    { key: { body } },
    'option "key.body" must be the name of a top-level field of the body, without a dot; for another place, use "key.from"',
  ]),
  ...['body.id', null, {}].map((from): [Options, string] => [
    { key: { from } },
    'option "key.from" must be a function of the request that returns the key or undefined',
  ]),
  [{ answers: { reused: 400 } }, 'option "answers.reused" must be one of the following values: 422, 409'],
  ...[204, 205, 206, 199, 300, 409, 200.5, '200', true, null].map((replay): [Options, string] => [
    { answers: { replay } },
    'option "answers.replay" must be \'original\' or a status from 200 to 299 but 204, 205 and 206',
  ]),
  [{ responseHeaders: true }, 'option "responseHeaders" must be an object'],
  [{ responseHeaders: null }, 'option "responseHeaders" must be an object'],
  [{ responseHeaders: 'X-Key' }, 'option "responseHeaders" must be an object'],
  [
    { responseHeaders: { echo: 'X-Key' } },
    'unknown option "responseHeaders.echo"; known are createdAt, key, replayed',
  ],
  ...['', 'X Key', 'X-Key:', true, 7, null].map((key): [Options, string] => [
    { responseHeaders: { key } },
    'option "responseHeaders.key" must be false or a header name',
  ]),
  ...['set-cookie', 'Connection', 'Content-Type', 'CONTENT-LENGTH', 'Date', 'Retry-After', 'Link'].map(
    (replayed): [Options, string] => [
      { responseHeaders: { replayed } },
      'option "responseHeaders.replayed" must be false or a header name',
    ],
  ),
  [
    { responseHeaders: { key: 'X-Same', createdAt: 'x-same' } },
    'option "responseHeaders" gives two headers the name "x-same"',
  ],
];

/** Marks a handler with options, in a controller with options, in an application with options. */
async function boot(
  databaseUrl: string,
  route: Options,
  { controller = {}, module = {} }: { controller?: Options; module?: Options } = {},
): Promise<void> {
  @Controller('routes')
  @Idempotent(controller as IdempotentRouteOptions)
  class RoutesController {
    @Post()
    @Idempotent(route as IdempotentRouteOptions)
    run(): void {
      // Never called.
    }
  }
  const app = await startApp({
    adapter: 'express',
    databaseUrl,
    controllers: [RoutesController],
    idempotency: module as Partial<IdempotencyModuleOptions>,
  });
  await app.close();
}

describe('options of keys, answers and response headers', () => {
  it.each(ACCEPTED)('accept %j', (options) => {
    expect(() => forRoot(options)).not.toThrow();
  });

  it.each(REFUSED)('refuse %j for the module', (options, message) => {
    expect(() => forRoot(options)).toThrow(
      `IDEMPOTENCY_OPTIONS_INVALID: IdempotencyModule.forRoot(): ${message}`,
    );
  });

  it('are refused for a route as for the module', async () => {
    const database = await createTestDatabase();
    try {
      for (const [options, message] of REFUSED) {
        await expect(boot(database.url, options)).rejects.toThrow(
          `@Idempotent() on RoutesController.run: ${message}`,
        );
      }
    } finally {
      await database.drop();
    }
  });

  it('may name another source in each layer, but no header twice in all of them together', async () => {
    const database = await createTestDatabase();
    try {
      await boot(
        database.url,
        { key: { from: eventId } },
        {
          controller: { key: { body: 'key' } },
          module: { key: { header: 'X-Key' } },
        },
      );
      const renamed = { responseHeaders: { replayed: 'idempotency-KEY' } };
      await expect(boot(database.url, renamed)).rejects.toThrow(
        'IDEMPOTENCY_OPTIONS_INVALID: @Idempotent() on RoutesController.run: option "responseHeaders" gives two headers ' +
          'the name "idempotency-key".',
      );
      await boot(database.url, renamed, { module: { responseHeaders: { key: false } } });
    } finally {
      await database.drop();
    }
  });

  it('are told apart by the compiler too', () => {
    const sources: KeyOptions[] = [
      {},
      { header: 'X-Key', minLength: 8 },
      { body: 'key', required: false },
      { from: eventId },
      // @ts-expect-error: a key has one source.
      { header: 'X-Key', body: 'key' },
      // @ts-expect-error: a key has one source.
      { body: 'key', from: eventId },
    ];
    expect(sources).toHaveLength(6);
  });
});
