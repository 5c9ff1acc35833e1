/** Nesting beyond this is refused: it would exhaust the stack of a recursive walk. */
const MAX_DEPTH = 1_000;

/** A value that cannot be written canonically. */
export class NotCanonicalError extends Error {
  override readonly name = 'NotCanonicalError';
}

/**
 * Writes a parsed body so that equal bodies give equal text and different ones different text: members sorted by
 * UTF-16 code unit as in RFC 8785, every string escaped by `JSON.stringify`, which also tells lone surrogates apart.
 *
 * @throws {@link NotCanonicalError} for what JSON and form bodies cannot contain, and for nesting beyond 1,000 levels.
 */
export function canonicalJson(value: unknown, depth = 0): string {
  if (depth > MAX_DEPTH) throw new NotCanonicalError(`nested deeper than ${MAX_DEPTH} levels`);
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return JSON.stringify(value);
    case 'number':
      // JSON has no negative zero of its own: a parser reads "-0" as -0 and hands it to the handler like 0.
      return Number.isFinite(value) ? String(value) : notCanonical('a number that is not finite');
    case 'object':
      if (value === null) return 'null';
      return Array.isArray(value) ? canonicalArray(value, depth) : canonicalObject(value, depth);
    default:
      return notCanonical(`a value of type ${typeof value}`);
  }
}

function canonicalArray(items: readonly unknown[], depth: number): string {
  return `[${items.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
}

function canonicalObject(object: object, depth: number): string {
  const prototype: unknown = Object.getPrototypeOf(object);
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  if (!isPlain) return notCanonical(`an instance of ${object.constructor.name}`);
  const members = object as Readonly<Record<string, unknown>>;
  let text = '';
  for (const name of Object.keys(members).sort()) {
    const member = members[name];
    if (member === undefined) continue;
    text += `${text && ','}${JSON.stringify(name)}:${canonicalJson(member, depth + 1)}`;
  }
  return `{${text}}`;
}

function notCanonical(what: string): never {
  throw new NotCanonicalError(what);
}
