import { describe, expect, it } from '@jest/globals';
import { read, type Reading } from '../../../lib/client/reading.js';
import { settingsOf } from '../../../lib/client/settings.js';

const { idempotency } = settingsOf({
  method: 'POST',
  baseUrl: 'https://api.example.com',
  path: '/charges',
  idempotency: {},
});

function reading(
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
  { status = 200, options = idempotency } = {},
): Reading {
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
  return read({ status, headers: new Headers(headers), bytes }, options);
}

describe('the body of an answer', () => {
  it.each([
    'application/json',
    'application/json; charset=utf-8',
    'application/json ;charset=utf-8',
    'Application/JSON',
    'application/problem+json',
    'application/vnd.api+json; charset=utf-8',
    'text/json',
  ])('is parsed when it is %s', (type) => {
    expect(reading('{"ref":"ü"}', { 'content-type': type })).toMatchObject({
      body: { ref: 'ü' },
      fault: undefined,
    });
  });

  it.each(['text/plain', 'text/html; charset=utf-8', 'TEXT/CSV', 'text/jsonl'])(
    'is text when it is %s',
    (type) => {
      expect(reading('{"ref":"ü"}', { 'content-type': type }).body).toBe('{"ref":"ü"}');
    },
  );

  it.each([
    'application/octet-stream',
    'image/png',
    'application/jsonl',
    'application/x; a="/json"',
    undefined,
  ])('is bytes when it is %s', (type) => {
    const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type };
    expect(reading(Uint8Array.of(0, 255, 1), headers).body).toEqual(Uint8Array.of(0, 255, 1));
  });

  it.each(['application/json', 'text/plain', 'image/png'])('is undefined when it is empty (%s)', (type) => {
    expect(reading('', { 'content-type': type })).toMatchObject({ body: undefined, fault: undefined });
  });

  it('is kept as text, with what is wrong, when it calls itself JSON and is none', () => {
    const { body, fault } = reading('<html>', { 'content-type': 'application/json' });
    expect(body).toBe('<html>');
    expect(fault).toMatch(/JSON/);
  });
});

describe('what an answer says of idempotency', () => {
  it('is read from the headers', () => {
    const answer = reading('', {
      'idempotency-replayed': 'true',
      'idempotency-created-at': '2026-01-02T03:04:05.678Z',
    });
    expect(answer).toMatchObject({ replayed: true, createdAt: new Date('2026-01-02T03:04:05.678Z') });
  });

  it('is read from headers of other names', () => {
    const { idempotency: options } = settingsOf({
      method: 'POST',
      baseUrl: 'https://api.example.com',
      path: '/charges',
      idempotency: { responseHeaders: { replayed: 'Idempotent-Replayed', createdAt: 'X-Original-Date' } },
    });
    const headers = { 'idempotent-replayed': 'true', 'x-original-date': 'Fri, 02 Jan 2026 03:04:05 GMT' };
    expect(reading('', headers, { options })).toMatchObject({
      replayed: true,
      createdAt: new Date('2026-01-02T03:04:05Z'),
    });
    expect(reading('', headers)).toMatchObject({ replayed: false, createdAt: undefined });
  });

  it.each(['false', '1', 'yes', 'TRUE', ''])('is not a replay when the header says %j', (value) => {
    expect(reading('', { 'idempotency-replayed': value }).replayed).toBe(false);
  });

  it.each(['', 'soon', '2026-13-01'])('has no time when the header says %j', (value) => {
    expect(reading('', { 'idempotency-created-at': value }).createdAt).toBeUndefined();
  });

  it('is not looked for by a call without a key', () => {
    const headers = new Headers({
      'idempotency-replayed': 'true',
      'idempotency-created-at': '2026-01-02T03:04:05Z',
    });
    const answer = read({ status: 200, headers, bytes: new Uint8Array() }, undefined);
    expect(answer).toMatchObject({ replayed: false, createdAt: undefined });
  });
});

describe('error codes', () => {
  const codes = (body: unknown, status = 409): readonly string[] =>
    reading(JSON.stringify(body), { 'content-type': 'application/json' }, { status }).codes;

  it.each([
    [{ code: 'A' }, ['A']],
    [{ error: 'B' }, ['B']],
    [{ error: { code: 'C' } }, ['C']],
    [{ code: 'A', error: { code: 'C' } }, ['A', 'C']],
    [{ code: 409, error: { code: 7 } }, []],
    [{ code: null, error: null }, []],
    [{ message: 'A' }, []],
    [null, []],
    ['A', []],
    [[{ code: 'A' }], []],
  ])('of %j are %j', (body, expected) => {
    expect(codes(body)).toEqual(expected);
  });

  it('are none of a success, whatever its body says', () => {
    expect(codes({ code: 'IDEMPOTENCY_IN_PROGRESS' }, 200)).toEqual([]);
    expect(codes({ code: 'IDEMPOTENCY_IN_PROGRESS' }, 299)).toEqual([]);
  });

  it('are none of what is no JSON', () => {
    expect(reading('{"code":"A"}', { 'content-type': 'text/plain' }, { status: 409 }).codes).toEqual([]);
  });
});
