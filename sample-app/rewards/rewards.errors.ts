import type { FormattedError, IdempotencyError } from 'nestjs-pg-idempotency';

/** Writes idempotency errors as the rewards API has published them. */
export function formatRewardsError(error: IdempotencyError): FormattedError {
  switch (error.code) {
    case 'IDEMPOTENCY_KEY_REQUIRED':
      return nested(
        error.code,
        `${error.source.name} header is required for this operation`,
        `Include a unique ${error.source.name} header (${error.minLength}-${error.maxLength} characters)`,
      );
    case 'IDEMPOTENCY_KEY_TOO_SHORT':
      return nested(error.code, `${error.source.name} must be at least ${error.minLength} characters`);
    case 'IDEMPOTENCY_KEY_TOO_LONG':
      return nested(error.code, `${error.source.name} must be at most ${error.maxLength} characters`);
    case 'IDEMPOTENCY_KEY_REUSED':
      return {
        body: {
          error: 'IdempotencyKeyReused',
          code: 'E_IDEMPOTENCY_KEY_REUSED',
          message: 'Idempotency-Key has already been used with a different request body',
        },
      };
    default:
      return nested(error.code, error.title, error.detail);
  }
}

function nested(code: string, message: string, details?: string): FormattedError {
  return { body: { error: { code, message, details } } };
}
