import { connect } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  Body,
  Controller,
  HostParam,
  Param,
  Post,
  VERSION_NEUTRAL,
  VersioningType,
  type Type,
  type VersioningOptions,
} from '@nestjs/common';
import { RouteConstraints } from '@nestjs/platform-fastify';
import { Idempotent } from 'nestjs-pg-idempotency';
import {
  ADAPTERS,
  startApp,
  type Adapter,
  type TestApp,
  type TestAppOptions,
} from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, resetShop, Shop, shopState, type Order } from '../helpers/shop.js';

@Controller({ path: 'hosted', host: ':tenant.example.com' })
class TenantsController extends Shop {
  @Post()
  @Idempotent()
  create(@HostParam('tenant') tenant: string): Promise<Order> {
    return this.order(tenant);
  }
}

@Controller({ path: 'hosted', host: 'shop.example.org' })
class OneHostController extends Shop {
  @Post()
  @Idempotent()
  create(): Promise<Order> {
    return this.order('of one host');
  }
}

@Controller({ path: 'hosted', host: ['eu.example.com', 'us.example.com'] })
class RegionsController extends Shop {
  @Post()
  @Idempotent()
  create(): Promise<Order> {
    return this.order('of a region');
  }
}

@Controller('versions')
class VersionsController extends Shop {
  @Post()
  @Idempotent({ endpoint: 'versions.create' })
  create(): Promise<Order> {
    return this.order();
  }
}
Reflect.defineMetadata('__version__', ['1', '2', VERSION_NEUTRAL], VersionsController.prototype.create);

@Controller('labels')
class LabelsController extends Shop {
  @Post(':id/reprint')
  @Idempotent()
  reprint(@Param('id') id: string): Promise<Order> {
    return this.order(id);
  }

  @Post('tenants')
  @Idempotent({ fingerprint: { headers: ['Stripe-Account'] } })
  tenants(): Promise<Order> {
    return this.order();
  }

  @Post('signed')
  @Idempotent({ fingerprint: { body: 'raw', headers: ['stripe-account'] } })
  signed(@Body() _body: unknown): Promise<Order> {
    return this.order();
  }
}

/** Sends a request target and headers as they are written here; clients would correct them. */
function sendRaw(app: TestApp, target: string, headers: readonly string[], body = ''): Promise<string> {
  const socket = connect(Number(new URL(app.url).port), '127.0.0.1');
  socket.write([`POST ${target} HTTP/1.1`, 'Connection: close', ...headers, '', body].join('\r\n'));
  return new Promise((resolve, reject) => {
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('end', () => resolve(answer)).on('error', reject);
  });
}

/** What became of a raw request. */
function outcomeOf(answer: string): string {
  const status = answer.slice('HTTP/1.1 '.length).split(' ', 1)[0] ?? '';
  return /^idempotency-replayed: true/im.test(answer) ? `${status} replayed` : status;
}

