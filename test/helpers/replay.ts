import { expect } from '@jest/globals';
import type { LoggerService } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { postJson, type HttpRequestHeaders, type HttpResponse } from './http.js';

/**
 * Headers that a replay does not share with its original: those of one message and one connection, and those of this
 * library, which are looked at by name. Everything else is compared, the framing by content-length included: both
 * answers are sent from memory, so that a body of known length goes out with its length even where a stream wrote it.
 */
const OF_ONE_MESSAGE = new Set(['date', 'connection', 'keep-alive']);

/** The headers that a replay must share with its original. */
export function comparableHeaders({ headers }: HttpResponse): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => !OF_ONE_MESSAGE.has(name) && !name.startsWith('idempotency-')),
  );
}

/** Expects the second answer to be the replay of the first, byte for byte and header for header. */
export function expectReplay(original: HttpResponse, replay: HttpResponse): void {
  expect(original.headers['idempotency-replayed']).toBeUndefined();
  expect(replay.headers['idempotency-replayed']).toBe('true');
  expect(replay.headers['idempotency-key']).toBe(original.headers['idempotency-key']);
  expect(replay.headers['idempotency-created-at']).toBe(original.headers['idempotency-created-at']);
  expect({ status: replay.status, body: replay.body.toString('latin1') }).toEqual({
    status: original.status,
    body: original.body.toString('latin1'),
  });
  expect(comparableHeaders(replay)).toEqual(comparableHeaders(original));
}

/** Sends the same request twice, one after the other, under a key of their own. */
export async function sendTwice(
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<readonly [original: HttpResponse, replay: HttpResponse]> {
  const send = (): Promise<HttpResponse> => postJson(url, { a: 1 }, { 'Idempotency-Key': key, ...headers });
  const key = randomUUID();
  return [await send(), await send()];
}

/** Sends a JSON body with a key. */
export function postWithKey(
  url: string,
  key: string,
  body: unknown = { a: 1 },
  headers: Readonly<Record<string, string>> = {},
): Promise<HttpResponse> {
  const lines: HttpRequestHeaders = { 'Idempotency-Key': key, ...headers };
  return postJson(url, body, lines);
}

/** Keeps what Nest and the library log. */
export class RecordingLogger implements LoggerService {
  readonly lines: unknown[][] = [];

  log(...line: unknown[]): void {
    this.lines.push(line);
  }

  error(...line: unknown[]): void {
    this.lines.push(line);
  }

  warn(...line: unknown[]): void {
    this.lines.push(line);
  }

  debug(...line: unknown[]): void {
    this.lines.push(line);
  }

  verbose(...line: unknown[]): void {
    this.lines.push(line);
  }

  fatal(...line: unknown[]): void {
    this.lines.push(line);
  }
}
