import type { IdempotencyError } from './errors.js';

const DETAIL =
  'It is not known whether it took effect. Retry with the same key: the outcome is settled as `onOutcomeUnknown` says.';

/** The same error in lease mode, where nothing is rolled back once the handler began. */
export function unsettled<E extends IdempotencyError>(error: E): E {
  return { ...error, detail: DETAIL };
}
