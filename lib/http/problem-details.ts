import { HttpException, Logger } from '@nestjs/common';
import { validateHeaderName, validateHeaderValue, type OutgoingHttpHeaders } from 'node:http';
import { isDeepStrictEqual } from 'node:util';
import type { IdempotencyError } from '../core/errors.js';
import { isFraming } from '../core/unstored-headers.js';
import type { ErrorFormatter, FormattedError } from '../idempotency.options.js';
import { inIdentityCoding } from './identity-coding.js';
import type { Answer } from '../transports/http/delivery.js';

/** Where errors are documented unless the application says otherwise. */
export const DOCUMENTATION =
  'https://github.com/nestjs-pg-idempotency/nestjs-pg-idempotency/blob/main/docs/errors.md';

/** Bytes of an error that is still looked into. */
const LONGEST_PROBLEM = 65_536;

/** An error as it goes out. */
export interface Problem {
  readonly status: number;
  readonly body: object;
  readonly contentType: string;
  readonly headers: OutgoingHttpHeaders;
}

/** Writes errors in the application's format, or as problem details (RFC 9457). */
export class ProblemWriter {
  #hasComplained = false;

  constructor(
    private readonly documentation: string,
    private readonly format: ErrorFormatter | undefined,
  ) {}

  problem(error: IdempotencyError): Problem {
    const type = `${this.documentation}#${error.code.toLowerCase()}`;
    const headers: OutgoingHttpHeaders = { link: `<${type}>; rel="describedby"` };
    if ('retryAfter' in error) headers['retry-after'] = String(error.retryAfter);
    const standard = { status: error.status, ...problemDetails(error, type), headers };
    if (!this.format) return standard;
    try {
      return formatted(synchronous(this.format(error)), standard);
    } catch (failure) {
      // The request must be answered, and what went wrong before is more important.
      this.#complain(failure);
      return standard;
    }
  }

  #complain(failure: unknown): void {
    if (this.#hasComplained) return;
    this.#hasComplained = true;
    new Logger('Idempotency').error(
      'The option "errors" failed; problem details are sent instead.',
      String(failure),
    );
  }

  /** The answer for errors that arise where no exception filter reaches any more. */
  answer(error: IdempotencyError, headers: OutgoingHttpHeaders): Answer {
    const { status, body, contentType, headers: own } = this.problem(error);
    return {
      status,
      headers: { ...headers, ...own, 'content-type': inUtf8(contentType) },
      body: Buffer.from(JSON.stringify(body)),
    };
  }
}

/** The media type of a text that is sent as UTF-8, whether it says so already or not. */
function inUtf8(contentType: string): string {
  return /;\s*charset=/i.test(contentType) ? contentType : `${contentType}; charset=utf-8`;
}

/** Whatever the types say, a formatter may be asynchronous; what it rejects with must not end the process. */
function synchronous(own: FormattedError): FormattedError {
  if (typeof (own as { then?: unknown }).then === 'function') {
    Promise.resolve(own).catch(() => undefined);
    throw new TypeError('it returned a promise');
  }
  return own;
}

/** @throws when it cannot be sent. */
function formatted(own: FormattedError, standard: Problem): Problem {
  const { body, status = standard.status, contentType = 'application/json', headers = {} } = own;
  if (!Number.isInteger(status) || status < 200 || status > 599)
    throw new RangeError(`${status} is no status`);
  if (!JSON.stringify(body).startsWith('{')) throw new TypeError('the body is no object');
  const merged: OutgoingHttpHeaders = { ...standard.headers };
  for (const [name, value] of [...Object.entries(headers), ['content-type', contentType] as const]) {
    validateHeaderName(name);
    validateHeaderValue(name, value);
    if (isFraming(name.toLowerCase())) throw new TypeError(`"${name}" is not for a formatter to set`);
    if (name !== 'content-type') merged[name.toLowerCase()] = value;
  }
  return { status, body, contentType, headers: merged };
}

function problemDetails(error: IdempotencyError, type: string): Pick<Problem, 'body' | 'contentType'> {
  const { title, status, detail, code } = error;
  return { body: { type, title, status, detail, code }, contentType: 'application/problem+json' };
}

/**
 * An idempotency error on its way through the application's exception filters, which may recognise it and read `error`.
 * Thrown for what happens before the handler, or when the database ended its transaction.
 */
export class IdempotencyException extends HttpException {
  /** Which error it is, with its stable code. */
  readonly error: IdempotencyError;
  /** What is sent unless a filter decides otherwise. */
  readonly problem: Problem;

  /** @internal */
  constructor(error: IdempotencyError, problem: Problem, cause?: unknown) {
    super(problem.body, problem.status, { cause });
    // Filters and log lines print it; Nest would make one of the class's name.
    this.message = `${error.code}: ${error.detail}`;
    this.error = error;
    this.problem = problem;
  }
}

/**
 * Completes what a filter wrote for an exception: the headers always, the media type only where the body is the one
 * that was proposed, since a filter with an envelope of its own has its own type.
 */
export async function completeRejection(
  held: Answer,
  { body, contentType, headers }: Problem,
): Promise<Answer> {
  // As JSON: spaces and order are the serializer's.
  const isUnchanged = isDeepStrictEqual(await parsed(held), JSON.parse(JSON.stringify(body)));
  const type = isUnchanged ? { 'content-type': inUtf8(contentType) } : {};
  return { ...held, headers: { ...held.headers, ...headers, ...type } };
}

async function parsed(held: Answer): Promise<unknown> {
  const written = await inIdentityCoding(held, LONGEST_PROBLEM);
  try {
    return written && (JSON.parse(written.body.toString()) as unknown);
  } catch {
    return undefined;
  }
}
