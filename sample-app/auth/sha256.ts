import { createHash } from 'node:crypto';

/** Digest of a secret. Secrets are long and random, so that a slow hash with salt would protect nothing more. */
export function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
