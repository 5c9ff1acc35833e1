import { createHmac, timingSafeEqual } from 'node:crypto';

/** Seconds that a signature holds: an old request, recorded by somebody on its way, is worth nothing. */
const TOLERANCE = 300;

/** What the provider sends along: when it signed, and with what result for each of its secrets. */
const SIGNATURE = /^t=(?<time>\d{1,12})(?:,v\d=[0-9a-f]+)+$/;

/** The header of a body that was signed at a time, in seconds since 1970. */
export function signWebhook(body: string | Buffer, secret: string, time: number): string {
  return `t=${time},v1=${digest(body, secret, time).toString('hex')}`;
}

/** Whether the header is a signature of these very bytes, made with the secret not long ago. */
export function isSignedWebhook(body: Buffer, header: unknown, secret: string, now: number): boolean {
  if (typeof header !== 'string') return false;
  const time = Number(SIGNATURE.exec(header)?.groups?.['time'] ?? NaN);
  if (!(Math.abs(now - time) <= TOLERANCE)) return false;
  const expected = digest(body, secret, time);
  const signatures = header.split(',').filter((part) => part.startsWith('v1='));
  return signatures.some((part) => isEqual(Buffer.from(part.slice('v1='.length), 'hex'), expected));
}

function digest(body: string | Buffer, secret: string, time: number): Buffer {
  return createHmac('sha256', secret).update(`${time}.`).update(body).digest();
}

function isEqual(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}
