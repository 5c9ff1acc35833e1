import { Logger } from '@nestjs/common';
import { errorWithin } from '../core/causes.js';
import { IdempotencyUsageError } from '../core/errors.js';

const logger = new Logger('Idempotency');
let installed = false;

/** The error for work that goes on after its handler has ended. */
export function finishedError(cause?: unknown): IdempotencyUsageError {
  return finished(
    'the transaction of this @Idempotent() handler has ended, and work that the handler started went on using it. ' +
      'Await it in the handler, or run it outside the transaction: outside(() => …), or afterCommit(() => …).',
    cause,
  );
}

/** The error for work that goes on after the nested transaction it was started in. */
export function nestedFinishedError(): IdempotencyUsageError {
  return finished(
    'a nested transaction of this @Idempotent() handler has ended, and work that was started in it went on using it. ' +
      'Await it in the function given to dataSource.transaction(…), or run it outside: outside(() => …).',
  );
}

function finished(message: string, cause?: unknown): IdempotencyUsageError {
  survivingUnawaitedWork();
  return new IdempotencyUsageError('IDEMPOTENCY_TRANSACTION_FINISHED', message, { cause });
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
    const finishedWork = errorWithin(reason, isFinishedError);
    if (finishedWork) logger.error(finishedWork.message);
    else if (process.listenerCount('unhandledRejection') === 1) actAsNode(reason);
  });
}

/** In the modes not named here, Node does what it does before it asks for listeners, or nothing. */
function actAsNode(reason: unknown): void {
  const mode = rejectionMode();
  if (mode === 'throw') throw reason;
  if (mode === 'warn-with-error-code') {
    process.emitWarning(
      reason instanceof Error ? reason : String(reason),
      'UnhandledPromiseRejectionWarning',
    );
    process.exitCode = 1;
  }
}

/** The value of `--unhandled-rejections`, of which the last counts, and the command line more than the environment. */
function rejectionMode(): string {
  const options = [process.env['NODE_OPTIONS'] ?? '', ...process.execArgv].join(' ');
  return [...options.matchAll(/--unhandled[-_]rejections[= ]([a-z-]+)/g)].at(-1)?.[1] ?? 'throw';
}

function isFinishedError(reason: object): reason is IdempotencyUsageError {
  return reason instanceof IdempotencyUsageError && reason.code === 'IDEMPOTENCY_TRANSACTION_FINISHED';
}
