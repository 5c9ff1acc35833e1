import { HttpException } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import type { IdempotencyError } from '../core/errors.js';
import type { ErrorFormatter } from '../idempotency.options.js';
import { inIdentityCoding } from './identity-coding.js';
import type { Answer } from './response-recorder.js';

/** Where errors are documented unless the application says otherwise. */
export const DOCUMENTATION =
  'https://github.com/nestjs-pg-idempotency/nestjs-pg-idempotency/blob/main/docs/errors.md';

/** An error as it goes out. */
export interface Problem {
  readonly status: number;
  readonly body: object;
  readonly contentType: string;
  readonly headers: OutgoingHttpHeaders;
}

/** Writes errors in the application's format, or as problem details (RFC 9457). */
export class ProblemWriter {
  constructor(
    private readonly documentation: string,
    private readonly format: ErrorFormatter | undefined,
  ) {}

  problem(error: IdempotencyError): Problem {
    const type = `${this.documentation}#${error.code.toLowerCase()}`;
    const headers: OutgoingHttpHeaders = { link: `<${type}>; rel="describedby"` };
    if (error.retryAfter !== undefined) headers['retry-after'] = String(error.retryAfter);
    if (!this.format) return { status: error.status, ...problemDetails(error, type), headers };
    const {
      body,
      status = error.status,
      contentType = 'application/json',
      headers: own = {},
    } = this.format(error);
    for (const [name, value] of Object.entries(own)) headers[name.toLowerCase()] = value;
    return { status, body, contentType, headers };
  }

  /** The answer for errors that arise where no exception filter reaches any more. */
  answer(error: IdempotencyError, headers: OutgoingHttpHeaders): Answer {
    const { status, body, contentType, headers: own } = this.problem(error);
    return {
      status,
      headers: { ...headers, ...own, 'content-type': `${contentType}; charset=utf-8` },
      body: Buffer.from(JSON.stringify(body)),
    };
  }
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
  const { body: written } = await inIdentityCoding(held).catch(() => held);
  const isUnchanged = written.equals(Buffer.from(JSON.stringify(body)));
  const type = isUnchanged ? { 'content-type': `${contentType}; charset=utf-8` } : {};
  return { ...held, headers: { ...held.headers, ...headers, ...type } };
}
