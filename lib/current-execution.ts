import { createParamDecorator } from '@nestjs/common';
import { currentFrame } from './core/ambient.js';
import type { IdempotencyExecution } from './idempotency-execution.js';

/**
 * The execution that code runs in, or undefined outside of all: in an unprotected handler, inside `outside(...)`, and on
 * routes whose optional key is absent.
 */
export function currentExecution(): IdempotencyExecution | undefined {
  return currentFrame()?.execution as IdempotencyExecution | undefined;
}

/**
 * Gives a handler its {@link IdempotencyExecution}, or undefined where its optional key is absent.
 *
 * @example
 * ```ts
 * @Post()
 * @Idempotent({ mode: 'lease' })
 * pay(@Body() payment: Payment, @CurrentExecution() execution: IdempotencyExecution) {
 *   return this.bank.transfer(payment, { idempotencyKey: execution.deriveKey('transfer'), signal: execution.signal });
 * }
 * ```
 */
export const CurrentExecution: () => ParameterDecorator = createParamDecorator(() => currentExecution());
