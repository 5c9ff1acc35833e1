import { Catch, HttpException, HttpStatus, Logger, type ArgumentsHost } from '@nestjs/common';
import { BaseExceptionFilter } from '@nestjs/core';
import { IdempotencyException } from 'nestjs-pg-idempotency';
import { failure, type ErrorEnvelope } from './envelope.js';
import { ShippingException } from './shipping.exception.js';

/** Where this API is. Its `orders/…` are beside those of another API. */
const PATHS = /^\/api\/v1\/(?:orders\/(?:create|created|void)|manifests|labels)(?:[/?]|$)/i;

/** An error of a body parser, of whichever adapter. */
interface ParserError extends Error {
  readonly statusCode: number;
}

/**
 * Writes every error of this API in its envelope, whoever reports it. It is a global filter because a body that cannot
 * be parsed fails before the request has come to a controller; what is of other APIs stays Nest's to report.
 */
@Catch()
export class EnvelopeFilter extends BaseExceptionFilter {
  readonly #logger = new Logger(EnvelopeFilter.name);

  override catch(exception: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    if (!PATHS.test(http.getRequest<{ url: string }>().url)) {
      super.catch(exception, host);
      return;
    }
    const { status, body } = this.#answer(exception);
    this.httpAdapterHost?.httpAdapter.reply(http.getResponse(), body, status);
  }

  #answer(exception: unknown): { status: number; body: unknown } {
    if (exception instanceof IdempotencyException) {
      // It comes as the formatter of these routes has written it.
      return { status: exception.getStatus(), body: exception.problem.body };
    }
    if (exception instanceof HttpException) return refusal(exception.getStatus(), exception);
    if (isParserError(exception)) return refusal(exception.statusCode, exception);
    this.#logger.error(exception);
    const status = HttpStatus.INTERNAL_SERVER_ERROR;
    return { status, body: failure(codeOf(status), 'Internal server error') };
  }
}

function isParserError(exception: unknown): exception is ParserError {
  return exception instanceof Error && 'statusCode' in exception && typeof exception.statusCode === 'number';
}

function refusal(status: number, exception: Error): { status: number; body: ErrorEnvelope } {
  const code = exception instanceof ShippingException ? exception.code : codeOf(status);
  return { status, body: failure(code, messageOf(exception)) };
}

/** Such as `BAD_REQUEST`. */
function codeOf(status: number): string {
  return HttpStatus[status] ?? 'ERROR';
}

/** The validation pipe has a message for each field. */
function messageOf(exception: Error): string {
  const response = exception instanceof HttpException ? exception.getResponse() : exception;
  const { message } = response as { message?: unknown };
  return Array.isArray(message) ? message.join('; ') : exception.message;
}
