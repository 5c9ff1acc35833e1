import { CallError, type AttemptReport, type CallErrorCode } from 'nestjs-pg-idempotency/client';

/** Pauses as short as they get. */
export const AT_ONCE = { base: 1, max: 1 } as const;

/** What a call failed with; fails itself for a success and for what is not a {@link CallError}. */
export async function failureOf(call: Promise<unknown>): Promise<CallError> {
  const outcome = await call.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if (!('error' in outcome)) throw new Error(`the call succeeded: ${JSON.stringify(outcome.value)}`);
  if (outcome.error instanceof CallError) return outcome.error;
  throw new Error('what was thrown is no CallError', { cause: outcome.error });
}

/** As {@link failureOf}, of one code and class. */
export async function failureAs<E extends CallError>(
  type: new (...args: never[]) => E,
  code: CallErrorCode,
  call: Promise<unknown>,
): Promise<E> {
  const error = await failureOf(call);
  if (error.code === code && error instanceof type) return error;
  throw new Error(`not ${type.name} ${code}`, { cause: error });
}

/** Keeps the reports of a call's attempts. */
export function recordAttempts(): { reports: AttemptReport[]; onAttempt: (report: AttemptReport) => void } {
  const reports: AttemptReport[] = [];
  return { reports, onAttempt: (report) => void reports.push(report) };
}
