import { createHash } from 'node:crypto';
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
    return typeof value === 'string' && value !== ''
      ? createHash('sha256').update(value).digest('hex')
      : undefined;
  };
}

/**
 * The client is the user that a guard has put on `request.user`.
 *
 * @param id - What identifies the user for ever, such as its primary key.
 */
export function clientFromUser<User>(
  id: (user: User) => string | number | bigint,
): (request: { user?: User }) => string | undefined {
  return ({ user }) => (user === undefined || user === null ? undefined : String(id(user)));
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
