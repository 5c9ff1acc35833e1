import { HttpException, HttpStatus } from '@nestjs/common';

/** A refusal with a code that this API has published. */
export class ShippingException extends HttpException {
  constructor(
    status: HttpStatus,
    readonly code: string,
    message: string,
  ) {
    super(message, status);
  }
}

/** The client has no such order. */
export function orderNotFound(id: string): ShippingException {
  return new ShippingException(HttpStatus.NOT_FOUND, 'ORDER_NOT_FOUND', `There is no order ${id}`);
}
