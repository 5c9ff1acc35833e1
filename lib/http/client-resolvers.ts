import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { IdempotencyUsageError } from '../core/errors.js';

/** What clients renew: a retry with a new one would be another client's, and run again. */
const RENEWED = new Set(['authorization', 'proxy-authorization', 'cookie']);

/**
 * The client is whoever sends this header's value, such as an API key. The table gets a SHA-256 of the value, never the
 * value itself. Put the guard that checks the key before it: guards run first.
 *
 * A client that gets a new value loses its keys: a retry with the new one runs again. `Authorization`,
 * `Proxy-Authorization` and `Cookie` hold what is renewed all the time, and are refused.
 *
 * @param name - The header's name, in any letter case.
 * @throws IdempotencyUsageError `IDEMPOTENCY_OPTIONS_INVALID` for a header of credentials that are renewed.
 */
export function clientFromHeader(
  name: string,
): (request: { headers: IncomingHttpHeaders }) => string | undefined {
  const header = name.toLowerCase();
  if (RENEWED.has(header)) {
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_OPTIONS_INVALID',
      `clientFromHeader('${name}') would make another client of one whose token or session is renewed, and its retry would run ` +
        'again. Use clientFromUser((user) => user.id), or, for bearer keys that never change, a function that hashes the key.',
    );
  }
  return ({ headers }) => {
    const value = headers[header];
    return typeof value === 'string' && value !== '' ? hash('sha256', value) : undefined;
  };
}

/**
 * The client is the user that a guard has put on `request.user`. A user whose id is not a non-empty string, a finite
 * number or a bigint is nobody: as text, all of them would be one client.
 *
 * @param id - What identifies the user for ever, such as its primary key: `clientFromUser((user: User) => user.id)`.
 */
export function clientFromUser<User>(
  id: (user: User) => string | number | bigint,
): (request: { user?: User }) => string | undefined {
  return ({ user }) => (user === undefined || user === null ? undefined : asText(id(user)));
}

/** Whatever the types say, an id comes from a token or a database. */
function asText(id: unknown): string | undefined {
  const identifies = (typeof id === 'string' && id !== '') || Number.isFinite(id) || typeof id === 'bigint';
  return identifies ? String(id) : undefined;
}

/**
 * Everybody is one client, said explicitly: any caller who sends the same key to the same endpoint gets the same
 * recorded answer. Only for services whose callers are all one party.
 *
 * @param name - The client's name in the table.
 */
export function sharedClient(name: string): () => string {
  return () => name;
}
