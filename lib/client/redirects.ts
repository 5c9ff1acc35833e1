import type { Fetch, FetchInit } from './declaration.js';

const REDIRECTION = /30[12378]/;
/** As many as `fetch` follows (Fetch Standard, “HTTP-redirect fetch”). */
const MOST = 20;
/** What names of headers have in them that hold what is for one server alone, in lower case. */
export const CREDENTIAL = /cookie|auth|token|key|secret|session|passw|credential/;

/**
 * Follows redirections of a read that carries credentials: within an origin as they are, and to another one with nothing but
 * `accept`. `fetch` would take `Authorization` from the request, and no other header.
 *
 * @throws Error for one too many; what `fetch` throws for one that leads nowhere.
 */
export async function follow(send: Fetch, url: string, init: FetchInit, left = MOST): Promise<Response> {
  const response = await send(url, init);
  const location = REDIRECTION.test(`${response.status}`) && response.headers.get('location');
  if (!location) return response;
  if (!left) throw new Error('too many redirections');
  const next = new URL(location, url);
  const { accept = '*/*' } = init.headers;
  const headers = next.origin === new URL(url).origin ? { ...init.headers } : { accept };
  return follow(send, next.href, { ...init, headers }, left - 1);
}
