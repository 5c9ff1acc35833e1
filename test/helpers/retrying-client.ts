import { setTimeout as delay } from 'node:timers/promises';
import { startRequest, type HttpRequestHeaders, type HttpResponse } from './http.js';

/** What to ask for, again and again. */
export interface RetryOptions {
  readonly key: string;
  /** Sent as JSON, the same bytes each time. Default: `{}`. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds within which there has to be an answer. Default: 30 000. */
  readonly timeoutMs?: number;
  /** Milliseconds at most between two attempts, whatever `Retry-After` asks for. Default: 50. */
  readonly maxPauseMs?: number;
}

/** An answer, and what it took to get it. */
export interface RetriedAnswer {
  readonly answer: HttpResponse;
  /** How often it was asked for, the last time included. */
  readonly attempts: number;
  /** Why each of the others was not it: `503`, `409`, or the code of a broken connection such as `ECONNRESET`. */
  readonly failures: readonly string[];
}

/**
 * Posts under one key until there is an answer that a client would take for final, as clients are told to. Broken
 * connections, 5xx and whatever carries `Retry-After` are retried. The URL may be a function that says where to go next.
 *
 * @throws Error when the time is over: something is wedged.
 */
export async function retryUntilAnswered(
  url: string | (() => string),
  options: RetryOptions,
): Promise<RetriedAnswer> {
  const { timeoutMs = 30_000, maxPauseMs = 50 } = options;
  const deadline = performance.now() + timeoutMs;
  const failures: string[] = [];
  for (;;) {
    const left = deadline - performance.now();
    if (left <= 0) throw new Error(`No answer for ${options.key} within ${timeoutMs} ms: ${tally(failures)}`);
    const outcome = await attempt(typeof url === 'string' ? url : url(), options, left);
    if (typeof outcome === 'string') failures.push(outcome);
    else if (isFinal(outcome)) return { answer: outcome, attempts: failures.length + 1, failures };
    else failures.push(String(outcome.status));
    await delay(pauseAfter(outcome, maxPauseMs));
  }
}

/** A response, or the code of what became of the connection. */
type Outcome = HttpResponse | string;

async function attempt(url: string, { key, body, headers }: RetryOptions, left: number): Promise<Outcome> {
  const lines: HttpRequestHeaders = {
    'Content-Type': 'application/json',
    ...headers,
    'Idempotency-Key': key,
  };
  const request = startRequest(url, { method: 'POST', headers: lines, body: JSON.stringify(body ?? {}) });
  const timer = setTimeout(() => request.destroy(), left);
  try {
    return await request.response;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    clearTimeout(timer);
  }
}

function isFinal({ status, headers }: HttpResponse): boolean {
  return status < 500 && headers['retry-after'] === undefined;
}

/** Enough for what is retried to come to pass; what `Retry-After` asks for in seconds is politeness that tests can do without. */
function pauseAfter(outcome: Outcome, limit: number): number {
  const seconds = typeof outcome === 'string' ? 0 : Number(outcome.headers['retry-after'] ?? 0);
  return Math.min(Math.max(seconds * 1_000, 5), limit);
}

function tally(failures: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const failure of failures) counts.set(failure, (counts.get(failure) ?? 0) + 1);
  return [...counts].map(([failure, count]) => `${count} times ${failure}`).join(', ');
}
