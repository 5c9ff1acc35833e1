import type { ExecutionContext } from '@nestjs/common';
import type { KeySource } from '../core/errors.js';
import type { KeyOptions } from '../idempotency.options.js';
import type { Exchange } from './exchange.js';
import { uploadOf } from './multipart.js';
import { headerLines, isMultipart, parsedBody } from '../transports/http/request.js';

/** Where a route finds its keys, and how. */
export interface KeyLookup {
  readonly source: KeySource;
  /** What is there: nothing, one value of whatever type, or more than one header line. */
  readonly read: (
    exchange: Exchange,
    context: ExecutionContext,
  ) => readonly unknown[] | Promise<readonly unknown[]>;
  /** Whether a key could be there that was not seen. */
  readonly mayHide: (exchange: Exchange) => boolean;
}

const nothingHides = (): boolean => false;

/** The lookup of the narrowest layer that names a source; a header where none does. */
export function keyLookup(layers: readonly (KeyOptions | undefined)[]): KeyLookup {
  const { header = 'Idempotency-Key', body, from } = layers.findLast(namesSource) ?? {};
  if (from !== undefined) {
    return {
      source: { kind: 'from', name: 'idempotency key' },
      read: async ({ request }, context) => present(await from(request as never, context)),
      mayHide: nothingHides,
    };
  }
  if (body !== undefined) {
    return {
      source: { kind: 'body', name: body },
      read: (exchange) => present(fieldOf(exchange.body, body)),
      mayHide: isUnread,
    };
  }
  return {
    source: { kind: 'header', name: header },
    read: (exchange) => headerLines(exchange, header),
    mayHide: nothingHides,
  };
}

/**
 * The key as the client sent it, for the echo. What comes from elsewhere than a header need not fit into one: line breaks
 * would end it, and beyond ASCII there is no encoding that both sides know.
 */
export function echoedKey({ kind }: KeySource, [value]: readonly unknown[]): string | undefined {
  if (typeof value !== 'string') return undefined;
  return kind === 'header' || /^[\x20-\x7e]*$/.test(value) ? value : undefined;
}

function namesSource(key: KeyOptions | undefined): boolean {
  return key?.header !== undefined || key?.body !== undefined || key?.from !== undefined;
}

function present(value: unknown): unknown[] {
  return value === undefined ? [] : [value];
}

function fieldOf(body: unknown, field: string): unknown {
  if (!isObject(body) || Array.isArray(body) || !Object.hasOwn(body, field)) return undefined;
  return (body as Record<string, unknown>)[field];
}

/** Whether there is a body of which no parser has made anything. */
function isUnread(exchange: Exchange): boolean {
  const { body } = exchange;
  if (isObject(body) && !(body instanceof Uint8Array) && Object.keys(body).length > 0) return false;
  // A form of files only leaves a body without fields.
  if (isMultipart(exchange)) return !uploadOf(exchange);
  const kind = parsedBody(exchange)?.kind;
  return kind !== 'parsed' && kind !== 'empty';
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
