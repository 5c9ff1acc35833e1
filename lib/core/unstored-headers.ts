/** Secrets of one exchange. */
const SECRETS = new Set([
  ...['set-cookie', 'set-cookie2', 'cookie', 'authorization', 'proxy-authorization', 'www-authenticate'],
  ...['proxy-authenticate', 'authentication-info', 'proxy-authentication-info'],
]);

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
