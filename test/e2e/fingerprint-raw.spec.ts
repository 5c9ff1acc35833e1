import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Controller, Post } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { expectReplay } from '../helpers/replay.js';

let runs = 0;

function run(): object {
  runs += 1;
  return { id: randomUUID() };
}

@Controller()
class PlainController {
  @Post('raw')
  @Idempotent({ fingerprint: { body: 'raw' } })
  raw(): object {
    return run();
  }

  @Post('inherits')
  @Idempotent()
  inherits(): object {
    return run();
  }

  @Post('excludes')
  @Idempotent({ fingerprint: { body: 'parsed', exclude: ['at'] } })
  excludes(): object {
    return run();
  }
}

@Controller('layered')
@Idempotent({ fingerprint: { exclude: ['at'] } })
class LayeredController {
  @Post('raw')
  @Idempotent({ fingerprint: { body: 'raw' } })
  raw(): object {
    return run();
  }
}

describe.each(ADAPTERS)('a raw fingerprint (%s)', (adapter) => {
  let database: TestDatabase;
  /** Keeps raw bodies, and asks for them on every route that does not say otherwise. */
  let app: TestApp;
  let withoutRawBodies: TestApp;
  let key: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    const controllers = [PlainController, LayeredController];
    const options = { adapter, databaseUrl: database.url, controllers };
    app = await startApp({ ...options, rawBody: true, idempotency: { fingerprint: { body: 'raw' } } });
    withoutRawBodies = await startApp(options);
  });

  beforeEach(() => {
    runs = 0;
    key = randomUUID();
  });

  afterAll(async () => {
    await Promise.all([app.close(), withoutRawBodies.close()]);
    await database.drop();
  });

  const send = (
    path: string,
    body: string | undefined,
    { type = 'application/json', host = app } = {},
  ): Promise<HttpResponse> =>
    sendRequest(`${host.url}/${path}`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, ...(body === undefined ? {} : { 'Content-Type': type }) },
      ...(body === undefined ? {} : { body }),
    });

  it.each(['raw', 'inherits', 'layered/raw'])('replays the same bytes (%s)', async (path) => {
    const body = '{ "amount": 1.0, "at": 1 }';
    const original = await send(path, body);
    expect(original.status).toBe(201);
    expectReplay(original, await send(path, body));
    expect(runs).toBe(1);
  });

  it.each([
    ['white space', '{"amount":1,"at":1}', '{"amount": 1,"at":1}'],
    ['the order of members', '{"amount":1,"at":1}', '{"at":1,"amount":1}'],
    ['the way a number is written', '{"amount":1}', '{"amount":1.0}'],
    ['a member that a wider layer leaves out', '{"at":1}', '{"at":2}'],
    ['a member that is hidden by another of its name', '{"a":1,"a":3}', '{"a":2,"a":3}'],
  ])('counts %s', async (_what, first, second) => {
    for (const path of ['raw', 'layered/raw']) {
      key = randomUUID();
      expect((await send(path, first)).status).toBe(201);
      const refusal = await send(path, second);
      expect(refusal.status).toBe(422);
      expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
    }
    expect(runs).toBe(2);
  });

  it('counts the bytes of forms', async () => {
    const type = 'application/x-www-form-urlencoded';
    const original = await send('raw', 'a=%20b', { type });
    expect(original.status).toBe(201);
    expectReplay(original, await send('raw', 'a=%20b', { type }));
    expect((await send('raw', 'a=+b', { type })).status).toBe(422);
    expect(runs).toBe(1);
  });

  it('gives way to options of a narrower layer', async () => {
    const original = await send('excludes', '{"amount":1,"at":1}');
    expectReplay(original, await send('excludes', '{ "at": 2, "amount": 1 }'));
    expect((await send('excludes', '{"amount":2,"at":1}')).status).toBe(422);
    expect(runs).toBe(1);
  });

  it('is that of nothing without a body', async () => {
    const original = await send('raw', undefined);
    expect(original.status).toBe(201);
    expectReplay(original, await send('raw', undefined));
    expect((await send('raw', '{}')).status).toBe(422);
    expect(runs).toBe(1);
  });

  it('is refused with its remedy where the bytes were not kept', async () => {
    const refusal = await send('raw', '{"amount":1}', { host: withoutRawBodies });
    expect(refusal.status).toBe(415);
    expect(refusal.json()).toMatchObject({
      code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
      detail: expect.stringContaining('rawBody: true'),
    });
    expect(runs).toBe(0);
    expect(await database.query('SELECT FROM idempotency_records WHERE key = $1', [key])).toEqual([]);
  });

  it('needs no bytes for a request without a body', async () => {
    const original = await send('raw', undefined, { host: withoutRawBodies });
    expect(original.status).toBe(201);
    expectReplay(original, await send('raw', undefined, { host: withoutRawBodies }));
  });

  it('is refused for an upload, whose bytes nobody keeps', async () => {
    const type = 'multipart/form-data; boundary=edge';
    const refusal = await send('raw', '--edge--\r\n', { type });
    expect(refusal.status).toBe(415);
    expect(runs).toBe(0);
  });
});
