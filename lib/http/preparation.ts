import type { ExecutionContext } from '@nestjs/common';
import { idempotencyError, type IdempotencyError } from '../core/errors.js';
import { isStorableText, MAX_IDENTITY_BYTES, type Identity } from '../core/identity.js';
import { readKey } from '../core/key.js';
import type { Claim } from '../core/store.js';
import type { Exchange } from './exchange.js';
import { fingerprintOf } from './fingerprinting.js';
import { echoedKey } from './key-source.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';

/** A request read and checked, before the store is asked. */
export type Preparation = { readonly kind: 'claim'; readonly claim: Claim } | Unclaimable;

/** Who asks for what, before the body is looked at. `sentKey` is the key as the client sent it, for the echo. */
export type Identification =
  | { readonly kind: 'identified'; readonly identity: Identity; readonly sentKey: string | undefined }
  | Unclaimable;

/** A request that ends here. */
type Unclaimable = { readonly sentKey?: string | undefined } &
  /** The key is optional and absent. */
  ({ readonly kind: 'unprotected' } | { readonly kind: 'refused'; readonly error: IdempotencyError });

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
    return keyLookup.mayHide(exchange)
      ? { kind: 'refused', error: idempotencyError('IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE') }
      : { kind: 'unprotected' };
  }
  if (reading.kind === 'refused') return { kind: 'refused', error: reading.error };
  const sentKey = echoedKey(keyLookup.source, sent);
  const client = await settings.client(exchange.request as never, context);
  if (typeof client !== 'string' || client === '' || !isStorableText(client, MAX_IDENTITY_BYTES.client)) {
    return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_CLIENT_UNRESOLVED'), sentKey };
  }
  const endpoint = routes.endpointOf(plan, exchange);
  if (endpoint === undefined || !isStorableText(endpoint, MAX_IDENTITY_BYTES.endpoint)) {
    return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_ENDPOINT_AMBIGUOUS'), sentKey };
  }
  return { kind: 'identified', identity: { client, endpoint, key: reading.key }, sentKey };
}

/** Adds the fingerprint of what is asked for. */
export async function prepare(
  identification: Identification,
  exchange: Exchange,
  { settings }: RoutePlan,
): Promise<Preparation> {
  if (identification.kind !== 'identified') return identification;
  const { identity } = identification;
  const print = await fingerprintOf(exchange, settings.fingerprint);
  if (!Buffer.isBuffer(print)) return { kind: 'refused', error: print };
  const { ttl, maxDuration, mode } = settings;
  return { kind: 'claim', claim: { identity, fingerprint: print, ttl, maxDuration, mode } };
}