describe.each(ADAPTERS)('what a request is (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  afterEach(async () => {
    await app.close();
    await resetShop(database);
  });

  afterAll(() => database.drop());

  async function start(
    controllers: TestAppOptions['controllers'],
    rest: Partial<TestAppOptions> = {},
  ): Promise<void> {
    app = await startApp({ adapter, databaseUrl: database.url, controllers, poolSize: 3, ...rest });
  }

  const outcome = async (path: string, headers: Record<string, string> = {}, body = ''): Promise<string> => {
    const all = { Host: 'a', 'Idempotency-Key': 'one', 'Content-Length': String(body.length), ...headers };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
    return outcomeOf(await sendRaw(app, `/${path}`, lines, body));
  };

  describe('by the host that a controller declares', () => {
    it('is another one on another host', async () => {
      await start([TenantsController]);
      expect(await outcome('hosted', { Host: 'a.example.com' })).toBe('201');
      expect(await outcome('hosted', { Host: 'a.example.com:8080' })).toBe('201 replayed');
      expect(await outcome('hosted', { Host: 'b.example.com' })).toBe('422');
      expect(await shopState(database)).toMatchObject({ orders: 1 });
      expect(await outcome('hosted', { Host: 'b.example.com', 'Idempotency-Key': 'two' })).toBe('201');
    });

    it('is another one on each of several', async () => {
      await start([RegionsController]);
      expect(await outcome('hosted', { Host: 'eu.example.com' })).toBe('201');
      expect(await outcome('hosted', { Host: 'eu.example.com' })).toBe('201 replayed');
      expect(await outcome('hosted', { Host: 'us.example.com' })).toBe('422');
    });

    it('is read as the adapter reads it, behind a proxy that is trusted', async () => {
      const trustProxy: Partial<TestAppOptions> =
        adapter === 'express'
          ? { configure: (nest) => void nest.set('trust proxy', true) }
          : { fastify: { trustProxy: true } };
      await start([TenantsController], trustProxy);
      const via = (host: string): Record<string, string> => ({
        Host: 'proxy.internal',
        'X-Forwarded-Host': host,
      });
      expect(await outcome('hosted', via('a.example.com'))).toBe('201');
      expect(await outcome('hosted', via('a.example.com'))).toBe('201 replayed');
      expect(await outcome('hosted', via('b.example.com'))).toBe('422');
    });

    if (adapter === 'express') {
      it('boots with two controllers on one path, whose keys are apart', async () => {
        await start([TenantsController, OneHostController]);
        expect(await outcome('hosted', { Host: 'a.example.com' })).toBe('201');
        expect(await outcome('hosted', { Host: 'shop.example.org' })).toBe('201');
        expect(await outcome('hosted', { Host: 'shop.example.org' })).toBe('201 replayed');
        expect(await shopState(database)).toMatchObject({ orders: 2, records: 2 });
      });
    }

    it('does not depend on it where none is declared', async () => {
      await start([LabelsController]);
      expect(await outcome('labels/a/reprint', { Host: 'a.example.com' })).toBe('201');
      expect(await outcome('labels/a/reprint', { Host: 'b.example.com' })).toBe('201 replayed');
    });
  });

  if (adapter === 'fastify') {
    it('by constraints of its route, which need names', async () => {
      const constrained = (constraint: string, endpoint?: string): Type => {
        @Controller('constrained')
        class ConstrainedController extends Shop {
          @Post()
          @RouteConstraints({ secret: constraint })
          @Idempotent({ endpoint })
          create(): Promise<Order> {
            return this.order(constraint);
          }
        }
        return ConstrainedController;
      };
      const secrets = new Map<string, unknown>();
      const strategy = {
        name: 'secret',
        storage: () => ({
          get: (key: string) => secrets.get(key) ?? null,
          set: (key: string, store: unknown) => void secrets.set(key, store),
        }),
        deriveConstraint: (request: { headers: Record<string, unknown> }) => request.headers['x-secret'],
      };
      const routed = {
        fastify: { routerOptions: { constraints: { secret: strategy } } },
      } as Partial<TestAppOptions>;
      await expect(start([constrained('a'), constrained('b')], routed)).rejects.toThrow(
        /^IDEMPOTENCY_ENDPOINT_AMBIGUOUS: .*Give them names/,
      );
      await start([constrained('a', 'of a'), constrained('b', 'of b')], routed);
      expect(await outcome('constrained', { 'X-Secret': 'a' })).toBe('201');
      expect(await outcome('constrained', { 'X-Secret': 'b' })).toBe('201');
      expect(await outcome('constrained', { 'X-Secret': 'b' })).toBe('201 replayed');
    });
  }

  describe('by the version that it is served in', () => {
    const versioned: [string, VersioningOptions, (version: string) => Record<string, string>][] = [
      [
        'a header',
        { type: VersioningType.HEADER, header: 'X-Version' },
        (version) => ({ 'X-Version': version }),
      ],
      [
        'a media type',
        { type: VersioningType.MEDIA_TYPE, key: 'v=' },
        (version) => ({ Accept: `application/json;v=${version}` }),
      ],
      [
        'a function',
        {
          type: VersioningType.CUSTOM,
          extractor: (request) => {
            const { headers } = request as { headers: Record<string, string | undefined> };
            return headers['x-wanted'] ?? '';
          },
        },
        (version) => ({ 'X-Wanted': version }),
      ],
    ];

    it.each(versioned)('of %s', async (_what, versioning, asking) => {
      await start([VersionsController], { configure: (nest) => void nest.enableVersioning(versioning) });
      expect(await outcome('versions', asking('1'))).toBe('201');
      expect(await outcome('versions', asking('1'))).toBe('201 replayed');
      expect(await outcome('versions', asking('2'))).toBe('422');
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });

    it('of its path', async () => {
      const versioning = { type: VersioningType.URI } as const;
      await start([VersionsController], { configure: (nest) => void nest.enableVersioning(versioning) });
      expect(await outcome('v1/versions')).toBe('201');
      expect(await outcome('v1/versions')).toBe('201 replayed');
      expect(await outcome('v2/versions')).toBe('422');
      expect(await outcome('versions')).toBe('422');
    });
  });

  describe('by the headers that the route counts', () => {
    it.each([
      ['labels/tenants', ''],
      ['labels/signed', '{"a":1}'],
    ])('on %s', async (path, body) => {
      await start([LabelsController], { rawBody: true });
      const as = (account?: string): Promise<string> =>
        outcome(
          path,
          {
            ...(body ? { 'Content-Type': 'application/json' } : {}),
            ...(account === undefined ? {} : { 'stripe-account': account }),
          },
          body,
        );
      expect(await as('acct_1')).toBe('201');
      expect(await as('acct_1')).toBe('201 replayed');
      for (const other of ['acct_2', 'ACCT_1', '', undefined]) expect(await as(other)).toBe('422');
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });
  });

  it('is what was sent, where it is rewritten before it is routed', async () => {
    const rewritten = (url = ''): string => url.replace(/^\/[^/]+\//, '/labels/');
    await start([LabelsController], {
      fastify: { rewriteUrl: ({ url }: { url?: string }) => rewritten(url) },
      configure: (nest) => {
        if (adapter === 'fastify') return;
        nest.use((request: { url: string }, _response: unknown, next: () => void) => {
          request.url = rewritten(request.url);
          next();
        });
      },
    });
    expect(await outcome('acme/a/reprint')).toBe('201');
    expect(await outcome('acme/a/reprint')).toBe('201 replayed');
    expect(await outcome('other/a/reprint')).toBe('422');
  });

  it('has the headers that count as the handler reads them, whoever has set them', async () => {
    await start([LabelsController], {
      configure: (nest) => {
        nest.use((request: { headers: Record<string, unknown> }, _response: unknown, next: () => void) => {
          request.headers['stripe-account'] = request.headers['x-verified'];
          next();
        });
      },
    });
    const as = (verified: string): Promise<string> =>
      outcome('labels/tenants', { 'Stripe-Account': 'claimed', 'X-Verified': verified });
    expect(await as('a')).toBe('201');
    expect(await as('a')).toBe('201 replayed');
    expect(await as('b')).toBe('422');
  });

  it('tells the empty text of JSON from no body', async () => {
    await start([LabelsController], {
      configure: (nest) => {
        if (adapter === 'express') nest.useBodyParser('json', { strict: false });
      },
    });
    const json = { 'Content-Type': 'application/json' };
    expect(await outcome('labels/a/reprint', json, '""')).toBe('201');
    expect(await outcome('labels/a/reprint', json, '""')).toBe('201 replayed');
    expect(await outcome('labels/a/reprint')).toBe('422');
  });

  describe('in other spellings', () => {
    /** Those that the adapter routes to the handler by itself. */
    const spellings: Readonly<Record<Adapter, readonly string[]>> = {
      express: [
        '/labels/AbC/reprint/',
        '/LABELS/AbC/Reprint',
        '/labels/%41bC/reprint',
        'http://api.example.com/labels/AbC/reprint',
      ],
      fastify: [
        '/labels/AbC/reprint/',
        '/LABELS/AbC/Reprint',
        '/labels/%41bC/reprint',
        '/l%61bels/AbC/reprint',
        '//labels//AbC/reprint',
        'http://api.example.com/labels/AbC/reprint',
      ],
    };
    const lenient: Partial<TestAppOptions> =
      adapter === 'fastify'
        ? {
            fastify: {
              routerOptions: {
                caseSensitive: false,
                ignoreTrailingSlash: true,
                ignoreDuplicateSlashes: true,
              },
            },
          }
        : {};
    const lines = ['Host: api.example.com', 'Idempotency-Key: one', 'Content-Length: 0'];

    it.each(spellings[adapter])('is the same: %s', async (target) => {
      await start([LabelsController], lenient);
      expect(outcomeOf(await sendRaw(app, '/labels/AbC/reprint', lines))).toBe('201');
      expect(outcomeOf(await sendRaw(app, target, lines))).toBe('201 replayed');
      expect(await shopState(database)).toMatchObject({ orders: 1 });
    });

    it.each(['/labels/abc/reprint', '/labels/AbC/reprint?copy=1', '/labels/Ab%43%20/reprint'])(
      'is another one: %s',
      async (target) => {
        await start([LabelsController], lenient);
        expect(outcomeOf(await sendRaw(app, '/labels/AbC/reprint', lines))).toBe('201');
        expect(outcomeOf(await sendRaw(app, target, lines))).toBe('422');
        expect(await shopState(database)).toMatchObject({ orders: 1 });
      },
    );
  });

  describe('without a body', () => {
    it('whose chunks end before the first byte', async () => {
      await start([LabelsController]);
      const length = ['Host: a', 'Idempotency-Key: one', 'Content-Length: 0'];
      expect(outcomeOf(await sendRaw(app, '/labels/a/reprint', length))).toBe('201');
      const chunked = ['Host: a', 'Idempotency-Key: one', 'Transfer-Encoding: chunked'];
      const answer = outcomeOf(await sendRaw(app, '/labels/a/reprint', chunked, '0\r\n\r\n'));
      // Fastify itself has no parser for a body without a type, empty or not.
      expect(answer).toBe(adapter === 'express' ? '201 replayed' : '415');
    });

    it('is not empty when a byte comes', async () => {
      await start([LabelsController]);
      const chunked = ['Host: a', 'Idempotency-Key: one', 'Transfer-Encoding: chunked'];
      expect(outcomeOf(await sendRaw(app, '/labels/a/reprint', chunked, '1\r\nx\r\n0\r\n\r\n'))).toBe('415');
      expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
    });
  });
});
