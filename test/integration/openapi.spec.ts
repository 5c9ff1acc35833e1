import { readFile } from 'node:fs/promises';
import { Body, Controller, Get, HttpCode, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import {
  ApiBody,
  ApiHeader,
  ApiProperty,
  ApiResponse,
  DocumentBuilder,
  SwaggerModule,
  type OpenAPIObject,
} from '@nestjs/swagger';
import { TypeOrmModule } from '@nestjs/typeorm';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Idempotent, IdempotencyModule, sharedClient } from 'nestjs-pg-idempotency';
import { ADAPTERS, startApp, type Adapter } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';

class CreateOrder {
  @ApiProperty()
  item!: string;
}

class Receipt {
  @ApiProperty()
  id!: number;
}

@Controller('orders')
class OrdersController {
  @Get()
  list(): number[] {
    return [];
  }

  @Post()
  @Idempotent({ key: { minLength: 8, maxLength: 64, pattern: /^[a-z]*$/ } })
  create(@Body() _order: CreateOrder): void {
    // Only its description is looked at, here and below.
  }

  @Post('optional')
  @Idempotent({ key: { header: 'X-Request-Id', required: false }, answers: { inProgress: 425 } })
  optional(): void {
    //
  }

  @Post('flagged')
  @Idempotent({ key: { pattern: /^order-[a-f0-9]+$/i } })
  flagged(): void {
    //
  }

  @Post('unicode')
  @Idempotent({ key: { pattern: /^[a-z]*$/u } })
  unicode(): void {
    //
  }

  @Post('field')
  @HttpCode(202)
  @Idempotent({
    key: { body: 'idempotencyKey', minLength: 8 },
    answers: { reused: 409, replay: 200 },
    errors: ({ code, detail }) => ({ body: { success: false, error: { code, detail } } }),
    responseHeaders: { key: false, replayed: 'X-Replayed' },
  })
  field(@Body() _order: CreateOrder): void {
    //
  }

  @Post('untyped')
  @Idempotent({ key: { body: 'requestId', required: false } })
  untyped(@Body() _order: unknown): void {
    //
  }

  @Post('event')
  @Idempotent({ key: { from: ({ body }: { body: { id?: string } }) => body.id }, mode: 'lease' })
  event(): void {
    //
  }

  @Post('described')
  @ApiHeader({ name: 'idempotency-key', description: 'Mine' })
  @ApiResponse({ status: 201, type: Receipt, description: 'A receipt' })
  @ApiResponse({ status: 422, description: 'Also mine' })
  @Idempotent()
  described(): void {
    //
  }

  @Post('described-body')
  @ApiBody({ description: 'Mine', type: CreateOrder })
  @Idempotent({ key: { body: 'idempotencyKey' } })
  describedBody(): void {
    //
  }

  /** As the plugin of the Nest CLI would have it. */
  static _OPENAPI_METADATA_FACTORY(): object {
    return { plugin: { type: Receipt }, list: { type: [Number] } };
  }

  @Post('plugin')
  @Idempotent()
  plugin(): void {
    //
  }
}

/** Where the controller describes what all of its routes answer. */
@Controller('receipts')
@ApiResponse({ status: 201, type: Receipt, description: 'A receipt' })
@ApiResponse({ status: 422, description: 'Also mine' })
class ReceiptsController {
  @Post()
  @Idempotent()
  create(): void {
    //
  }

  @Post('later')
  @HttpCode(202)
  @Idempotent()
  later(): void {
    //
  }
}

/** A value that is sent as something else than it holds. */
class Moment {
  readonly self = this;

  toJSON(): string {
    return 'now';
  }
}

@Controller('listed')
class ListedController {
  @Post()
  @Idempotent({
    errors: ({ code }) => ({ body: { errors: [{ code }], causes: [], at: new Moment(), more: null } }),
  })
  create(): void {
    //
  }
}

const PROBLEM = {
  type: 'object',
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    code: { type: 'string' },
  },
  required: ['type', 'title', 'status', 'detail', 'code'],
};

