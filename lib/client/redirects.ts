import type { Fetch, FetchInit } from './declaration.js';

const REDIRECTIONS: readonly number[] = [301, 302, 303, 307, 308];
/** As many as `fetch` follows (Fetch Standard, “HTTP-redirect fetch”). */
const MOST = 20;
/** Names under which secrets travel. */
const CREDENTIAL =
  /^cookie$|(?:^|-)(?:authorization|auth|token|secret|passw(?:or)?d|credentials?|api-?key|session(?:-?id)?|jwt)$/;

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
  let [at, headers] = [url, init.headers];
  for (let count = 0; count <= MOST; count++) {
    const response = await send(at, { ...init, headers: { ...headers } });
    const location = REDIRECTIONS.includes(response.status) ? response.headers.get('location') : null;
    if (location === null) return response;
    await response.body?.cancel();
    const next = new URL(location, at);
    if (!/^https?:$/.test(next.protocol)) throw new Error(`a redirection leads to ${next.protocol}`);
    if (next.origin !== new URL(at).origin) headers = headers['accept'] ? { accept: headers['accept'] } : {};
    at = next.href;
  }
  throw new Error(`there are more than ${MOST} redirections`);
}
