import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Validator } from '@seriousme/openapi-schema-validator';
import { ADAPTERS } from '../helpers/application.js';
import { startSample, type RunningSample } from './sample.fixture.js';

interface Media {
  readonly schema: { readonly allOf: readonly { readonly properties: Record<string, unknown> }[] };
  readonly examples: Readonly<Record<string, { readonly value: unknown }>>;
}

/** The parts of an operation that are looked at. */
interface Operation {
  readonly parameters: readonly { readonly name: string; readonly required: boolean }[];
  readonly requestBody: { readonly content: Record<string, Media> };
  readonly responses: Record<string, { readonly content: Record<string, Media>; readonly headers: object }>;
}

/** Protected operations, with where they take their key. */
const PROTECTED = [
  ['/api/v1/orders', 'post', 'header'],
  ['/client/api/orders', 'post', 'header'],
  ['/api/v1/payouts', 'post', 'header'],
  ['/client/api/payouts', 'post', 'header'],
  ['/client/api/cart/checkout', 'post', 'header'],
  ['/api/v1/orders/create', 'post', 'body'],
  ['/api/v1/orders/void', 'post', 'body'],
  ['/api/v1/manifests/submit', 'post', 'body'],
  ['/api/v1/labels/{id}/reprint', 'post', 'body'],
  ['/tickets', 'post', 'header'],
  ['/tickets/{id}', 'patch', 'header'],
  ['/tickets/{ticketId}/messages', 'post', 'header'],
  ['/charges', 'post', 'header'],
  ['/jobs/charges', 'post', 'header'],
] as const;

describe.each(ADAPTERS)('documentation of the sample application on %s', (adapter) => {
  let sample: RunningSample;
  let document: { paths: Record<string, Record<string, Operation>> };

  beforeAll(async () => {
    sample = await startSample(adapter);
    document = (await sample.call('GET', '/docs-json')).json() as typeof document;
  });

  afterAll(() => sample.close());

  it('/docs-json is valid OpenAPI', async () => {
    expect(await new Validator().validate(structuredClone(document))).toMatchObject({ valid: true });
  });

  it.each(PROTECTED)('%s (%s) describes its key, its errors and its headers', (path, method, source) => {
    const { parameters, requestBody, responses } = document.paths[path]![method]!;
    const header = parameters.find(({ name }) => name === 'Idempotency-Key');
    if (source === 'header') {
      expect(header).toMatchObject({ in: 'header', schema: { type: 'string', maxLength: 256 } });
    } else {
      const { allOf } = requestBody.content['application/json']!.schema;
      const rules = { type: 'string', minLength: 8, maxLength: 64, pattern: '^[A-Za-z0-9_-]*$' };
      expect(allOf.at(-1)!.properties['idempotencyKey']).toMatchObject(rules);
    }
    const reused = source === 'body' ? '409' : '422';
    for (const status of ['400', '409', reused, '503']) {
      const [media] = Object.values(responses[status]!.content);
      expect(media!.schema).toBeDefined();
    }
    const success = Object.keys(responses).filter((status) => status.startsWith('2'));
    expect(success.length).toBeGreaterThan(0);
    for (const status of success) {
      expect(Object.keys(responses[status]!.headers)).toEqual([
        'Idempotency-Key',
        'Idempotency-Replayed',
        'Idempotency-Created-At',
      ]);
    }
  });

  it('shows errors as the API has published them', () => {
    const { responses } = document.paths['/api/v1/orders/create']!['post']!;
    const { examples } = responses['409']!.content['application/json']!;
    expect(examples['IDEMPOTENCY_KEY_REUSED']!.value).toEqual({
      success: false,
      error: {
        code: 'IDEMPOTENCY_CONFLICT',
        message: 'Request payload differs from original request with this idempotencyKey',
      },
    });
    const rewards = document.paths['/api/v1/orders']!['post']!.responses['400']!.content['application/json']!;
    expect(rewards.examples['IDEMPOTENCY_KEY_TOO_SHORT']!.value).toEqual({
      error: {
        code: 'IDEMPOTENCY_KEY_TOO_SHORT',
        message: 'Idempotency-Key must be at least 8 characters',
      },
    });
  });

  it('says which keys are optional', () => {
    const isRequired = (path: string): unknown =>
      document.paths[path]!['post']!.parameters.find(({ name }) => name === 'Idempotency-Key')!.required;
    expect(isRequired('/api/v1/orders')).toBe(true);
    expect(isRequired('/tickets')).toBe(false);
  });

  it('serves Swagger UI, all of it from here', async () => {
    const page = await sample.call('GET', '/docs');
    expect(page.status).toBe(200);
    expect(page.text).toContain('swagger-ui');
    expect(page.text).not.toMatch(/(?:src|href)="https?:/);
    for (const file of ['swagger-ui-bundle.js', 'swagger-ui.css']) {
      expect((await sample.call('GET', `/docs/${file}`)).status).toBe(200);
    }
  });
});
