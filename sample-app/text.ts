import { applyDecorators } from '@nestjs/common';
import { IsString, Matches, MaxLength } from 'class-validator';

/** `text` has no place for U+0000, and `jsonb` none for half of a surrogate pair either. */
const STORABLE = /^[^\0\p{Surrogate}]*$/u;

/** A string that PostgreSQL can store. What it cannot would be a 500, which clients send again in vain. */
export function IsText(longest: number, { each = false } = {}): PropertyDecorator {
  return applyDecorators(
    IsString({ each }),
    MaxLength(longest, { each }),
    Matches(STORABLE, {
      each,
      message: `${each ? 'each value in ' : ''}$property must not contain U+0000 or unpaired surrogates`,
    }),
  );
}
