import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  Body,
  Controller,
  Injectable,
  Param,
  Post,
  Put,
  UseInterceptors,
  UsePipes,
  type CallHandler,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
} from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import type { Observable } from 'rxjs';
import {
  ADAPTERS,
  startApp,
  type Adapter,
  type TestApp,
  type TestAppOptions,
} from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';

interface Mutable {
  [name: string]: unknown;
}

/** The bodies the handlers were called with. */
let seen: unknown[] = [];

@Injectable()
class MutatingInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const { body } = context.switchToHttp().getRequest<{ body: Mutable }>();
    body['addedByTheInterceptor'] = randomUUID();
    return next.handle();
  }
}

class MutatingPipe implements PipeTransform {
  transform(value: unknown): unknown {
    if (typeof value === 'object' && value !== null) (value as Mutable)['addedByThePipe'] = randomUUID();
    return value;
  }
}

@Controller()
class EchoController {
  @Post('echo')
  @Idempotent()
  echo(@Body() body: unknown): object {
    seen.push(body);
    return { id: randomUUID() };
  }

  @Put('things/:first/:second')
  @Idempotent()
  thing(@Param() parameters: object): object {
    seen.push(parameters);
    return { id: randomUUID() };
  }

  @Post('mutating')
  @Idempotent()
  @UseInterceptors(MutatingInterceptor)
  @UsePipes(MutatingPipe)
  mutating(@Body() body: Mutable): object {
    seen.push({ ...body });
    for (const name of Object.keys(body)) Reflect.deleteProperty(body, name);
    return { id: randomUUID() };
  }

  @Post('excluding')
  @Idempotent({ fingerprint: { exclude: ['sentAt', 'meta.attempt'] } })
  excluding(@Body() body: unknown): object {
    seen.push(body);
    return { id: randomUUID() };
  }

  @Post('computing')
  @Idempotent({
    fingerprint: {
      body: async ({ body }: { body: { order: string } }) => Promise.resolve(body.order),
    },
  })
  computing(@Body() body: unknown): object {
    seen.push(body);
    return { id: randomUUID() };
  }
}

const JSON_TYPE = 'application/json';

/** What is sent: by default `POST /echo` of JSON. */
interface Sent {
  readonly path?: string;
  readonly method?: string;
  readonly type?: string;
  readonly body?: string | Buffer;
}

const PARSED_TYPES = ['application/json', 'application/vnd.api+json'];
const TEXT_TYPES = ['text/plain', 'application/xml'];

interface FastifyInstance {
  removeContentTypeParser(type: string): void;
  addContentTypeParser(
    type: string | string[],
    options: { parseAs: 'buffer' },
    parser: (request: unknown, body: Buffer, done: (error: null, body: unknown) => void) => void,
  ): void;
}

/** The parsers that an application may add to those Nest brings. */
function addParsers(nest: Parameters<NonNullable<TestAppOptions['configure']>>[0], adapter: Adapter): void {
  if (adapter === 'express') {
    nest.useBodyParser('json', { type: PARSED_TYPES });
    nest.useBodyParser('text', { type: TEXT_TYPES });
    nest.useBodyParser('raw', { type: 'application/octet-stream' });
    return;
  }
  const fastify = nest.getHttpAdapter().getInstance() as unknown as FastifyInstance;
  const add = (type: string | string[], parse: (body: Buffer) => unknown): void =>
    fastify.addContentTypeParser(type, { parseAs: 'buffer' }, (_request, body, done) =>
      done(null, parse(body)),
    );
  fastify.removeContentTypeParser('text/plain');
  add('application/vnd.api+json', (body) => JSON.parse(body.toString()));
  add(TEXT_TYPES, (body) => body.toString());
  add('application/octet-stream', (body) => body);
}

