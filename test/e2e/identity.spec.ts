import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Controller, Param, Post, Put, Version, VersioningType, VERSION_NEUTRAL } from '@nestjs/common';
import { clientFromHeader, clientFromUser, Idempotent } from 'nestjs-pg-idempotency';
import { createHash, randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';

/** The client is what the request says, so that tests can choose it. */
const byName = (({ headers }: IncomingMessage) => headers['x-client']) as () => string | undefined;

@Controller()
@Idempotent()
class EndpointsController {
  @Post('orders')
  orders(): object {
    return { id: randomUUID() };
  }

  @Put('orders')
  replaceOrders(): object {
    return { id: randomUUID() };
  }

  @Post(['first', 'second'])
  alternatives(): object {
    return { id: randomUUID() };
  }

  @Post('labels/:label/reprint')
  reprint(@Param('label') label: string): object {
    return { id: randomUUID(), label };
  }

  @Post('named/one')
  @Idempotent({ endpoint: 'e|x' })
  namedOne(): object {
    return { id: randomUUID() };
  }

  @Post('named/two')
  @Idempotent({ endpoint: 'e' })
  namedTwo(): object {
    return { id: randomUUID() };
  }

  @Post('keyed')
  @Idempotent({ client: clientFromHeader('X-API-Key') })
  keyed(): object {
    return { id: randomUUID() };
  }

  @Post('mine')
  @Idempotent({ client: clientFromUser((user: { id: number }) => user.id) })
  mine(): object {
    return { id: randomUUID() };
  }
}

@Controller('versioned')
@Idempotent()
class VersionedController {
  @Post()
  @Version('1')
  one(): object {
    return { version: '1', id: randomUUID() };
  }

  @Post()
  @Version(['2', '3', VERSION_NEUTRAL])
  twoAndThree(): object {
    return { version: '2 and 3', id: randomUUID() };
  }
}

describe.each(ADAPTERS)('an identity (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;
  let key: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [EndpointsController, VersionedController],
      idempotency: { client: byName },
      configure: (nest) => {
        nest.enableVersioning({
          type: VersioningType.HEADER,
          header: 'X-Version',
          defaultVersion: VERSION_NEUTRAL,
        });
      },
    });
  });

  beforeEach(() => {
    key = randomUUID();
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (
    path: string,
    headers: Readonly<Record<string, string>> = {},
    method = 'POST',
  ): Promise<HttpResponse> => {
    const lines = { 'X-Client': 'tests', 'Idempotency-Key': key, ...headers };
    return postJson(`${app.url}/${path}`, {}, lines, { method });
  };

  const endpoints = async (): Promise<string[]> => {
    const rows = await database.query<{ endpoint: string }>(
      'SELECT endpoint FROM idempotency_records WHERE key = $1 ORDER BY endpoint',
      [key],
    );
    return rows.map(({ endpoint }) => endpoint);
  };

  /** Every one of them ran by itself, and is replayed to its own retry. */
  async function expectIndependent(...senders: (() => Promise<HttpResponse>)[]): Promise<void> {
    const originals: HttpResponse[] = [];
    for (const sender of senders) originals.push(await sender());
    for (const { status, headers } of originals) {
      expect(status).toBeLessThan(300);
      expect(headers['idempotency-replayed']).toBeUndefined();
    }
    expect(new Set(originals.map(({ text }) => text)).size).toBe(senders.length);
    for (const [index, sender] of senders.entries()) {
      const replay = await sender();
      expect(replay.headers['idempotency-replayed']).toBe('true');
      expect(replay.text).toBe(originals[index]!.text);
    }
  }

  it('separates clients', async () => {
    await expectIndependent(
      () => send('orders', { 'X-Client': 'a' }),
      () => send('orders', { 'X-Client': 'b' }),
    );
  });

  it('separates endpoints by path and by method', async () => {
    await expectIndependent(
      () => send('orders'),
      () => send('orders', {}, 'PUT'),
      () => send('labels/1/reprint'),
    );
    expect(await endpoints()).toEqual(['POST /labels/:/reprint', 'POST /orders', 'PUT /orders']);
  });

  it('separates the paths of one handler', async () => {
    await expectIndependent(
      () => send('first'),
      () => send('second'),
    );
    expect(await endpoints()).toEqual(['POST /first', 'POST /second']);
  });

  it('separates parts that would be equal when glued together', async () => {
    await expectIndependent(
      () => send('orders', { 'X-Client': 'a|b', 'Idempotency-Key': `c-${key}` }),
      () => send('orders', { 'X-Client': 'a', 'Idempotency-Key': `b|c-${key}` }),
    );
    await expectIndependent(
      () => send('named/one', { 'Idempotency-Key': key }),
      () => send('named/two', { 'Idempotency-Key': `x|${key}` }),
    );
    await expectIndependent(
      () => send('named/two', { 'X-Client': 'c', 'Idempotency-Key': key }),
      () => send('named/one', { 'X-Client': 'c|e', 'Idempotency-Key': key }),
    );
  });

  it('separates versions, also those of one handler', async () => {
    await expectIndependent(
      () => send('versioned', { 'X-Version': '1' }),
      () => send('versioned', { 'X-Version': '2' }),
      () => send('versioned', { 'X-Version': '3' }),
      () => send('versioned'),
    );
    expect(await endpoints()).toEqual([
      'POST /versioned',
      'POST /versioned (version 1)',
      'POST /versioned (version 2)',
      'POST /versioned (version 3)',
    ]);
  });

  it('does not separate the values of a path parameter, which are the request', async () => {
    expect((await send('labels/1/reprint')).status).toBe(201);
    expect((await send('labels/2/reprint')).status).toBe(422);
  });

  it('keeps an API key only as its hash', async () => {
    await expectIndependent(
      () => send('keyed', { 'X-API-Key': 'sk_live_first' }),
      () => send('keyed', { 'X-API-Key': 'sk_live_second' }),
    );
    const rows = await database.query<{ client: string; row: string }>(
      `SELECT client, idempotency_records::text || coalesce(convert_from(response_body, 'UTF8'), '') AS row
         FROM idempotency_records WHERE key = $1`,
      [key],
    );
    const hash = (value: string): string => createHash('sha256').update(value).digest('hex');
    expect(rows.map(({ client }) => client).sort()).toEqual(
      [hash('sk_live_first'), hash('sk_live_second')].sort(),
    );
    for (const { row } of rows) expect(row).not.toContain('sk_live');
  });

  it.each([
    ['no client resolver gives a name', 'orders', { 'X-Client': '' }],
    ['the API key is absent', 'keyed', {}],
    ['the API key is empty', 'keyed', { 'X-API-Key': '' }],
    ['there is no user', 'mine', {}],
    ['the client is longer than can be stored', 'orders', { 'X-Client': 'x'.repeat(513) }],
  ])('is refused when %s', async (_when, path, headers: Record<string, string>) => {
    const refusal = await send(path, headers);
    expect(refusal.status).toBe(401);
    expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_CLIENT_UNRESOLVED' });
    expect(await endpoints()).toEqual([]);
  });
});
