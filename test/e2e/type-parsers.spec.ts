import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Post, Res } from '@nestjs/common';
import { IdempotencyService, Idempotent } from 'nestjs-pg-idempotency';
import type { ServerResponse } from 'node:http';
import { types } from 'pg';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';

@Controller('things')
class ThingsController {
  @Post('transaction')
  @Idempotent()
  transaction(): { made: true } {
    return { made: true };
  }

  @Post('lease')
  @Idempotent({ mode: 'lease' })
  lease(): { made: true } {
    return { made: true };
  }

  @Post('unsendable')
  @Idempotent()
  unsendable(@Res({ passthrough: true }) response: ServerResponse | { readonly raw: ServerResponse }): {
    made: true;
  } {
    const raw = 'raw' in response ? response.raw : response;
    raw.statusMessage = 'not\none line';
    return { made: true };
  }
}

/** As day.js has it. */
class Moment {
  constructor(private readonly text: string) {}

  toISOString(): string {
    return new Date(this.text).toISOString();
  }
}

/** As Temporal has it. */
class Instant {
  constructor(private readonly text: string) {}

  toString(): string {
    return new Date(this.text).toISOString();
  }
}

const READERS: Readonly<Record<string, (text: string) => unknown>> = {
  'as text': (text) => text,
  'as objects that tell their ISO form': (text) => new Moment(text),
  'as objects that are written so': (text) => new Instant(text),
};

describe.each(ADAPTERS)('an application (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [ThingsController],
      idempotency: {},
      poolSize: 4,
    });
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const post = (path: string, key: string): ReturnType<typeof postJson> =>
    postJson(`${app.url}/things/${path}`, {}, { 'Idempotency-Key': key });

  describe.each(Object.keys(READERS))('that has times read %s, and JSON as text', (how) => {
    const { TIMESTAMPTZ, JSON: JSON_TYPE } = types.builtins;
    const standard = [TIMESTAMPTZ, JSON_TYPE].map(
      (type) => [type, types.getTypeParser(type, 'text')] as const,
    );

    beforeAll(() => {
      types.setTypeParser(TIMESTAMPTZ, READERS[how] as (text: string) => never);
      types.setTypeParser(JSON_TYPE, (text) => text);
    });

    afterAll(() => {
      for (const [type, parser] of standard) types.setTypeParser(type, parser as (text: string) => unknown);
    });

    it.each(['transaction', 'lease'])(
      'gets answers, replays and records as any other, in %s mode',
      async (mode) => {
        const key = `${mode} ${how}`;
        const before = Date.now();
        const first = await post(mode, key);
        const retry = await post(mode, key);
        expect([first.status, retry.status, retry.text]).toEqual([201, 201, first.text]);
        expect(retry.headers['idempotency-replayed']).toBe('true');
        expect(retry.headers['content-type']).toBe(first.headers['content-type']);
        expect(retry.headers['idempotency-created-at']).toBe(first.headers['idempotency-created-at']);
        const records = await app.app.get(IdempotencyService).list({ state: 'completed' });
        const record = records.records.find((each) => each.key === key)!;
        for (const time of [record.createdAt, record.completedAt!, record.expiresAt]) {
          expect(time).toBeInstanceOf(Date);
          expect(time.getTime()).toBeGreaterThanOrEqual(before - 1);
        }
        const found = await app.app.get(IdempotencyService).find(record);
        expect(found?.response?.headers).toContainEqual(['content-type', first.headers['content-type']]);
      },
    );
  });

  it('whose answer cannot be sent is told so, as without the library, and nothing took effect', async () => {
    for (const { status, headers } of [
      await post('unsendable', 'unsendable'),
      await post('unsendable', 'unsendable'),
    ]) {
      expect([status, headers['idempotency-replayed']]).toEqual([500, undefined]);
    }
  });
});
