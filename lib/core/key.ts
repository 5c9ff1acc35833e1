import { keyError, type KeyError, type KeySource } from './errors.js';
import { isStorableText, MAX_IDENTITY_BYTES } from './identity.js';

/** What a key must be like. Lengths are in characters (UTF-16 code units). */
export interface KeyRules {
  /** Where the key is looked for; used in messages. */
  readonly source: KeySource;
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

/**
 * Reads the key from what its source holds: nothing, one value, or more than one header line. What the body or a function
 * gives may be of any type, because the client decides it.
 */
export function readKey(sent: readonly unknown[], rules: KeyRules): KeyReading {
  const [value, ...more] = sent;
  const { source } = rules;
  if (sent.length === 0) {
    return rules.required ? refuse('IDEMPOTENCY_KEY_REQUIRED', required(rules), rules) : { kind: 'absent' };
  }
  if (more.length > 0) {
    const detail = `${subject(source)} must be sent once: more than one was received.`;
    return refuse('IDEMPOTENCY_KEY_MALFORMED', detail, rules);
  }
  if (typeof value !== 'string') {
    return refuse('IDEMPOTENCY_KEY_MALFORMED', `${subject(source)} must be a string.`, rules);
  }
  // Only headers have a syntax of their own: white space around them, and quotation marks.
  const key = source.kind === 'header' ? unquote(value.trim()) : value;
  if (key === undefined) {
    const detail = `${subject(source)} begins with a quotation mark but is not a string of RFC 8941, section 3.3.3.`;
    return refuse('IDEMPOTENCY_KEY_MALFORMED', detail, rules);
  }
  return checkKey(key, rules);
}

/** Checks a key's length and characters against the rules. */
export function checkKey(key: string, rules: KeyRules): KeyReading {
  const { minLength, maxLength, pattern } = rules;
  const name = subject(rules.source);
  if (key.length < minLength) {
    return refuse('IDEMPOTENCY_KEY_TOO_SHORT', `${name} must be at least ${characters(minLength)}.`, rules);
  }
  if (key.length > maxLength) {
    return refuse('IDEMPOTENCY_KEY_TOO_LONG', `${name} must be at most ${characters(maxLength)}.`, rules);
  }
  if (!pattern.test(key) || !isStorableText(key, MAX_IDENTITY_BYTES.key)) {
    return refuse('IDEMPOTENCY_KEY_MALFORMED', `${name} contains characters that are not allowed.`, rules);
  }
  return { kind: 'key', key };
}

const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/;

/** A bare key as it is, the content of an RFC 8941 string, or undefined for a broken string. */
function unquote(value: string): string | undefined {
  if (!value.startsWith('"')) return value;
  return QUOTED.test(value) ? value.slice(1, -1).replace(/\\(["\\])/g, '$1') : undefined;
}

function characters(count: number): string {
  return count === 1 ? '1 character' : `${count} characters`;
}

/** How a sentence about the key begins. */
function subject({ kind, name }: KeySource): string {
  if (kind === 'from') return `The ${name}`;
  return kind === 'header' ? `The ${name} header` : `Field ${name}`;
}

const WHERE = {
  header: (name: string) => `, in the ${name} header`,
  body: (name: string) => `, in the field ${name} of the body`,
  from: () => '',
} as const;

function required({ source: { kind, name }, minLength, maxLength }: KeyRules): string {
  const where = WHERE[kind](name);
  return `Include a unique key (${minLength}–${maxLength} characters), the same on every retry${where}.`;
}

function refuse(code: KeyError['code'], detail: string, rules: KeyRules): KeyReading {
  return { kind: 'refused', error: keyError(code, detail, rules) };
}
