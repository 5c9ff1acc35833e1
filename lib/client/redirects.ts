import type { Fetch, FetchInit } from './declaration.js';
import { isWrite } from './method.js';

const REDIRECTION = /30[12378]/;
/** As many as `fetch` follows (Fetch Standard, “HTTP-redirect fetch”). */
const MOST = 20;
/** What names of headers have in them that hold what is for one server alone, in lower case. */
export const CREDENTIAL = /auth|cookie|credential|key|passw|secret|session|token/;

/**
 * Follows redirections of a read that carries credentials, which `fetch` is not to follow: within an origin as they are, and to
 * another one with nothing but `accept`. `fetch` would take `Authorization` from the request, and no other header.
 *
 * @throws Error for one too many; what `fetch` throws for one that leads nowhere.
 */
export async function follow(send: Fetch, url: string, init: FetchInit, left = MOST): Promise<Response> {
  const response = await send(url, init);
  const location = response.headers.get('location');
  if (!location || isWrite(init.method) || !REDIRECTION.test(`${response.status}`)) return response;
  if (!left) throw new Error('too many redirects');
  const { href, origin } = new URL(location, url);
  const { accept = '' } = init.headers;
  const headers = url.startsWith(`${origin}/`) ? init.headers : { accept };
  return follow(send, href, { ...init, headers }, left - 1);
}