describe.each(ADAPTERS)('the fingerprint (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;
  let key: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [EchoController],
      configure: (nest) => addParsers(nest, adapter),
    });
  });

  beforeEach(() => {
    seen = [];
    key = randomUUID();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = ({ path = '/echo', method = 'POST', type = JSON_TYPE, body }: Sent): Promise<HttpResponse> =>
    sendRequest(`${app.url}${path}`, {
      method,
      headers: { 'Idempotency-Key': key, ...(type === '' ? {} : { 'Content-Type': type }) },
      ...(body === undefined ? {} : { body }),
    });

  async function expectSame(first: Sent, second: Sent): Promise<void> {
    const original = await send(first);
    const replay = await send(second);
    expect(original.status).toBeLessThan(300);
    expect(replay.headers['idempotency-replayed']).toBe('true');
    expect(replay.text).toBe(original.text);
    expect(seen).toHaveLength(1);
  }

  async function expectDifferent(first: Sent, second: Sent): Promise<void> {
    const original = await send(first);
    const refusal = await send(second);
    expect(original.status).toBeLessThan(300);
    expect(refusal.status).toBe(422);
    expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
    expect(seen).toHaveLength(1);
    const replay = await send(first);
    expect(replay.text).toBe(original.text);
  }

  it.each<[string, Sent, Sent]>([
    ['another body', { body: '{"a":1}' }, { body: '{"a":2}' }],
    ['names in another case', { body: '{"a":1,"A":2}' }, { body: '{"a":2,"A":1}' }],
    ['an array in another order', { body: '[1,2]' }, { body: '[2,1]' }],
    ['a number in place of its text', { body: '{"a":1}' }, { body: '{"a":"1"}' }],
    ['null in place of nothing', { body: '{"a":null}' }, { body: '{}' }],
    ['a member more', { body: '{"a":1}' }, { body: '{"a":1,"b":1}' }],
    ['an empty object in place of no body', { body: '{}' }, { type: '' }],
    ['another query', { path: '/echo?dry=1', body: '{}' }, { path: '/echo?dry=0', body: '{}' }],
    ['no query', { path: '/echo?dry=1', body: '{}' }, { body: '{}' }],
    [
      'a query in another order',
      { path: '/echo?a=1&b=2', body: '{}' },
      { path: '/echo?b=2&a=1', body: '{}' },
    ],
    [
      'another path parameter',
      { method: 'PUT', path: '/things/1/2', body: '{}' },
      { method: 'PUT', path: '/things/2/1', body: '{}' },
    ],
    [
      'another media type of JSON',
      { body: '{"a":"1"}' },
      { type: 'application/vnd.api+json', body: '{"a":"1"}' },
    ],
    [
      'a form of the same fields',
      { body: '{"a":"1"}' },
      { type: 'application/x-www-form-urlencoded', body: 'a=1' },
    ],
    ['another text', { type: 'text/plain', body: 'one' }, { type: 'text/plain', body: 'two' }],
    ['text with other white space', { type: 'text/plain', body: '{ }' }, { type: 'text/plain', body: '{}' }],
    ['XML in place of text', { type: 'text/plain', body: '<a/>' }, { type: 'application/xml', body: '<a/>' }],
    ['text in place of JSON', { body: '{"a":1}' }, { type: 'text/plain', body: '{"a":1}' }],
    [
      'other bytes that are no UTF-8',
      { type: 'application/octet-stream', body: Buffer.from([0xff, 0]) },
      { type: 'application/octet-stream', body: Buffer.from([0xfe, 0]) },
    ],
  ])('refuses %s under the same key, and nothing runs', async (_what, first, second) => {
    await expectDifferent(first, second);
  });

  it.each<[string, Sent, Sent]>([
    [
      'members in another order and other white space',
      { body: '{"b":{"y":1,"x":[1,2]},"a":"ü"}' },
      { body: ' {\n"a" : "\\u00fc" ,"b":{"x":[ 1,2 ],"y":1.0}}\t' },
    ],
    [
      'a parameter of the media type',
      { body: '{}' },
      { type: 'Application/JSON; charset=utf-8', body: '{}' },
    ],
    ['no body at all', { type: '' }, { type: '' }],
    ['the same text', { type: 'text/plain', body: 'ü' }, { type: 'text/plain', body: 'ü' }],
    [
      'a form in another order',
      { type: 'application/x-www-form-urlencoded', body: 'a=1&b=2&b=3' },
      { type: 'application/x-www-form-urlencoded', body: 'b=2&b=3&a=1' },
    ],
    [
      'other excluded fields',
      { path: '/excluding', body: '{"a":1,"sentAt":1,"meta":{"attempt":1,"by":"me"}}' },
      { path: '/excluding', body: '{"a":1,"meta":{"by":"me","attempt":2}}' },
    ],
    [
      'another body of the same computed value',
      { path: '/computing', body: '{"order":"7","nonce":1}' },
      { path: '/computing', body: '{"order":"7","nonce":2}' },
    ],
  ])('knows a retry with %s', async (_what, first, second) => {
    await expectSame(first, second);
  });

  it.each<[string, Sent, Sent]>([
    [
      'a field beside the excluded ones',
      { path: '/excluding', body: '{"a":1,"meta":{"attempt":1,"by":"me"}}' },
      { path: '/excluding', body: '{"a":1,"meta":{"attempt":1,"by":"you"}}' },
    ],
    [
      'an excluded name elsewhere',
      { path: '/excluding', body: '{"a":{"sentAt":1}}' },
      { path: '/excluding', body: '{"a":{"sentAt":2}}' },
    ],
    [
      'another computed value',
      { path: '/computing', body: '{"order":"7"}' },
      { path: '/computing', body: '{"order":"8"}' },
    ],
    [
      'another query beside a computed value',
      { path: '/computing?a=1', body: '{"order":"7"}' },
      { path: '/computing?a=2', body: '{"order":"7"}' },
    ],
  ])('still counts %s', async (_what, first, second) => {
    await expectDifferent(first, second);
  });

  it('is taken before a handler, an interceptor or a pipe changes the body', async () => {
    const body = '{"a":1}';
    await expectSame({ path: '/mutating', body }, { path: '/mutating', body });
    expect(seen[0]).toMatchObject({ a: 1, addedByTheInterceptor: expect.any(String) });
    expect(seen[0]).toHaveProperty('addedByThePipe');
    const refusal = await send({ path: '/mutating', body: '{}' });
    expect(refusal.status).toBe(422);
  });

  it('takes JSON as deep as the parsers take it', async () => {
    // As much as Express' parser takes of bytes.
    const levels = 16_000;
    for (const [open, value, close] of [
      ['[', '', ']'],
      ['[1,', '"x"', ']'],
      ['{"a":', '1', '}'],
    ] as const) {
      key = randomUUID();
      const body = (inside: string): string =>
        `${open.repeat(levels / 4)}${inside}${close.repeat(levels / 4)}`;
      expect((await send({ body: body(value) })).status).toBe(201);
      expect((await send({ body: body(value) })).headers['idempotency-replayed']).toBe('true');
      expect((await send({ body: body('2') })).status).toBe(422);
    }
  });
});
