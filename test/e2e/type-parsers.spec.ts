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
  transaction(): { made: true; of: string } {
    return { made: true, of: 'a\\b \u0000 Zoë →' };
  }

  @Post('lease')
  @Idempotent({ mode: 'lease' })
  lease(): { made: true; of: string } {
    return { made: true, of: 'a\\b \u0000 Zoë →' };
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

const { TIMESTAMPTZ, BYTEA, JSON: JSON_TYPE, INT8, INT4, INT2, BOOL, FLOAT8, UUID } = types.builtins;
const asText = (text: string): unknown => text;
const asTexts = (...oids: Oid[]): Parsers => oids.map((oid) => [oid, asText]);

type Oid = Parameters<typeof types.setTypeParser>[0];
type Parsers = readonly (readonly [oid: Oid, parser: (text: string) => unknown])[];

const READERS: Readonly<Record<string, Parsers>> = {
  'times as text, and JSON': asTexts(TIMESTAMPTZ, JSON_TYPE),
  'times as objects that tell their ISO form, and JSON as text': [
    [TIMESTAMPTZ, (text) => new Moment(text)],
    [JSON_TYPE, asText],
  ],
  'times as objects that are written so': [[TIMESTAMPTZ, (text) => new Instant(text)]],
  'times as numbers': [[TIMESTAMPTZ, (text) => new Date(text).getTime()]],
  'times as seconds': [[TIMESTAMPTZ, (text) => Math.floor(new Date(text).getTime() / 1_000)]],
  'times as days without hours': [[TIMESTAMPTZ, (text) => text.slice(0, 10)]],
  'bytes as text': asTexts(BYTEA),
  'bytes as base64': [[BYTEA, (text) => Buffer.from(text.slice(2), 'hex').toString('base64')]],
  'bytes as Uint8Array': [[BYTEA, (text) => new Uint8Array(Buffer.from(text.slice(2), 'hex'))]],
  'JSON as a Map': [[JSON_TYPE, (text) => new Map(Object.entries(JSON.parse(text) as object))]],
  'large integers as BigInt': [[INT8, BigInt]],
  'all integers as BigInt': [INT8, INT4, INT2].map((oid) => [oid, BigInt]),
  'all numbers as text': asTexts(INT8, INT4, INT2, FLOAT8),
  'booleans as text': asTexts(BOOL),
  'identifiers as bytes': [[UUID, (text) => Buffer.from(text.replaceAll('-', ''), 'hex')]],
  'everything as text': asTexts(TIMESTAMPTZ, BYTEA, JSON_TYPE, INT8, INT4, INT2, BOOL, FLOAT8, UUID),
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

  describe.each(Object.keys(READERS))('that has read %s', (how) => {
    const parsers = READERS[how]!;
    const standard = parsers.map(([oid]) => [oid, types.getTypeParser(oid, 'text')] as const);
    const set = (of: Parsers): void => {
      for (const [oid, parser] of of) types.setTypeParser(oid, parser as (text: string) => never);
    };

    beforeAll(() => set(parsers));
    afterAll(() => set(standard as Parsers));

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
        expect(record.expiresAt.getTime() - record.completedAt!.getTime()).toBe(24 * 3_600_000);
        const found = await app.app.get(IdempotencyService).find(record);
        expect(found?.response?.headers).toContainEqual(['content-type', first.headers['content-type']]);
        expect(found?.response?.status).toBe(201);
        expect(found?.response?.body.equals(first.body)).toBe(true);
        expect([found!.attempt, found!.state]).toEqual([1, 'completed']);
        expect(await app.app.get(IdempotencyService).release(record)).toBe('done');
        expect(await app.app.get(IdempotencyService).release(record)).toBe('absent');
        const again = await post(mode, key);
        expect([again.status, again.headers['idempotency-replayed']]).toEqual([201, undefined]);
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
