import { keyError, type KeyError } from './errors.js';
import { isStorableText, MAX_IDENTITY_BYTES } from './identity.js';

/** What a key must be like. Lengths are in characters (UTF-16 code units). */
export interface KeyRules {
  /** Where the key is looked for, such as `Idempotency-Key`; used in messages. */
  readonly source: string;
  readonly required: boolean;
  readonly minLength: number;
  readonly maxLength: number;
  readonly pattern: RegExp;
}

/** What the request said about its key. */
export type KeyReading =
  | { readonly kind: 'absent' }
  | { readonly kind: 'key'; readonly key: string }
  | { readonly kind: 'refused'; readonly error: KeyError };

/** Reads the key from the values of its header lines and checks it against the rules. */
export function readKey(lines: readonly string[], rules: KeyRules): KeyReading {
  const [line, ...more] = lines;
  if (line === undefined) {
    return rules.required ? refuse('IDEMPOTENCY_KEY_REQUIRED', required(rules), rules) : { kind: 'absent' };
  }
  if (more.length > 0) {
    return refuse(
      'IDEMPOTENCY_KEY_MALFORMED',
      `Send ${rules.source} once: more than one was received.`,
      rules,
    );
  }
  const key = unquote(line.trim());
  if (key === undefined) {
    const detail = `${rules.source} begins with a quotation mark but is not a string of RFC 8941, section 3.3.3.`;
    return refuse('IDEMPOTENCY_KEY_MALFORMED', detail, rules);
  }
  return checkKey(key, rules);
}

/** Checks a key's length and characters against the rules. */
export function checkKey(key: string, rules: KeyRules): KeyReading {
  const { source, minLength, maxLength, pattern } = rules;
  if (key.length < minLength) {
    return refuse('IDEMPOTENCY_KEY_TOO_SHORT', `${source} must be at least ${minLength} characters.`, rules);
  }
  if (key.length > maxLength) {
    return refuse('IDEMPOTENCY_KEY_TOO_LONG', `${source} must be at most ${maxLength} characters.`, rules);
  }
  if (!pattern.test(key) || !isStorableText(key, MAX_IDENTITY_BYTES.key)) {
    return refuse('IDEMPOTENCY_KEY_MALFORMED', `${source} contains characters that are not allowed.`, rules);
  }
  return { kind: 'key', key };
}

const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/;

/** A bare key as it is, the content of an RFC 8941 string, or undefined for a broken string. */
function unquote(value: string): string | undefined {
  if (!value.startsWith('"')) return value;
  return QUOTED.test(value) ? value.slice(1, -1).replace(/\\(["\\])/g, '$1') : undefined;
}

function required({ source, minLength, maxLength }: KeyRules): string {
  return `Include a unique ${source} (${minLength}–${maxLength} characters), the same on every retry.`;
}

function refuse(
  code: KeyError['code'],
  detail: string,
  { source, minLength, maxLength }: KeyRules,
): KeyReading {
  return { kind: 'refused', error: keyError(code, detail, { source, minLength, maxLength }) };
}
