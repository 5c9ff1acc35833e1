/**
 * Secrets of one exchange, by name. Kept out whatever the options say.
 *
 * - Cookies: RFC 6265, and RFC 2965 before it. Authentication: RFC 9110, section 11; RFC 7615.
 * - Tokens against forged requests, under the names of Angular, Rails, Spring Security and csurf: OWASP, “Cross-Site Request
 *   Forgery Prevention”.
 * - Credentials of widely used servers: OpenStack Keystone and Spring Session (`X-Auth-Token`, `X-Subject-Token`), AWS
 *   (`X-Amz-Security-Token`), HashiCorp Vault, GitLab (`Private-Token`, `Job-Token`), Shopify, Google (`X-Goog-Api-Key`).
 */
const SECRETS = new Set([
  ...['set-cookie', 'set-cookie2', 'cookie', 'authorization', 'proxy-authorization', 'www-authenticate'],
  ...['proxy-authenticate', 'authentication-info', 'proxy-authentication-info'],
  ...['x-csrf-token', 'csrf-token', 'x-xsrf-token', 'xsrf-token'],
  ...[
    'x-auth-token',
    'x-subject-token',
    'x-amz-security-token',
    'x-vault-token',
    'private-token',
    'job-token',
  ],
  ...['x-shopify-access-token', 'x-goog-api-key', 'x-api-key', 'api-key', 'apikey', 'x-access-token'],
  ...['x-refresh-token', 'x-id-token', 'x-session-token', 'x-session-id'],
]);

/**
 * Names that sound like a secret's, after the list of what is filtered from logs by default in Rails
 * (`ActiveSupport::ParameterFilter` as `rails new` sets it up) and in Sentry (“data scrubbing”). It may be wrong about one, so
 * that a route may allow it.
 */
const SECRET_WORDS =
  /(?:^|-)(?:token|secret|passw(?:or)?d|passphrase|credentials?|auth|api-?key|private-?key|secret-?key|session(?:-?id)?|jwt|otp)$/;

/** Headers that belong to one connection (RFC 9110, section 7.6.1) or one message. */
const FRAMING = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'],
  ...['content-length', 'date'],
]);

/** Whether a header belongs to one connection or one message. The name is in lower case. */
export function isFraming(name: string): boolean {
  return FRAMING.has(name);
}

/** Whether a header is kept out of the table whatever the options say. The name is in lower case. */
export function isNeverStored(name: string): boolean {
  return SECRETS.has(name) || FRAMING.has(name);
}

/** Whether a header is kept out of the table unless it is allowed by name. The name is in lower case. */
export function looksSecret(name: string): boolean {
  return SECRET_WORDS.test(name);
}
