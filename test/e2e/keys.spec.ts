import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  Catch,
  Controller,
  HttpException,
  Post,
  UseFilters,
  type ArgumentsHost,
  type ExceptionFilter,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { Idempotent, IdempotencyException, type IdempotencyError } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpRequestHeaders, type HttpResponse } from '../helpers/http.js';

let runs = 0;

function answer(): object {
  runs += 1;
  return { id: randomUUID() };
}

/** What reached the application's filter. */
let caught: IdempotencyError[] = [];

interface Reply {
  status(status: number): this;
  type(mediaType: string): this;
  send(body: string): unknown;
}

@Catch(HttpException)
class EnvelopeFilter implements ExceptionFilter {
  catch(exception: HttpException, host: ArgumentsHost): void {
    if (exception instanceof IdempotencyException) caught.push(exception.error);
    const reply = host.switchToHttp().getResponse<Reply>();
    reply.status(418).type('application/vnd.own+json; charset=utf-8');
    reply.send(JSON.stringify({ own: exception.message }));
  }
}

/** Lets the proposed body through, as Nest's own filter does. */
@Catch(HttpException)
class TransparentFilter implements ExceptionFilter {
  constructor(private readonly host: HttpAdapterHost) {}

  catch(exception: HttpException, host: ArgumentsHost): void {
    const reply: unknown = host.switchToHttp().getResponse();
    this.host.httpAdapter.reply(reply, exception.getResponse(), exception.getStatus());
  }
}

@Controller()
class KeysController {
  @Post('plain')
  @Idempotent()
  plain(): object {
    return answer();
  }

  @Post('strict')
  @Idempotent({ key: { minLength: 4, maxLength: 8, pattern: /^[a-z0-9]+$/ } })
  strict(): object {
    return answer();
  }

  @Post('optional')
  @Idempotent({ key: { required: false } })
  optional(): object {
    return answer();
  }

  @Post('operation')
  @Idempotent({ key: { header: 'X-Operation-Id' } })
  operation(): object {
    return answer();
  }

  @Post('enveloped')
  @Idempotent()
  @UseFilters(EnvelopeFilter)
  enveloped(): object {
    return answer();
  }

  @Post('transparent')
  @Idempotent()
  @UseFilters(TransparentFilter)
  transparent(): object {
    return answer();
  }

  @Post('formatted')
  @Idempotent({
    errors: ({ code, status }) => ({
      body: { error: { code: code.replace('IDEMPOTENCY_', ''), status } },
      status: status + 40,
      contentType: 'application/vnd.own-error+json',
      headers: { 'X-Error-Code': code },
    }),
  })
  formatted(): object {
    return answer();
  }

  @Post('formatted-briefly')
  @Idempotent({ errors: ({ title }) => ({ body: { title } }) })
  formattedBriefly(): object {
    return answer();
  }
}

const DOCUMENTATION = 'https://docs.example/idempotency';