describe.each(ADAPTERS)('OpenAPI (%s)', (adapter) => {
  let database: TestDatabase;
  let document: OpenAPIObject;

  beforeAll(async () => {
    database = await createTestDatabase();
    document = await documentOf(adapter, database.url);
  });

  afterAll(() => database.drop());

  const operation = (path: string, method: 'get' | 'post' = 'post'): ReturnType<typeof JSON.parse> =>
    document.paths[path]?.[method];

  it('is valid', async () => {
    const copy = JSON.parse(JSON.stringify(document)) as Record<string, unknown>;
    expect(await new Validator().validate(copy)).toMatchObject({ valid: true });
  });

  it('a header with its rules', () => {
    expect(operation('/orders')['parameters']).toEqual([
      {
        name: 'Idempotency-Key',
        in: 'header',
        required: true,
        description: expect.stringContaining('8 to 64 characters'),
        schema: { type: 'string', minLength: 8, maxLength: 64, pattern: '^[a-z]*$' },
      },
    ]);
    expect(operation('/orders/optional')['parameters']).toMatchObject([
      { name: 'X-Request-Id', required: false, description: expect.stringContaining('second execution') },
    ]);
  });

  it('a field of the body with its rules, beside those of its type', () => {
    const { schema } = operation('/orders/field')['requestBody'].content['application/json'];
    expect(schema).toEqual({
      allOf: [
        { $ref: '#/components/schemas/CreateOrder' },
        {
          type: 'object',
          properties: {
            idempotencyKey: expect.objectContaining({ type: 'string', minLength: 8, maxLength: 256 }),
          },
          required: ['idempotencyKey'],
        },
      ],
    });
    expect(document.components?.schemas).toHaveProperty('CreateOrder');
    expect(operation('/orders/field')['parameters']).toEqual([]);
    const untyped = operation('/orders/untyped')['requestBody'].content['application/json'].schema;
    expect(Object.keys(untyped.properties)).toEqual(['requestId']);
    expect(untyped.required).toBeUndefined();
  });

  it('the errors, as problem details with an example of each', () => {
    const { responses } = operation('/orders');
    expect(Object.keys(responses)).toEqual(['201', '400', '401', '409', '415', '422', '500', '503']);
    const content = responses[400].content['application/problem+json'];
    expect(content.schema).toEqual(PROBLEM);
    expect(Object.keys(content.examples)).toEqual([
      'IDEMPOTENCY_KEY_REQUIRED',
      'IDEMPOTENCY_KEY_TOO_SHORT',
      'IDEMPOTENCY_KEY_TOO_LONG',
      'IDEMPOTENCY_KEY_MALFORMED',
    ]);
    expect(
      responses[422].content['application/problem+json'].examples.IDEMPOTENCY_KEY_REUSED.value,
    ).toMatchObject({ status: 422, code: 'IDEMPOTENCY_KEY_REUSED' });
    expect(responses[409].description).toContain('still running');
    expect(responses[503].content['application/problem+json'].schema).toEqual(PROBLEM);
  });

  it('every error that there is', async () => {
    const source = await readFile('lib/core/errors.ts', 'utf8');
    const known = new Set(source.match(/^ {2}IDEMPOTENCY_\w+(?=: \w)/gm)?.map((code) => code.trim()));
    expect(known.size).toBeGreaterThan(20);
    interface Described {
      readonly content?: Readonly<Record<string, { readonly examples?: object }>>;
    }
    const described = ['/orders', '/orders/event'].flatMap((path) => {
      const responses: Readonly<Record<string, Described>> = operation(path)['responses'];
      return Object.values(responses).flatMap(({ content = {} }) =>
        Object.values(content).flatMap(({ examples = {} }) => Object.keys(examples)),
      );
    });
    expect([...new Set(described)].sort()).toEqual([...known].sort());
  });

  it('a pattern that needs its flags in words, for OpenAPI has none', () => {
    const [parameter] = operation('/orders/flagged')['parameters'];
    expect(parameter.schema).toEqual({ type: 'string', minLength: 1, maxLength: 256 });
    expect(parameter.description).toContain('that match /^order-[a-f0-9]+$/i');
    // JSON Schema reads patterns as if they had this one.
    expect(operation('/orders/unicode')['parameters'][0].schema.pattern).toBe('^[a-z]*$');
  });

  it('the errors under the statuses and in the format of the route', () => {
    expect(Object.keys(operation('/orders/optional')['responses'])).toEqual([
      ...['201', '400', '401', '415', '422', '425', '500', '503'],
    ]);
    expect(
      operation('/orders/optional')['responses'][400].content['application/problem+json'].examples,
    ).not.toHaveProperty('IDEMPOTENCY_KEY_REQUIRED');
    const { responses } = operation('/orders/field');
    expect(Object.keys(responses)).toEqual(['200', '202', '400', '401', '409', '415', '500', '503']);
    const { schema, examples } = responses[409].content['application/json'];
    expect(schema.properties.error.properties).toEqual({
      code: { type: 'string' },
      detail: { type: 'string' },
    });
    expect(Object.keys(examples)).toEqual(['IDEMPOTENCY_IN_PROGRESS', 'IDEMPOTENCY_KEY_REUSED']);
    expect(
      Object.keys(operation('/orders/event')['responses'][409].content['application/problem+json'].examples),
    ).toEqual(['IDEMPOTENCY_IN_PROGRESS', 'IDEMPOTENCY_OUTCOME_UNRESOLVED', 'IDEMPOTENCY_RESPONSE_NOT_KEPT']);
  });

  it('the errors of a formatter as they are sent, lists included', () => {
    expect(operation('/listed')['responses'][422].content['application/json'].schema).toEqual({
      type: 'object',
      properties: {
        errors: {
          type: 'array',
          items: { type: 'object', properties: { code: { type: 'string' } }, required: ['code'] },
        },
        causes: { type: 'array', items: {} },
        at: { type: 'string' },
        more: {},
      },
      required: ['errors', 'causes', 'at', 'more'],
    });
  });

  it('the three response headers, as the route names them', () => {
    expect(operation('/orders')['responses'][201].headers).toEqual({
      'Idempotency-Key': expect.objectContaining({ schema: { type: 'string' } }),
      'Idempotency-Replayed': expect.objectContaining({ schema: { type: 'string', enum: ['true'] } }),
      'Idempotency-Created-At': expect.objectContaining({ schema: { type: 'string', format: 'date-time' } }),
    });
    for (const status of [200, 202]) {
      expect(Object.keys(operation('/orders/field')['responses'][status].headers)).toEqual([
        'X-Replayed',
        'Idempotency-Created-At',
      ]);
    }
  });

  it('leaves what was described by hand', () => {
    const { parameters, responses } = operation('/orders/described');
    expect(parameters).toMatchObject([{ name: 'idempotency-key', description: 'Mine' }]);
    expect(responses[201]).toMatchObject({
      description: 'A receipt',
      headers: { 'Idempotency-Replayed': expect.anything() },
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Receipt' } } },
    });
    expect(responses[422]).toEqual({ description: 'Also mine' });
    const { schema } = operation('/orders/described-body')['requestBody'].content['application/json'];
    expect(schema).toEqual({ $ref: '#/components/schemas/CreateOrder' });
  });

  it('leaves what was described by hand for all routes of a controller', () => {
    const { responses } = operation('/receipts');
    expect(responses[201]).toMatchObject({
      description: 'A receipt',
      headers: { 'Idempotency-Replayed': expect.anything() },
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Receipt' } } },
    });
    expect(responses[422]).toEqual({ description: 'Also mine' });
    expect(Object.keys(responses)).toEqual(['201', '400', '401', '409', '415', '422', '500', '503']);
    expect(Object.keys(operation('/receipts/later')['responses'])).toEqual([
      ...['201', '202', '400', '401', '409', '415', '422', '500', '503'],
    ]);
  });

  it('keeps what the plugin of the Nest CLI knows', () => {
    expect(operation('/orders/plugin')['responses'][201]).toMatchObject({
      headers: { 'Idempotency-Replayed': expect.anything() },
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Receipt' } } },
    });
  });

  it('says nothing of routes that are not protected', () => {
    expect(operation('/orders', 'get')['parameters']).toEqual([]);
    expect(Object.keys(operation('/orders', 'get')['responses'])).toEqual(['200']);
  });
});

