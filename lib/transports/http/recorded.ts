import { STATUS_CODES, type OutgoingHttpHeaders } from 'node:http';
import type { RecordedHeader, RecordedResponse } from '../../core/record.js';
import type { HeaderPolicy } from '../../http/header-policy.js';
import type { Answer } from './delivery.js';
import type { Trailers } from './written.js';

/*
 * What HTTP says beside headers is recorded among them, under names that no header can have (RFC 9110, section 5.6.2): the
 * reason phrase where it is not the standard one, and trailers as names and values in turn.
 */
const REASON = ':reason';
const TRAILERS = ':trailers';

/** An answer in identity coding, as it is recorded. */
export function recordedResponse(
  { status, statusMessage, headers, trailers, body }: Answer,
  policy: HeaderPolicy,
  baseline: OutgoingHttpHeaders,
): RecordedResponse {
  const recorded = policy.recorded(baseline, headers);
  if (statusMessage && statusMessage !== STATUS_CODES[status]) recorded.push([REASON, statusMessage]);
  const kept = trailers?.filter(([name]) => policy.isRecorded(name.toLowerCase())) ?? [];
  if (kept.length > 0) {
    recorded.push([TRAILERS, kept.flat()]);
    const announced = headers.trailer;
    if (announced !== undefined) recorded.push(['trailer', announced]);
  }
  return { status, headers: recorded, body };
}

/** The headers of the exchange in which an answer is replayed: at take-over, and as its hooks have left them. */
interface Exchanged {
  readonly baseline: OutgoingHttpHeaders;
  readonly current: OutgoingHttpHeaders;
}

/** A recorded answer, as it goes out in another exchange. */
export function replayedAnswer(
  response: RecordedResponse,
  status: number,
  policy: HeaderPolicy,
  { baseline, current }: Exchanged,
): Answer {
  const headers = policy.replayed(baseline, current, response.headers.filter(isHeader));
  const [reason] = valuesOf(response, REASON);
  const trailers = pairs(valuesOf(response, TRAILERS));
  return {
    status,
    // Another status has a reason of its own.
    statusMessage: status === response.status ? reason : undefined,
    headers,
    trailers: trailers.length > 0 ? trailers : undefined,
    body: response.body,
  };
}

function isHeader([name]: RecordedHeader): boolean {
  return !name.startsWith(':');
}

function valuesOf({ headers }: RecordedResponse, name: string): readonly string[] {
  const value = headers.find((each) => each[0] === name)?.[1];
  return typeof value === 'string' ? [value] : (value ?? []);
}

function pairs(flat: readonly string[]): Trailers {
  return flat.flatMap((value, index) => (index % 2 === 0 ? [[value, flat[index + 1] ?? ''] as const] : []));
}
