/** Milliseconds between attempts. */
export interface Backoff {
  readonly base: number;
  readonly max: number;
}

/** The first two of the three forms of RFC 9110, section 5.6.7, and the third, which names no zone but means GMT. */
const GMT_DATE = /^[A-Z][a-z]+, (\d\d [A-Z][a-z]{2} \d{4}|\d\d-[A-Z][a-z]{2}-\d\d) \d\d:\d\d:\d\d GMT$/;
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d \d{4}$/;

/**
 * Milliseconds to wait after that many failures: exponential growth with full jitter, so that callers who failed together
 * do not come back together.
 *
 * What `Retry-After` asks for is the least; the jitter of a first pause is added, for the same reason.
 *
 * @param random - Uniform in [0, 1).
 * @see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function pauseAfter(
  failures: number,
  { base, max }: Backoff,
  retryAfter: number | undefined,
  random: number,
): number {
  if (retryAfter !== undefined) return retryAfter + Math.round(random * Math.min(base, max));
  // Beyond 2^31 the exponent has long passed any maximum.
  return Math.round(random * Math.min(max, base * 2 ** Math.min(failures - 1, 31)));
}

/**
 * Milliseconds that a `Retry-After` header asks for, in seconds or as a date; undefined when it says neither.
 *
 * @param now - Milliseconds since 1970, which a date is compared with.
 * @see RFC 9110, section 10.2.3
 */
export function parseRetryAfter(header: string | null, now: number): number | undefined {
  const value = header?.trim() ?? '';
  if (/^\d+$/.test(value)) return Number(value) * 1_000;
  // Date.parse takes much that is no date of HTTP, such as "1.5", and asctime() for local time.
  const date = Date.parse(GMT_DATE.test(value) ? value : ASCTIME.test(value) ? `${value} GMT` : '');
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