/** As the plugin makes it of a file that is not there any more. */
@Controller('lost')
class LostController {
  static _OPENAPI_METADATA_FACTORY(): object {
    throw new Error('no such file');
  }

  @Post()
  @Idempotent()
  create(): void {
    //
  }
}

it('an application starts although one of its routes cannot be described', async () => {
  const database = await createTestDatabase();
  const app = await startApp({
    adapter: 'express',
    databaseUrl: database.url,
    controllers: [LostController],
  });
  const answer = await postJson(`${app.url}/lost`, {}, { 'Idempotency-Key': 'started' });
  expect(answer.status).toBe(201);
  await app.close();
  await database.drop();
});

@Module({})
class AppModule {}

/** As applications ask for it: before they listen. */
async function documentOf(adapter: Adapter, url: string): Promise<OpenAPIObject> {
  const app = await NestFactory.create(
    {
      module: AppModule,
      imports: [
        TypeOrmModule.forRoot({ type: 'postgres', url, retryAttempts: 0 }),
        IdempotencyModule.forRoot({ client: sharedClient('tests'), purge: false }),
      ],
      controllers: [OrdersController, ReceiptsController, ListedController],
    },
    adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter(),
    { logger: ['error', 'warn'] },
  );
  const document = SwaggerModule.createDocument(app, new DocumentBuilder().setTitle('Orders').build());
  await app.close();
  return document;
}
