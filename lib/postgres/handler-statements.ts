import { statementName } from './statement-name.js';

/** The time a text comes from which on it is prepared. */
const OFTEN = 5;
/** Texts that are ever prepared: each takes memory in every session, and is kept there until the session ends. */
const MOST = 256;
/** Texts whose times are counted. */
const CANDIDATES = 1_000;
/** Characters of a text that is worth keeping: longer ones are mostly lists that are never the same twice. */
const LONGEST = 8_192;
/** A literal such as `'today'`: the server reads it when it prepares the statement, and then it would stay that day. */
const MOMENT = /'[^']*\b(?:now|today|tomorrow|yesterday)\b[^']*'/i;

/** A text with its values, as an ORM sends it. */
type Preparable = readonly [text: string, values: unknown[]];

/**
 * Which statements of handlers are prepared: those that come again and again. An ORM makes their texts, so that what repeats
 * is known only by counting. This is what a process knows of one DataSource; who has prepared what is between a session and
 * node-postgres.
 */
export class HandlerStatements {
  /** By text; null for one that is not prepared any more. */
  readonly #names = new Map<string, string | null>();
  /** How often the others came, the oldest first. */
  readonly #times = new Map<string, number>();

  /** The name under which to send a text; undefined: unnamed. */
  nameOf(text: string): string | undefined {
    return this.#names.get(text) ?? undefined;
  }

  /** Counts a text that was sent unnamed. */
  count(text: string): void {
    if (this.#names.size === MOST || this.#names.has(text)) return;
    const times = (this.#times.get(text) ?? 0) + 1;
    if (times < OFTEN - 1) this.#remember(text, times);
    else if (!MOMENT.test(text)) this.#prepare(text);
  }

  /** Has a text sent unnamed from here on. It keeps its place, for the sessions keep what they have prepared. */
  giveUp(text: string): void {
    this.#names.set(text, null);
  }

  #remember(text: string, times: number): void {
    this.#times.set(text, times);
    if (this.#times.size <= CANDIDATES) return;
    const [oldest] = this.#times.keys();
    this.#times.delete(oldest as string);
  }

  #prepare(text: string): void {
    this.#times.delete(text);
    this.#names.set(text, statementName('handler', text));
    if (this.#names.size === MOST) this.#times.clear();
  }
}

/**
 * Whether what node-postgres is asked for may be sent under a name. A text without values may hold several statements, and
 * a query object has settings of its own.
 */
export function isPreparable(args: readonly unknown[]): args is Preparable {
  const [text, values] = args;
  return (
    args.length === 2 &&
    typeof text === 'string' &&
    text.length <= LONGEST &&
    Array.isArray(values) &&
    values.length > 0 &&
    values.every(isConvertible)
  );
}

/**
 * Whether nothing can go wrong when node-postgres makes bytes of a value. Where it throws, as for an object that JSON cannot
 * express, node-postgres closes the statement and goes on taking it for prepared.
 */
function isConvertible(value: unknown): boolean {
  return isLeaf(value) || (Array.isArray(value) && value.every(isLeaf));
}

function isLeaf(value: unknown): boolean {
  return typeof value !== 'object' || value === null || value instanceof Date || ArrayBuffer.isView(value);
}
