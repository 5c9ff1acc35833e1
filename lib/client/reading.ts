import type { Answer } from './attempt.js';
import type { IdempotencySettings } from './settings.js';

/** What an answer says. */
export interface Reading {
  readonly status: number;
  readonly headers: Headers;
  /** JSON parsed, other text as a string, anything else as bytes; undefined when it is empty. */
  readonly body: unknown;
  /** Why a body that calls itself JSON is none. */
  readonly fault: string | undefined;
  readonly replayed: boolean;
  readonly createdAt: Date | undefined;
  /** The server's error codes, wherever it puts them. */
  readonly codes: readonly string[];
}

/** Reads an answer. Only calls with a key look for what tells of idempotency. */
export function read(
  { status, headers, bytes }: Answer,
  idempotency: IdempotencySettings | undefined,
): Reading {
  const { body, fault } = parse(bytes, headers.get('content-type') ?? '');
  const createdAt = idempotency && dateOf(headers.get(idempotency.createdAtHeader));
  return {
    status,
    headers,
    body,
    fault,
    replayed: idempotency !== undefined && headers.get(idempotency.replayedHeader) === 'true',
    createdAt,
    codes: status < 300 ? [] : codesOf(body),
  };
}

function parse(
  bytes: Uint8Array<ArrayBuffer>,
  contentType: string,
): { readonly body: unknown; readonly fault: string | undefined } {
  if (bytes.length === 0) return { body: undefined, fault: undefined };
  const isJson = /^[^;]*[/+]json\s*(;|$)/i.test(contentType);
  if (!isJson && !/^text\//i.test(contentType)) return { body: bytes, fault: undefined };
  const text = new TextDecoder().decode(bytes);
  if (!isJson) return { body: text, fault: undefined };
  try {
    return { body: JSON.parse(text), fault: undefined };
  } catch (error) {
    return { body: text, fault: (error as SyntaxError).message };
  }
}

/** `code`, `error.code` or `error`, as the APIs of this world have it. */
function codesOf(body: unknown): string[] {
  // What is no object has none.
  const { code, error } = Object(body) as { code?: unknown; error?: { code?: unknown } | string | null };
  const inner = typeof error === 'object' ? error?.code : error;
  return [code, inner].filter((each) => typeof each === 'string');
}

function dateOf(header: string | null): Date | undefined {
  const date = new Date(header ?? NaN);
  return Number.isNaN(date.getTime()) ? undefined : date;
}
