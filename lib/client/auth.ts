/** A secret, or where it comes from at the time of the call. */
export type Secret = string | (() => string | Promise<string>);

/** Gives the headers that authenticate a call; asked once for each call, not for each attempt. */
export type Auth = () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;

/**
 * The secret in an environment variable, read when a call is made: neither the declaration nor the caller holds it.
 *
 * @example
 * ```ts
 * auth: bearer(env('API_TOKEN')),
 * ```
 */
export function env(name: string): () => string {
  return () => {
    const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
    const value = process?.env?.[name];
    if (!value) throw new Error(`the environment variable ${name} is not set`);
    return value;
  };
}

/** `Authorization: Bearer …`. */
export function bearer(secret: Secret): Auth {
  return async () => ({ authorization: `Bearer ${await reveal(secret)}` });
}

/**
 * A secret in a header of its own. For several headers write a function that returns them.
 *
 * @example
 * ```ts
 * auth: apiKey('X-API-Key', env('SUPPORT_API_KEY')),
 * ```
 */
export function apiKey(header: string, secret: Secret): Auth {
  return async () => ({ [header]: await reveal(secret) });
}

async function reveal(secret: Secret): Promise<string> {
  const value = typeof secret === 'string' ? secret : await secret();
  if (!value) throw new Error('the secret is empty');
  return value;
}
