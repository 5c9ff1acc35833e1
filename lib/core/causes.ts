import { IdempotencyFailure } from './errors.js';

/**
 * The first of an error and those that it was made of which `is` so: `cause` and `errors` tell them in JavaScript,
 * `driverError` in TypeORM, which wraps whatever a driver threw. Undefined where none is.
 */
export function errorWithin<Found>(
  error: unknown,
  is: (error: object) => error is Found & object,
): Found | undefined {
  const seen = new Set<unknown>();
  const left: unknown[] = [error];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== 'object' || next === null || seen.has(next)) continue;
    seen.add(next);
    try {
      if (is(next)) return next;
      const { cause, driverError, errors } = next as {
        cause?: unknown;
        driverError?: unknown;
        errors?: unknown;
      };
      left.push(...(Array.isArray(errors) ? (errors as unknown[]) : []), cause, driverError);
    } catch {
      // A getter that throws has nothing to tell, and must not take the place of the error.
    }
  }
  return undefined;
}

/**
 * What an error was caused by, in one line for a log, from the nearest to the farthest. PostgreSQL's messages may quote the
 * data they complain of, so that only their code is told. Undefined where nothing is known.
 */
export function causesOf(cause: unknown): string | undefined {
  const reasons: string[] = [];
  const seen = new Set<unknown>();
  for (let error = cause; error instanceof Error && !seen.has(error); error = inner(error)) {
    seen.add(error);
    const reason = reasonOf(error);
    if (reason !== undefined && !reasons.includes(reason)) reasons.push(reason);
  }
  return reasons.length > 0 ? reasons.join(': ') : undefined;
}

/** What an ORM wrapped is what the database said. */
function inner(error: Error): unknown {
  const { driverError } = error as { driverError?: unknown };
  return driverError ?? error.cause;
}

function reasonOf(error: Error): string | undefined {
  const { severity, code, driverError } = error as {
    severity?: unknown;
    code?: unknown;
    driverError?: unknown;
  };
  if (typeof severity === 'string' && typeof code === 'string') return `SQLSTATE ${code}`;
  // Its own message repeats what was asked, or what the driver said.
  if (driverError !== undefined || error instanceof IdempotencyFailure) return undefined;
  // Several addresses were tried in vain.
  return error.message || (typeof code === 'string' ? code : undefined);
}
