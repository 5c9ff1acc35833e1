import type { Deadline } from './deadline.js';
import { AnswerError, CallError, type CallFacts } from './errors.js';
import type { Reading } from './reading.js';
import type { Settings } from './settings.js';
import type { ReadAttempt } from './verdict.js';

/** The error of a call whose last attempt ended like that. */
export function callFailure(
  settings: Settings,
  attempt: Exclude<ReadAttempt, { kind: 'aborted' }>,
  facts: CallFacts,
): CallError {
  const call = `${settings.method} ${settings.path}`;
  const times = facts.attempts === 1 ? '' : ` after ${facts.attempts} attempts`;
  switch (attempt.kind) {
    case 'answer':
      return answerError(call + times, settings, attempt.reading, facts);
    case 'timed-out':
      return new CallError('CALL_TIMED_OUT', `${call} got no answer in time${times}.`, facts);
    case 'network-failed':
      return new CallError('CALL_NETWORK_FAILED', `${call} got no answer${times}.`, {
        ...facts,
        cause: attempt.cause,
      });
  }
}

/** The error of a call that was cut short by its total time or by its caller. */
export function interruption(
  { method, path, timeout }: Settings,
  { why, reason }: Deadline,
  facts: CallFacts,
): CallError {
  const call = `${method} ${path}`;
  return why === 'timed-out'
    ? new CallError('CALL_TIMED_OUT', `${call} was not done within ${timeout.total} ms.`, facts)
    : new CallError('CALL_ABORTED', `${call} was aborted by its caller.`, { ...facts, cause: reason });
}

function answerError(
  call: string,
  { idempotency }: Settings,
  { status, headers, body, replayed, createdAt, codes }: Reading,
  facts: CallFacts,
): AnswerError {
  const answer = { status, headers, body, replayed, createdAt };
  const found = codes.length > 0 ? `${status} ${codes.join(' ')}` : String(status);
  if (idempotency && codes.includes(idempotency.inProgressCode)) {
    const message = `${call} found the first request with its key still running (${found}).`;
    return new AnswerError('CALL_IN_PROGRESS', message, facts, answer);
  }
  if (idempotency && codes.includes(idempotency.keyReusedCode)) {
    const message = `${call} has the key of a different request (${found}): use a new key for a new request.`;
    return new AnswerError('CALL_KEY_REUSED', message, facts, answer);
  }
  const message = `${call} was answered ${found}${replayed ? ', as recorded' : ''}.`;
  return new AnswerError('CALL_REFUSED', message, facts, answer);
}
