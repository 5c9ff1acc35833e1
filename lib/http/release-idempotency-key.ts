import { HttpException, ServiceUnavailableException } from '@nestjs/common';

/**
 * Thrown by a handler that knows that nothing happened: the key is free, and the next attempt runs. In lease mode any other
 * failure after the handler began leaves an unknown outcome. In transaction mode everything is rolled back, as for a 5xx.
 *
 * Exception filters see it as the exception it answers with; it is never recorded, whatever its status.
 *
 * @example
 * ```ts
 * if (refusedBeforeCharging) throw new ReleaseIdempotencyKey(new BadGatewayException('The bank is closed'));
 * ```
 */
export class ReleaseIdempotencyKey extends HttpException {
  /** @param answer - What the client gets. Default: 503. */
  constructor(answer: HttpException = new ServiceUnavailableException()) {
    super(answer.getResponse(), answer.getStatus(), { cause: answer.cause ?? answer });
  }
}
