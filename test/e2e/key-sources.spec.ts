import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Body, ConflictException, Controller, HttpCode, Param, Post } from '@nestjs/common';
import { Idempotent, type FormattedError, type IdempotencyError } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest, type HttpRequestHeaders, type HttpResponse } from '../helpers/http.js';
import { expectReplay } from '../helpers/replay.js';

let runs = 0;

function answer(): { id: string } {
  runs += 1;
  return { id: randomUUID() };
}

/** The errors of an API that has its key in the body. */
function envelope(error: IdempotencyError): FormattedError {
  const told = (code: string, message: string): FormattedError => ({
    body: { success: false, error: { code, message } },
  });
  switch (error.code) {
    case 'IDEMPOTENCY_KEY_REUSED':
      return told(
        'IDEMPOTENCY_CONFLICT',
        'Request payload differs from original request with this idempotencyKey',
      );
    case 'IDEMPOTENCY_KEY_REQUIRED':
      return told(error.code, `${error.source.name} is required (${error.source.kind})`);
    case 'IDEMPOTENCY_KEY_TOO_SHORT':
      return told(error.code, `${error.source.name} must have ${error.minLength} characters`);
    default:
      return told(error.code, error.detail);
  }
}

@Controller('shipping')
@Idempotent({
  key: { body: 'idempotencyKey', minLength: 8, maxLength: 64, pattern: /^[A-Za-z0-9_-]*$/ },
  answers: { reused: 409, replay: 200 },
  errors: envelope,
})
class ShippingController {
  @Post('orders/create')
  create(@Body() { reference }: { reference: string }): object {
    return { success: true, data: { ...answer(), reference } };
  }

  @Post('orders/void')
  void(): object {
    return answer();
  }

  @Post('manifests/submit')
  @Idempotent({ key: { required: false } })
  submit(): object {
    return answer();
  }

  @Post('labels/:id/reprint')
  reprint(@Param('id') id: string): object {
    return { ...answer(), labelId: id };
  }

  @Post('by-header')
  @Idempotent({ key: { header: 'X-Operation-Id' } })
  byHeader(): object {
    return answer();
  }

  @Post('plain')
  @Idempotent({
    key: { pattern: /[^]*/, minLength: 1 },
    answers: { reused: 422, replay: 'original' },
    errors: ({ code, detail }) => ({ body: { code, detail } }),
  })
  plain(): object {
    return answer();
  }
}

interface Webhook {
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body?: { readonly id?: string };
}

@Controller('webhooks')
class WebhooksController {
  @Post('provider')
  @HttpCode(200)
  @Idempotent({ key: { from: ({ body }: Webhook) => body?.id } })
  provider(): object {
    return answer();
  }

  @Post('later')
  @Idempotent({ key: { from: async ({ headers }: Webhook) => headers['x-event'], required: false } })
  later(): object {
    return answer();
  }

  @Post('failing')
  @Idempotent({
    key: {
      from: () => {
        throw new ConflictException('no event');
      },
    },
  })
  failing(): object {
    return answer();
  }

  @Post('module')
  @Idempotent()
  module(): object {
    return answer();
  }
}

