import { createHash } from 'node:crypto';
import type { Identity } from './identity.js';

/**
 * A key to hand on to an outside service: the same for every attempt of one identity, another for every name, and telling
 * nothing of the identity. 43 characters of base64url, 256 bits.
 */
export function derivedKey({ client, endpoint, key }: Identity, name: string): string {
  const hash = createHash('sha256');
  for (const part of ['nestjs-pg-idempotency:derived-key', client, endpoint, key, name]) {
    hash.update(`${Buffer.byteLength(part)}:`).update(part);
  }
  return hash.digest('base64url');
}
