import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Controller, Header, HttpException, Post, Res } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { postWithKey } from '../helpers/replay.js';

const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);

@Controller('off')
@Idempotent({ responseHeaders: false })
class OffController {
  @Post()
  off(): object {
    return { id: randomUUID() };
  }

  @Post('but-one')
  @Idempotent({ responseHeaders: { replayed: 'X-Again' } })
  butOne(): object {
    return { id: randomUUID() };
  }
}

@Controller('renamed')
@Idempotent({ responseHeaders: { key: 'X-Request-Key', replayed: 'X-Replayed' } })
class RenamedController {
  @Post()
  renamed(): object {
    return { id: randomUUID() };
  }

  @Post('partly')
  @Idempotent({ responseHeaders: { key: false, createdAt: 'Idempotency-Key' } })
  partly(): object {
    return { id: randomUUID() };
  }

  @Post('off')
  @Idempotent({ responseHeaders: false })
  off(): object {
    return { id: randomUUID() };
  }

  @Post('raw')
  raw(@Res() response: { send(body: string): void }): void {
    response.send('raw');
  }

  @Post('failed')
  failed(): never {
    throw new HttpException('no', 402);
  }

  @Post('broken')
  broken(): never {
    throw new HttpException('no', 500);
  }

  /** Sets headers of the same names itself. */
  @Post('rival')
  @Header('X-Replayed', 'never')
  @Header('X-Module-Time', 'long ago')
  rival(): string {
    return 'rival';
  }
}

@Controller('module')
class ModuleController {
  @Post()
  @Idempotent()
  module(): object {
    return { id: randomUUID() };
  }
}

/** The headers that tell of idempotency under any of the names in use here. */
function told({ headers }: HttpResponse): Record<string, unknown> {
  const names = /^(?:idempotency-.*|x-again|x-request-key|x-replayed|x-module-time)$/;
  return Object.fromEntries(Object.entries(headers).filter(([name]) => names.test(name)));
}

describe.each(ADAPTERS)('headers that tell of idempotency (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [OffController, RenamedController, ModuleController],
      idempotency: { responseHeaders: { createdAt: 'X-Module-Time' } },
    });
  });

  beforeEach(() => database.query('TRUNCATE idempotency_records'));

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, body: unknown = {}): Promise<HttpResponse> =>
    postWithKey(`${app.url}/${route}`, 'one', body);

  it.each<[route: string, original: object, replay: object]>([
    [
      'module',
      { 'idempotency-key': 'one', 'x-module-time': TIME },
      { 'idempotency-key': 'one', 'x-module-time': TIME, 'idempotency-replayed': 'true' },
    ],
    ['off', {}, {}],
    ['off/but-one', {}, { 'x-again': 'true' }],
    [
      'renamed',
      { 'x-request-key': 'one', 'x-module-time': TIME },
      { 'x-request-key': 'one', 'x-module-time': TIME, 'x-replayed': 'true' },
    ],
    ['renamed/partly', { 'idempotency-key': TIME }, { 'idempotency-key': TIME, 'x-replayed': 'true' }],
    ['renamed/off', {}, {}],
    [
      'renamed/raw',
      { 'x-request-key': 'one', 'x-module-time': TIME },
      { 'x-request-key': 'one', 'x-module-time': TIME, 'x-replayed': 'true' },
    ],
    [
      'renamed/failed',
      { 'x-request-key': 'one', 'x-module-time': TIME },
      { 'x-request-key': 'one', 'x-module-time': TIME, 'x-replayed': 'true' },
    ],
    [
      // Ours win over those of the handler, which are not recorded.
      'renamed/rival',
      { 'x-request-key': 'one', 'x-module-time': TIME, 'x-replayed': 'never' },
      { 'x-request-key': 'one', 'x-module-time': TIME, 'x-replayed': 'true' },
    ],
  ])('on %s are those that the options name', async (route, original, replay) => {
    const first = await send(route);
    const second = await send(route);
    expect(told(first)).toEqual(original);
    expect(told(second)).toEqual(replay);
    expect(second.text).toBe(first.text);
    const records = await database.query<{ response_headers: unknown }>(
      'SELECT response_headers FROM idempotency_records',
    );
    expect(JSON.stringify(records)).not.toMatch(/x-replayed|x-module-time|x-request-key/);
  });

  it('echo the key under its name on refusals and failures too', async () => {
    await send('renamed');
    expect(told(await send('renamed', { another: 'body' }))).toEqual({ 'x-request-key': 'one' });
    expect(told(await send('renamed/broken'))).toEqual({ 'x-request-key': 'one' });
    await send('off');
    expect(told(await send('off', { another: 'body' }))).toEqual({});
  });
});
