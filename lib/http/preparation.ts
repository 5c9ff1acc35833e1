import type { ExecutionContext } from '@nestjs/common';
import { NotCanonicalError } from '../core/canonical.js';
import { idempotencyError, type IdempotencyError } from '../core/errors.js';
import { fingerprint, type FingerprintBody } from '../core/fingerprint.js';
import { isStorableText, MAX_IDENTITY_BYTES, type Identity } from '../core/identity.js';
import { readKey } from '../core/key.js';
import type { Claim } from '../core/store.js';
import {
  arrivesEmpty,
  EMPTY,
  headerValues,
  isMultipart,
  mediaTypeOf,
  parsedBody,
  rawBody,
  type Target,
} from '../transports/http/request.js';
import type { Exchange } from './exchange.js';
import { echoedKey } from './key-source.js';
import { digestsOf, uploadOf } from './multipart.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';
import type { FingerprintRules } from './route-settings.js';

/** A request read and checked, before the store is asked. */
export type Preparation = { readonly kind: 'claim'; readonly claim: Claim } | Unclaimable;

/** Who asks for what, before the body is looked at. `sentKey` is the key as the client sent it, for the echo. */
export type Identification = Identified | Unclaimable;

interface Identified {
  readonly kind: 'identified';
  readonly identity: Identity;
  readonly target: Target;
  readonly sentKey: string | undefined;
}

/** A request that ends here. */
type Unclaimable = { readonly sentKey?: string | undefined } &
  /** The key is optional and absent. */
  ({ readonly kind: 'unprotected' } | { readonly kind: 'refused'; readonly error: IdempotencyError });

/** What is said of a body that cannot be compared, where more is known than that no parser has read it. */
const REMEDIES = {
  raw:
    'The route compares the bytes of the body, and the server has not kept them. On the server, create the application ' +
    'with `rawBody: true`, and have a body parser for this media type.',
  unread:
    'The server has not read the fields and files of this upload before its handler. On Express, add an upload ' +
    'interceptor such as `FileInterceptor` to the route; on Fastify, register @fastify/multipart with ' +
    '`attachFieldsToBody`; or set `fingerprint.body` on the route to a function.',
  unknown:
    'The server keeps the files of this upload where their content cannot be compared. On the server, set ' +
    '`fingerprint.body` on the route to a function, for example of the checksums that the storage gives.',
} as const;

/** Reads key and client. What the application's own functions throw goes to its exception filters. */
export async function identify(
  context: ExecutionContext,
  exchange: Exchange,
  plan: RoutePlan,
  routes: RouteRegistry,
): Promise<Identification> {
  const { settings } = plan;
  const { keyLookup, keyRules } = settings;
  const sent = await keyLookup.read(exchange, context);
  const reading = readKey(sent, keyRules);
  if (reading.kind === 'absent') {
    return keyLookup.mayHide(exchange) && !(await arrivesEmpty(exchange, settings.maxDuration))
      ? { kind: 'refused', error: idempotencyError('IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE') }
      : { kind: 'unprotected' };
  }
  if (reading.kind === 'refused') return { kind: 'refused', error: reading.error };
  const sentKey = echoedKey(keyLookup.source, sent);
  const client = await settings.client(exchange.request as never, context);
  if (typeof client !== 'string' || client === '' || !isStorableText(client, MAX_IDENTITY_BYTES.client)) {
    return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_CLIENT_UNRESOLVED'), sentKey };
  }
  const target = routes.targetOf(plan, exchange);
  if (target === undefined || !isStorableText(target.endpoint, MAX_IDENTITY_BYTES.endpoint)) {
    return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_ENDPOINT_AMBIGUOUS'), sentKey };
  }
  const identity = { client, endpoint: target.endpoint, key: reading.key };
  return { kind: 'identified', identity, target, sentKey };
}

/** Adds the fingerprint of what is asked for. What the application's own function throws is thrown. */
export async function prepare(
  identification: Identification,
  exchange: Exchange,
  { settings }: RoutePlan,
): Promise<Preparation> {
  if (identification.kind !== 'identified') return identification;
  const { identity, target } = identification;
  const { ttl, maxDuration, mode, fingerprint: rules } = settings;
  const body = await comparableBody(exchange, rules.body, maxDuration);
  if (typeof body === 'string') return unfingerprintable(body === 'unparsed' ? undefined : REMEDIES[body]);
  const headers = rules.headers.map((name) => [name, ...headerValues(exchange, name).map(String)]);
  const mediaType = body.kind === 'empty' ? '' : mediaTypeOf(exchange.rawRequest);
  try {
    const print = fingerprint({ ...target, headers, mediaType, body }, rules.exclusions);
    return { kind: 'claim', claim: { identity, fingerprint: print, ttl, maxDuration, mode } };
  } catch (error) {
    if (!(error instanceof NotCanonicalError)) throw error;
    return unfingerprintable(
      `In the body that the server parsed, ${error.message}, which cannot be compared. On the server, have the parser ` +
        'make plain values, or set `fingerprint.body` on the route to a function.',
    );
  }
}

/** Whether what a request asks for can only be said when an upload interceptor has read it. */
export function awaitsUpload(exchange: Exchange, { body }: FingerprintRules): boolean {
  return body !== 'raw' && isMultipart(exchange) && !uploadOf(exchange);
}

/** The body as the route compares it, or why it cannot. */
async function comparableBody(
  exchange: Exchange,
  how: FingerprintRules['body'],
  patience: number,
): Promise<FingerprintBody | 'raw' | 'unread' | 'unknown' | 'unparsed'> {
  if (typeof how === 'function') return { kind: 'custom', value: await how(exchange.request as never) };
  if (how === 'parsed' && isMultipart(exchange)) {
    const upload = uploadOf(exchange);
    const files = upload && (await digestsOf(upload.files));
    if (!upload || !files) return upload ? 'unknown' : 'unread';
    return { kind: 'multipart', fields: upload.fields, files };
  }
  const read = how === 'raw' ? rawBody(exchange) : parsedBody(exchange);
  if (read) return read;
  if (await arrivesEmpty(exchange, patience)) return EMPTY;
  return how === 'raw' ? 'raw' : 'unparsed';
}

function unfingerprintable(detail?: string): Preparation {
  const facts = detail === undefined ? {} : { detail };
  return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE', facts) };
}
