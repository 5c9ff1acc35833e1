import { Logger } from '@nestjs/common';
import { IdempotencyUsageError } from '../core/errors.js';

const logger = new Logger('Idempotency');
let installed = false;

/** The error for work that goes on after its handler has ended. */
export function finishedError(): IdempotencyUsageError {
  return finished(
    'the transaction of this @Idempotent() handler has ended, and work that the handler started went on using it. ' +
      'Await it in the handler, or run it outside the transaction: outside(() => …), or afterCommit(() => …).',
  );
}

/** The error for work that goes on after the nested transaction it was started in. */
export function nestedFinishedError(): IdempotencyUsageError {
  return finished(
    'a nested transaction of this @Idempotent() handler has ended, and work that was started in it went on using it. ' +
      'Await it in the function given to dataSource.transaction(…), or run it outside: outside(() => …).',
  );
}

function finished(message: string): IdempotencyUsageError {
  survivingUnawaitedWork();
  return new IdempotencyUsageError('IDEMPOTENCY_TRANSACTION_FINISHED', message);
}

/**
 * A write that nobody awaits worked before a handler was made idempotent, and must not bring the process down
 * afterwards: nobody catches its rejection. From the first such error on, that one error is logged when unhandled;
 * every other unhandled rejection goes on as Node treats it without a listener, and other listeners keep the last word.
 */
function survivingUnawaitedWork(): void {
  if (installed) return;
  installed = true;
  process.on('unhandledRejection', (reason) => {
    if (isFinishedError(reason)) logger.error(reason.message);
    else if (process.listenerCount('unhandledRejection') === 1) throw reason;
  });
}

function isFinishedError(reason: unknown): reason is IdempotencyUsageError {
  return reason instanceof IdempotencyUsageError && reason.code === 'IDEMPOTENCY_TRANSACTION_FINISHED';
}