describe.each(ADAPTERS)('where a key is found (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [ShippingController, WebhooksController],
      idempotency: { key: { header: 'X-Module-Key' } },
    });
  });

  beforeEach(async () => {
    runs = 0;
    await database.query('TRUNCATE idempotency_records');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (path: string, body: unknown, headers: HttpRequestHeaders = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${path}`, body, headers);
  const keys = async (): Promise<string[]> =>
    (await database.query<{ key: string }>('SELECT key FROM idempotency_records ORDER BY key')).map(
      ({ key }) => key,
    );

  describe('in a field of the body', () => {
    const order = { idempotencyKey: 'order-123', reference: 'R-1', items: [{ sku: 'A', quantity: 1 }] };

    it('runs once, and answers duplicates with the recorded body and 200', async () => {
      const first = await send('shipping/orders/create', order);
      const again = await send('shipping/orders/create', order);
      expect([first.status, again.status]).toEqual([201, 200]);
      expect(again.text).toBe(first.text);
      expect(again.headers['idempotency-replayed']).toBe('true');
      expect([first, again].map(({ headers }) => headers['idempotency-key'])).toEqual([
        'order-123',
        'order-123',
      ]);
      expect(runs).toBe(1);
      expect(await keys()).toEqual(['order-123']);
    });

    it('answers 409 in the format of the API when the payload differs', async () => {
      await send('shipping/orders/create', order);
      const conflict = await send('shipping/orders/create', { ...order, reference: 'R-2' });
      expect(conflict.status).toBe(409);
      expect(conflict.text).toBe(
        '{"success":false,"error":{"code":"IDEMPOTENCY_CONFLICT","message":"Request payload differs from original request with this idempotencyKey"}}',
      );
      expect(runs).toBe(1);
    });

    it('belongs to one operation, of which another path is a different request', async () => {
      await send('shipping/orders/create', order);
      expect((await send('shipping/orders/void', order)).status).toBe(201);
      const label = { idempotencyKey: 'label-key' };
      expect((await send('shipping/labels/7/reprint', label)).status).toBe(201);
      expect((await send('shipping/labels/8/reprint', label)).status).toBe(409);
      expect(runs).toBe(3);
    });

    it.each<[what: string, body: unknown, code: string, message: string]>([
      ['is absent', { reference: 'R-1' }, 'REQUIRED', 'idempotencyKey is required (body)'],
      ['is absent from an array', [order], 'REQUIRED', 'idempotencyKey is required (body)'],
      ['is null', { idempotencyKey: null }, 'MALFORMED', 'Field idempotencyKey must be a string.'],
      ['is a number', { idempotencyKey: 12345678 }, 'MALFORMED', 'Field idempotencyKey must be a string.'],
      ['is an object', { idempotencyKey: {} }, 'MALFORMED', 'Field idempotencyKey must be a string.'],
      ['is a list', { idempotencyKey: ['order-123'] }, 'MALFORMED', 'Field idempotencyKey must be a string.'],
      ['is empty', { idempotencyKey: '' }, 'TOO_SHORT', 'idempotencyKey must have 8 characters'],
      ['is short', { idempotencyKey: 'o'.repeat(7) }, 'TOO_SHORT', 'idempotencyKey must have 8 characters'],
      [
        'is long',
        { idempotencyKey: 'o'.repeat(65) },
        'TOO_LONG',
        'Field idempotencyKey must be at most 64 characters.',
      ],
      [
        'has a space',
        { idempotencyKey: 'order 123' },
        'MALFORMED',
        'Field idempotencyKey contains characters that are not allowed.',
      ],
      [
        // A quoted string is a matter of headers.
        'is quoted',
        { idempotencyKey: '"order-123"' },
        'MALFORMED',
        'Field idempotencyKey contains characters that are not allowed.',
      ],
    ])('is refused when it %s', async (_what, body, code, message) => {
      const refusal = await send('shipping/orders/create', body);
      expect([refusal.status, refusal.json()]).toEqual([
        400,
        { success: false, error: { code: `IDEMPOTENCY_KEY_${code}`, message } },
      ]);
      expect(refusal.headers['idempotency-key']).toBeUndefined();
      expect(runs).toBe(0);
      expect(await keys()).toEqual([]);
    });

    it('is required of a body that no parser has read, and of no body', async () => {
      const unparsed = await sendRequest(`${app.url}/shipping/orders/void`, {
        method: 'POST',
        headers: { 'Content-Type': 'text/plain' },
        body: JSON.stringify(order),
      });
      expect(unparsed.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
      const empty = await sendRequest(`${app.url}/shipping/orders/void`, { method: 'POST' });
      expect(empty.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
      expect(runs).toBe(0);
    });

    it('is found in a form', async () => {
      const form = (): Promise<HttpResponse> =>
        sendRequest(`${app.url}/shipping/orders/void`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
          body: 'idempotencyKey=order-123&a=1',
        });
      expect((await form()).status).toBe(201);
      expect((await form()).headers['idempotency-replayed']).toBe('true');
    });

    it('does not count in the comparison of bodies', async () => {
      await send('shipping/orders/create', order);
      await send('shipping/orders/create', { ...order, idempotencyKey: 'order-124' });
      const rows = await database.query<{ same: boolean }>(
        'SELECT count(DISTINCT fingerprint) = 1 AS same FROM idempotency_records',
      );
      expect(rows).toEqual([{ same: true }]);
      expect(runs).toBe(2);
    });

    it('is taken as it is, and echoed where a header can carry it', async () => {
      const sent = ['plain', '"quoted"', ' spaced ', 'caf\u00e9', 'two\r\nX-Injected: lines'];
      const echoes: unknown[] = [];
      for (const idempotencyKey of sent) {
        const first = await send('shipping/plain', { idempotencyKey });
        expectReplay(first, await send('shipping/plain', { idempotencyKey }));
        expect(first.headers['x-injected']).toBeUndefined();
        echoes.push(first.headers['idempotency-key']);
      }
      expect(new Set(await keys())).toEqual(new Set(sent));
      expect(echoes).toEqual(['plain', '"quoted"', 'spaced', undefined, undefined]);
    });

    it('is never one that the body inherits', async () => {
      const refusal = await send('shipping/plain', JSON.parse('{"constructor":{"idempotencyKey":"x"}}'));
      expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REQUIRED' });
    });
  });

  describe('in a field of the body, where it is optional', () => {
    it('protects when it is given', async () => {
      const body = { idempotencyKey: 'manifest-1', orderIds: [1] };
      const first = await send('shipping/manifests/submit', body);
      const again = await send('shipping/manifests/submit', body);
      expect([again.status, again.text]).toEqual([200, first.text]);
      expect(runs).toBe(1);
    });

    it.each([
      ['left out', { orderIds: [1] }],
      ['a list', [1]],
    ])('leaves the handler unprotected when it is %s', async (_what, body) => {
      const answers = [
        await send('shipping/manifests/submit', body),
        await send('shipping/manifests/submit', body),
      ];
      expect(answers.map(({ status }) => status)).toEqual([201, 201]);
      expect(answers[0]!.headers['idempotency-key']).toBeUndefined();
      expect(runs).toBe(2);
      expect(await keys()).toEqual([]);
    });

    it('still has to be acceptable', async () => {
      const refusal = await send('shipping/manifests/submit', { idempotencyKey: null });
      expect([refusal.status, refusal.json()]).toMatchObject([
        400,
        { error: { code: 'IDEMPOTENCY_KEY_MALFORMED' } },
      ]);
      expect(runs).toBe(0);
    });

    it('is not taken as absent from a body that no parser has read', async () => {
      const refusal = await sendRequest(`${app.url}/shipping/manifests/submit`, {
        method: 'POST',
        headers: { 'Content-Type': 'text/plain' },
        body: '{"idempotencyKey":"manifest-1"}',
      });
      expect(refusal.status).toBe(415);
      expect(runs).toBe(0);
    });
  });

  describe('by a function of the request', () => {
    it('answers the redelivery of a webhook as the first delivery', async () => {
      const event = { id: 'evt_1', type: 'invoice.paid' };
      const first = await send('webhooks/provider', event);
      expectReplay(first, await send('webhooks/provider', event));
      expect(first.headers['idempotency-key']).toBe('evt_1');
      expect(first.status).toBe(200);
      expect(runs).toBe(1);
      expect((await send('webhooks/provider', { ...event, id: 'evt_2' })).status).toBe(200);
      expect(await keys()).toEqual(['evt_1', 'evt_2']);
    });

    it.each([
      ['nothing', {}, 'REQUIRED', /^Include a unique key \(1–256 characters\), the same on every retry/],
      ['no string', { id: 7 }, 'MALFORMED', /^The idempotency key must be a string\.$/],
      ['too much', { id: 'e'.repeat(257) }, 'TOO_LONG', /^The idempotency key must be at most 256/],
    ])('is refused when the function gives %s', async (_what, body, code, detail) => {
      const refusal = await send('webhooks/provider', body);
      expect(refusal.status).toBe(400);
      expect(refusal.json()).toMatchObject({
        code: `IDEMPOTENCY_KEY_${code}`,
        detail: expect.stringMatching(detail),
      });
      expect(runs).toBe(0);
    });

    it('may be found later, and may be optional', async () => {
      const first = await send('webhooks/later', {}, { 'X-Event': '"evt"' });
      expectReplay(first, await send('webhooks/later', {}, { 'X-Event': '"evt"' }));
      expect(await keys()).toEqual(['"evt"']);
      await send('webhooks/later', {});
      await send('webhooks/later', {});
      expect(runs).toBe(3);
    });

    it('leaves what the function throws to the exception filters', async () => {
      const refusal = await send('webhooks/failing', {});
      expect([refusal.status, refusal.json()]).toMatchObject([409, { message: 'no event' }]);
      expect(runs).toBe(0);
    });
  });

  describe('as the narrowest layer says', () => {
    it('that of a controller takes the place of the module’s', async () => {
      const refusal = await send('shipping/orders/create', {}, { 'X-Module-Key': 'module-key' });
      expect(refusal.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
      const original = await send('webhooks/module', {}, { 'X-Module-Key': 'module-key' });
      expect(original.status).toBe(201);
    });

    it('that of a method takes the place of the controller’s, whose rules still hold', async () => {
      const headers = { 'X-Operation-Id': 'operation' };
      expect((await send('shipping/by-header', { idempotencyKey: 1 }, headers)).status).toBe(201);
      const refusal = await send('shipping/by-header', {}, { 'X-Operation-Id': 'o' });
      expect(refusal.json()).toMatchObject({
        error: { message: 'X-Operation-Id must have 8 characters' },
      });
      expect(await keys()).toEqual(['operation']);
    });
  });
});
