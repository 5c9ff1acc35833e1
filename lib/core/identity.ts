import { hash } from 'node:crypto';
import { lengthened } from './lengthened.js';

/** Whose key it is, for which endpoint. The three parts are never concatenated. */
export interface Identity {
  readonly client: string;
  readonly endpoint: string;
  readonly key: string;
}

/**
 * Bytes of UTF-8 each part may have. Together they stay below the 2,704 bytes that an entry of a PostgreSQL B-tree
 * index may hold, so that a long identity is refused here and not by the database.
 */
export const MAX_IDENTITY_BYTES = { client: 512, endpoint: 512, key: 1024 } as const;

/**
 * The advisory lock of an identity within one table: a signed 64-bit number, as decimal digits.
 * Two identities that share a number by chance cannot run at the same time, which is harmless; each part is hashed
 * with its length, so that parts which are equal only when glued together do not collide.
 */
export function lockNumber(table: string, { client, endpoint, key }: Identity): string {
  return hash('sha256', lengthened(table, client, endpoint, key), 'buffer')
    .readBigInt64BE(0)
    .toString();
}

/** Whether PostgreSQL's `text` can hold it: no NUL, no lone surrogate, and at most so many bytes of UTF-8. */
export function isStorableText(text: string, maxBytes: number): boolean {
  return !/[\0\p{Surrogate}]/u.test(text) && Buffer.byteLength(text) <= maxBytes;
}
