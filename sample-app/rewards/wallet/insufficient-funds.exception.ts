import { HttpException } from '@nestjs/common';

const PAYMENT_REQUIRED = 402;

/** The wallet holds less than is to be paid. */
export class InsufficientFundsException extends HttpException {
  constructor() {
    super(
      HttpException.createBody('The wallet does not hold enough money', 'Payment Required', PAYMENT_REQUIRED),
      PAYMENT_REQUIRED,
    );
  }
}
