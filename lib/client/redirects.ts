import type { Fetch, FetchInit } from './declaration.js';

const REDIRECTIONS: readonly number[] = [301, 302, 303, 307, 308];
/** As many as `fetch` follows (Fetch Standard, “HTTP-redirect fetch”). */
const MOST = 20;
/** Names under which secrets travel. */
const CREDENTIAL = /cookie|auth|token|key|secret|passw|credential|session/;

/** Whether headers hold what is for one server alone. Names are in lower case. */
export function holdCredentials(names: readonly string[]): boolean {
  return names.some((name) => CREDENTIAL.test(name));
}

/**
 * Follows redirections of a read that carries credentials: within an origin as they are, and to another one with nothing but
 * `accept`. `fetch` would take `Authorization` from the request, and no other header.
 *
 * @throws Error for one that leads nowhere, and for one too many.
 */
export async function follow(send: Fetch, url: string, init: FetchInit): Promise<Response> {
  let { headers } = init;
  for (let count = 0; count <= MOST; count++) {
    const response = await send(url, { ...init, headers: { ...headers } });
    const location = REDIRECTIONS.includes(response.status) && response.headers.get('location');
    if (!location) return response;
    await response.body?.cancel();
    const { href, origin, protocol } = new URL(location, url);
    if (!/^http/.test(protocol)) break;
    if (origin !== new URL(url).origin) headers = { accept: headers['accept'] ?? '*/*' };
    url = href;
  }
  throw new Error('redirections lead nowhere');
}
