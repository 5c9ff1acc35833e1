import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/**
 * The client is whoever sends this header's value, such as an API key. The table gets a SHA-256 of the value, never the
 * value itself. Put the guard that checks the key before it: guards run first.
 *
 * @param name - The header's name, in any letter case.
 */
export function clientFromHeader(
  name: string,
): (request: { headers: IncomingHttpHeaders }) => string | undefined {
  const header = name.toLowerCase();
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
