import { Catch, HttpException, HttpStatus, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { IdempotencyException } from 'nestjs-pg-idempotency';
import { failure } from './envelope.js';
import { ShippingException } from './shipping.exception.js';

/** Writes errors, Nest's own included, in the envelope of this API. What is no HttpException stays Nest's to report. */
@Catch(HttpException)
export class EnvelopeFilter implements ExceptionFilter<HttpException> {
  constructor(private readonly host: HttpAdapterHost) {}

  catch(exception: HttpException, host: ArgumentsHost): void {
    this.host.httpAdapter.reply(host.switchToHttp().getResponse(), bodyOf(exception), exception.getStatus());
  }
}

function bodyOf(exception: HttpException): object {
  // It comes as the formatter of these routes has written it.
  if (exception instanceof IdempotencyException) return exception.problem.body;
  const code = exception instanceof ShippingException ? exception.code : codeOf(exception.getStatus());
  return failure(code, messageOf(exception));
}

/** Such as `BAD_REQUEST`. */
function codeOf(status: number): string {
  return HttpStatus[status] ?? 'ERROR';
}

/** The validation pipe has a message for each field. */
function messageOf(exception: HttpException): string {
  const response = exception.getResponse() as { message?: unknown };
  const { message } = response;
  return Array.isArray(message) ? message.join('; ') : exception.message;
}
