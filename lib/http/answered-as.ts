import type { IdempotencyError } from '../core/errors.js';
import type { RouteSettings } from './route-settings.js';

/** Answers to duplicates have the statuses that the route asks for. */
export function answeredAs(error: IdempotencyError, { answers }: RouteSettings): IdempotencyError {
  switch (error.code) {
    case 'IDEMPOTENCY_IN_PROGRESS':
      return { ...error, status: answers.inProgress };
    case 'IDEMPOTENCY_KEY_REUSED':
      return { ...error, status: answers.reused };
    default:
      return error;
  }
}
