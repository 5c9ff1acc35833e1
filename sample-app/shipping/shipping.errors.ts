import type { FormattedError, IdempotencyError } from 'nestjs-pg-idempotency';
import { failure } from './envelope.js';

/** Writes idempotency errors as the shipping API has published them. */
export function formatShippingError(error: IdempotencyError): FormattedError {
  return error.code === 'IDEMPOTENCY_KEY_REUSED'
    ? {
        body: failure(
          'IDEMPOTENCY_CONFLICT',
          'Request payload differs from original request with this idempotencyKey',
        ),
      }
    : { body: failure(error.code, error.detail) };
}
