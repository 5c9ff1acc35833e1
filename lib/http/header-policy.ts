import type { OutgoingHttpHeader, OutgoingHttpHeaders } from 'node:http';
import type { RecordedHeader } from '../core/record.js';
import { isFraming, isNeverStored, looksSecret } from '../core/unstored-headers.js';

/** Headers that describe the current exchange rather than the operation: a replay has its own. */
const OF_THE_EXCHANGE =
  /^(?:access-control-.*|(?:x-)?rate-?limit.*|(?:x-)?request-id|(?:x-)?correlation-id|traceparent|tracestate|x-trace-id|x-b3-.*|b3|x-amzn-trace-id|x-cloud-trace-context|server-timing|x-response-time|idempotency-.*)$/;

/**
 * Headers that say what the body is, or what belongs to it (RFC 9110, sections 8 and 10; RFC 6266; RFC 8288). They are
 * recorded whatever was there before: what middleware set from the request of the original, a retry may ask otherwise.
 */
const ABOUT_THE_ANSWER = new Set([
  ...['content-type', 'content-language', 'content-disposition', 'content-location', 'content-range'],
  ...['etag', 'last-modified', 'vary', 'location', 'link'],
]);

/** Which headers are recorded, and which a replay takes from its own exchange. */
export class HeaderPolicy {
  readonly #allow: ReadonlySet<string>;
  readonly #deny: ReadonlySet<string>;

  /** `own` are the names that this library gives to headers of its own, which every answer gets anew. */
  constructor(
    options: { allow?: readonly string[]; deny?: readonly string[] } = {},
    own: readonly string[] = [],
  ) {
    this.#allow = new Set(options.allow?.map((name) => name.toLowerCase()));
    this.#deny = new Set([...own, ...(options.deny ?? [])].map((name) => name.toLowerCase()));
  }

  isRecorded(name: string): boolean {
    if (isNeverStored(name) || this.#deny.has(name)) return false;
    return this.#allow.has(name) || !(OF_THE_EXCHANGE.test(name) || looksSecret(name));
  }

  /** What the handler and what wraps it changed since take-over: values set, and null for what was removed. */
  recorded(baseline: OutgoingHttpHeaders, sent: OutgoingHttpHeaders): RecordedHeader[] {
    const headers: RecordedHeader[] = [];
    for (const name in sent) {
      const value = plain(sent[name]);
      // Most headers have not changed, which is soon told.
      const counts = ABOUT_THE_ANSWER.has(name) || !isSame(plain(baseline[name]), value);
      if (counts && this.isRecorded(name)) headers.push([name, value]);
    }
    for (const name in baseline) {
      if (!(name in sent) && this.isRecorded(name)) headers.push([name, null]);
    }
    return headers;
  }

  /**
   * The headers of a replay: what the current exchange brings, with the recorded ones over it. No handler ran in it, so
   * that whatever is never recorded, cookies included, comes from hooks and is this client's own.
   */
  replayed(
    baseline: OutgoingHttpHeaders,
    current: OutgoingHttpHeaders,
    recorded: readonly RecordedHeader[],
  ): OutgoingHttpHeaders {
    const headers: OutgoingHttpHeaders = { ...baseline };
    for (const name in current) {
      if (!this.isRecorded(name) && !isFraming(name)) headers[name] = current[name];
    }
    for (const [name, value] of recorded) {
      if (value === null) Reflect.deleteProperty(headers, name);
      else headers[name] = typeof value === 'string' ? value : [...value];
    }
    return headers;
  }

  /** What was there at take-over, and what hooks of this exchange added since; nothing of the held response. */
  ofTheExchange(baseline: OutgoingHttpHeaders, current: OutgoingHttpHeaders): OutgoingHttpHeaders {
    const added = Object.entries(current).filter(
      ([name]) => OF_THE_EXCHANGE.test(name) && !this.isRecorded(name),
    );
    return { ...baseline, ...Object.fromEntries(added) };
  }
}

type PlainValue = string | readonly string[] | null;

function plain(value: OutgoingHttpHeader | undefined): PlainValue {
  if (value === undefined) return null;
  return Array.isArray(value) ? value : String(value);
}

function isSame(a: PlainValue, b: PlainValue): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
