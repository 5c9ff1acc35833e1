import { idempotencyError, type IdempotencyError } from '../core/errors.js';
import { fingerprint, type FingerprintBody } from '../core/fingerprint.js';
import type { FingerprintOptions } from '../idempotency.options.js';
import type { Exchange } from './exchange.js';
import { digestsOf, uploadOf } from './multipart.js';
import { fingerprintInput, inputWith, isMultipart, rawBody } from './request-reading.js';

/** What counts of a request on one route. */
export type FingerprintRules =
  | 'raw'
  | (FingerprintOptions & {
      /** Fields whose files do not count, where they are others than those of `exclude`. */
      readonly excludeFiles?: readonly string[] | undefined;
    });

/** What is said of a body that cannot be compared, where more is known than that no parser has read it. */
const REMEDIES = {
  raw:
    'The route compares the bytes of the body, and the server has not kept them. On the server, create the application ' +
    'with `rawBody: true`, and have a body parser for this media type.',
  unread:
    'The server has not read the fields and files of this upload before its handler. On Express, add an upload ' +
    'interceptor such as `FileInterceptor` to the route; on Fastify, register @fastify/multipart with ' +
    '`attachFieldsToBody`; or set `fingerprint.compute` on the route.',
  unknown:
    'The server keeps the files of this upload where their content cannot be compared. On the server, set ' +
    '`fingerprint.compute` on the route, for example to the checksums that the storage gives.',
  uncanonical:
    'The parsed body is nested deeper than 1000 levels, or holds values that JSON does not have. Send a plainer body; on the ' +
    'server, set `fingerprint.compute` on the route.',
} as const;

/** Whether what a request asks for can only be said when an upload interceptor has read it. */
export function awaitsUpload(exchange: Exchange, options: FingerprintRules): boolean {
  return options !== 'raw' && isMultipart(exchange) && !uploadOf(exchange);
}

/** The fingerprint of a request, or why it has none. What the application's own function throws is thrown. */
export async function fingerprintOf(
  exchange: Exchange,
  options: FingerprintRules,
): Promise<Buffer | IdempotencyError> {
  if (options === 'raw') {
    const body = rawBody(exchange);
    return body ? fingerprintWith(exchange, body) : unfingerprintable('raw');
  }
  const { compute, exclude, excludeFiles } = options;
  if (compute) {
    return fingerprintWith(exchange, { kind: 'custom', value: await compute(exchange.request as never) });
  }
  if (isMultipart(exchange)) {
    const upload = uploadOf(exchange);
    if (!upload) return unfingerprintable('unread');
    const files = await digestsOf(upload.files);
    if (!files) return unfingerprintable('unknown');
    const body = { kind: 'multipart', fields: upload.fields, files } as const;
    return fingerprint(inputWith(exchange, body), exclude, excludeFiles) ?? unfingerprintable('uncanonical');
  }
  const input = fingerprintInput(exchange);
  return input ? (fingerprint(input, exclude) ?? unfingerprintable('uncanonical')) : unfingerprintable();
}

function fingerprintWith(exchange: Exchange, body: FingerprintBody): Buffer | IdempotencyError {
  return fingerprint(inputWith(exchange, body)) ?? unfingerprintable('uncanonical');
}

function unfingerprintable(reason?: keyof typeof REMEDIES): IdempotencyError {
  return idempotencyError('IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE', reason && { detail: REMEDIES[reason] });
}
