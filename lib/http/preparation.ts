import type { ExecutionContext } from '@nestjs/common';
import { idempotencyError, type IdempotencyError } from '../core/errors.js';
import { fingerprint } from '../core/fingerprint.js';
import { isStorableText, MAX_IDENTITY_BYTES } from '../core/identity.js';
import { readKey } from '../core/key.js';
import type { Claim } from '../core/store.js';
import type { Exchange } from './exchange.js';
import { echoedKey } from './key-source.js';
import { fingerprintInput } from './request-reading.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';

/** A request read and checked, before the store is asked. `sentKey` is the key as the client sent it, for the echo. */
export type Preparation = { readonly sentKey?: string } & (
  | { readonly kind: 'claim'; readonly claim: Claim }
  /** The key is optional and absent. */
  | { readonly kind: 'unprotected' }
  | { readonly kind: 'refused'; readonly error: IdempotencyError }
);

/** Reads key, client and fingerprint. What the application's own functions throw goes to its exception filters. */
export async function prepare(
  context: ExecutionContext,
  exchange: Exchange,
  plan: RoutePlan,
  routes: RouteRegistry,
): Promise<Preparation> {
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
  const print = await fingerprintOf(exchange, plan);
  if (!print)
    return { kind: 'refused', error: idempotencyError('IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE'), sentKey };
  const { ttl, maxDuration, mode } = settings;
  const identity = { client, endpoint, key: reading.key };
  return {
    kind: 'claim',
    claim: { identity, fingerprint: print, ttl, maxDuration, mode },
    sentKey,
  };
}

async function fingerprintOf(exchange: Exchange, { settings }: RoutePlan): Promise<Buffer | undefined> {
  const { compute, exclude } = settings.fingerprint;
  if (!compute) {
    const input = fingerprintInput(exchange);
    return input && fingerprint(input, exclude);
  }
  const value = await compute(exchange.request as never);
  const input = fingerprintInput({ ...exchange, body: '' });
  return input && fingerprint({ ...input, body: { kind: 'custom', value } });
}
