import { validateHeaderName, validateHeaderValue } from 'node:http';
import { IdempotencyUsageError } from './errors.js';
import type { RecordedHeader, RecordedResponse } from './record.js';
import type { SettledResponse } from './reconcile.js';
import { isNeverStored } from './unstored-headers.js';

/**
 * A response that was put together by hand, as it is recorded.
 *
 * @throws IdempotencyUsageError `IDEMPOTENCY_ARGUMENT_INVALID` for what could not be replayed, or must not be stored.
 */
export function recordedFrom({ status = 200, body, headers = {} }: SettledResponse): RecordedResponse {
  if (!Number.isInteger(status) || status < 200 || status > 499)
    throw invalid('"status" must be an integer of 200 to 499');
  const own = Object.entries(headers).map(([name, value]) => recordedHeader(name, value));
  if (body === undefined) return { status, headers: own, body: Buffer.alloc(0) };
  if (body instanceof Uint8Array) return { status, headers: own, body: Buffer.from(body) };
  const hasType = own.some(([name]) => name === 'content-type');
  const type: RecordedHeader[] = hasType ? [] : [['content-type', 'application/json; charset=utf-8']];
  return { status, headers: [...own, ...type], body: Buffer.from(json(body)) };
}

function recordedHeader(name: string, value: string): RecordedHeader {
  try {
    validateHeaderName(name);
    validateHeaderValue(name, value);
  } catch (cause) {
    throw invalid(`"headers" has a name or a value that HTTP does not allow: "${name}"`, cause);
  }
  if (isNeverStored(name.toLowerCase()))
    throw invalid(`"headers" must not contain "${name}": it is never stored`);
  return [name.toLowerCase(), value];
}

function json(body: unknown): string {
  const text = JSON.stringify(body) as string | undefined;
  if (text === undefined) throw invalid('"body" must be JSON, bytes or absent');
  return text;
}

function invalid(what: string, cause?: unknown): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_ARGUMENT_INVALID', `${what}.`, { cause });
}