describe.each(ADAPTERS)('a key (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [KeysController],
      idempotency: { documentation: DOCUMENTATION },
    });
  });

  beforeEach(async () => {
    runs = 0;
    caught = [];
    await database.query('TRUNCATE idempotency_records');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (path: string, headers: HttpRequestHeaders, body: unknown = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${path}`, body, headers);
  const withKey = (path: string, key: string, body: unknown = {}): Promise<HttpResponse> =>
    send(path, { 'Idempotency-Key': key }, body);

  describe('that is acceptable', () => {
    it('means the same bare and quoted, and is echoed as it came', async () => {
      const original = await withKey('plain', 'order 7');
      const quoted = await withKey('plain', '"order 7"');
      expect(original.headers['idempotency-key']).toBe('order 7');
      expect(quoted.headers['idempotency-key']).toBe('"order 7"');
      expect(quoted.headers['idempotency-replayed']).toBe('true');
      expect(quoted.text).toBe(original.text);
      expect(runs).toBe(1);
    });

    it('is unescaped when it is quoted', async () => {
      const original = await withKey('plain', String.raw`"a\"b\\c"`);
      const bare = await withKey('plain', String.raw`a"b\c`);
      expect(original.status).toBe(201);
      expect(bare.headers['idempotency-replayed']).toBe('true');
      expect(await database.query('SELECT key FROM idempotency_records')).toEqual([
        { key: String.raw`a"b\c` },
      ]);
    });

    it('is told the time of the original, in whole seconds of UTC, by original and replay', async () => {
      const original = await withKey('plain', 'times');
      const replay = await withKey('plain', 'times');
      const createdAt = original.headers['idempotency-created-at'] as string;
      expect(createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      expect(replay.headers['idempotency-created-at']).toBe(createdAt);
      const [row] = await database.query<{ created_at: Date }>('SELECT created_at FROM idempotency_records');
      expect(Date.parse(createdAt)).toBe(Math.floor(row!.created_at.getTime() / 1_000) * 1_000);
    });

    it('is echoed where it is refused for another body', async () => {
      await withKey('plain', 'reused');
      const refusal = await withKey('plain', '"reused"', { another: 'body' });
      expect(refusal.status).toBe(422);
      expect(refusal.headers['idempotency-key']).toBe('"reused"');
      expect(refusal.headers['idempotency-replayed']).toBeUndefined();
      expect(refusal.headers['idempotency-created-at']).toBeUndefined();
    });

    it('is read from the header the route names, and from no other', async () => {
      const original = await send('operation', { 'x-operation-id': 'one', 'Idempotency-Key': 'two' });
      const replay = await send('operation', { 'X-OPERATION-ID': 'one' });
      expect(original.status).toBe(201);
      expect(replay.headers['idempotency-replayed']).toBe('true');
      const refusal = await send('operation', { 'Idempotency-Key': 'one' });
      expect(refusal.json()).toMatchObject({
        code: 'IDEMPOTENCY_KEY_REQUIRED',
        detail: expect.stringContaining('X-Operation-Id'),
      });
    });

    it('protects also where it is optional', async () => {
      const original = await withKey('optional', 'given');
      const replay = await withKey('optional', 'given');
      expect(replay.headers['idempotency-replayed']).toBe('true');
      expect(replay.text).toBe(original.text);
      expect(runs).toBe(1);
    });

    it('may be left out where it is optional, and then nothing is recorded', async () => {
      const [first, second] = [await send('optional', {}), await send('optional', {})];
      expect([first.status, second.status]).toEqual([201, 201]);
      expect(second.text).not.toBe(first.text);
      expect(Object.keys(second.headers).filter((name) => name.startsWith('idempotency-'))).toEqual([]);
      expect(runs).toBe(2);
      expect(await database.query('SELECT FROM idempotency_records')).toEqual([]);
    });
  });

  describe('that is not acceptable', () => {
    const key = (value: string): HttpRequestHeaders => ({ 'Idempotency-Key': value });
    const REFUSALS: readonly [what: string, path: string, headers: HttpRequestHeaders, code: string][] = [
      ['is absent', 'plain', {}, 'REQUIRED'],
      ['is empty', 'plain', key(''), 'TOO_SHORT'],
      ['is an empty string', 'plain', key('""'), 'TOO_SHORT'],
      ['is empty where it is optional', 'optional', key(''), 'TOO_SHORT'],
      ['is malformed where it is optional', 'optional', key('"'), 'MALFORMED'],
      ['is too short', 'strict', key('abc'), 'TOO_SHORT'],
      ['is too short without its quotes', 'strict', key('"abc"'), 'TOO_SHORT'],
      ['is too long', 'strict', key('abcdefghi'), 'TOO_LONG'],
      ['is longer than the default', 'plain', key('x'.repeat(257)), 'TOO_LONG'],
      ['does not match the pattern', 'strict', key('ABCD'), 'MALFORMED'],
      ['is not ASCII', 'plain', key('caf\u00e9'), 'MALFORMED'],
      ['has a tab', 'plain', key('a\tb'), 'MALFORMED'],
      ['lacks its closing quote', 'plain', key('"abcd'), 'MALFORMED'],
      ['goes on after its closing quote', 'plain', key('"ab"cd'), 'MALFORMED'],
      ['has parameters', 'plain', key('"abcd";v=1'), 'MALFORMED'],
      ['has an unknown escape', 'plain', key(String.raw`"a\bcd"`), 'MALFORMED'],
      ['comes twice', 'plain', { 'Idempotency-Key': ['one', 'two'] }, 'MALFORMED'],
      ['comes twice and equal', 'plain', { 'Idempotency-Key': ['same', 'same'] }, 'MALFORMED'],
      [
        'comes twice in different spelling',
        'plain',
        [
          ['Idempotency-Key', 'one'],
          ['idempotency-key', 'one'],
        ],
        'MALFORMED',
      ],
    ];

    it.each(REFUSALS)('because it %s is answered 400', async (_what, path, headers, code) => {
      const refusal = await send(path, headers);
      expect(refusal.status).toBe(400);
      const stable = `IDEMPOTENCY_KEY_${code}`;
      const type = `${DOCUMENTATION}#${stable.toLowerCase()}`;
      expect(refusal.headers['content-type']).toBe('application/problem+json; charset=utf-8');
      expect(refusal.headers['link']).toBe(`<${type}>; rel="describedby"`);
      expect(refusal.headers['retry-after']).toBeUndefined();
      expect(refusal.json()).toEqual({
        type,
        title: expect.any(String),
        status: 400,
        detail: expect.stringMatching(/^[A-Z].*\.$/),
        code: stable,
      });
      expect(runs).toBe(0);
      expect(await database.query('SELECT FROM idempotency_records')).toEqual([]);
    });
  });

  describe('whose error', () => {
    it('meets a filter is seen by it, and answered in its envelope', async () => {
      const refusal = await withKey('enveloped', '');
      expect(caught).toEqual([
        expect.objectContaining({
          code: 'IDEMPOTENCY_KEY_TOO_SHORT',
          source: { kind: 'header', name: 'Idempotency-Key' },
          minLength: 1,
        }),
      ]);
      expect(refusal.status).toBe(418);
      expect(Object.keys(refusal.json() as object)).toEqual(['own']);
      expect(refusal.headers['content-type']).toBe('application/vnd.own+json; charset=utf-8');
      await withKey('enveloped', 'reused');
      await withKey('enveloped', 'reused', { another: 'body' });
      expect(caught.map(({ code }) => code)).toEqual(['IDEMPOTENCY_KEY_TOO_SHORT', 'IDEMPOTENCY_KEY_REUSED']);
    });

    it('meets a filter that sends what is proposed keeps its media type', async () => {
      const refusal = await withKey('transparent', '');
      expect(refusal.status).toBe(400);
      expect(refusal.headers['content-type']).toBe('application/problem+json; charset=utf-8');
      expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_TOO_SHORT' });
    });

    it('has a format of its own is answered in it', async () => {
      const refusal = await withKey('formatted', '');
      expect(refusal.status).toBe(440);
      expect(refusal.headers).toMatchObject({
        'content-type': 'application/vnd.own-error+json; charset=utf-8',
        'x-error-code': 'IDEMPOTENCY_KEY_TOO_SHORT',
        'content-length': String(refusal.body.length),
      });
      expect(refusal.json()).toEqual({ error: { code: 'KEY_TOO_SHORT', status: 400 } });
    });

    it('has a format that says only the body keeps status, and is JSON', async () => {
      await withKey('formatted-briefly', 'reused');
      const refusal = await withKey('formatted-briefly', 'reused', { another: 'body' });
      expect(refusal.status).toBe(422);
      expect(refusal.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(refusal.json()).toEqual({ title: expect.any(String) });
    });
  });
});
