import { types } from 'node:util';

/** A value that cannot be compared with another of its kind. */
export class NotCanonicalError extends Error {
  override readonly name = 'NotCanonicalError';

  /**
   * @param path - Where the value stands, such as `$.items[3].price`.
   * @param what - What it is.
   */
  constructor(
    readonly path: string,
    readonly what: string,
  ) {
    super(`${path} is ${what}`);
  }
}

/** Members that do not count: a tree of the dotted paths that lead to them. */
export type Excluded = ReadonlyMap<string, Excluded | 'all'>;

type Branch = Map<string, Excluded | 'all'>;

/** The tree of dotted paths such as `meta.sentAt`. */
export function excludedMembers(paths: readonly string[]): Excluded {
  const root: Branch = new Map();
  for (const path of paths) {
    const names = path.split('.');
    const last = names.pop() ?? '';
    let branch: Branch | undefined = root;
    for (const name of names) branch = branch && branchAt(branch, name);
    branch?.set(last, 'all');
  }
  return root;
}

/** The branch below a name; undefined where everything below it is excluded already. */
function branchAt(branch: Branch, name: string): Branch | undefined {
  const known = branch.get(name) ?? new Map();
  branch.set(name, known);
  return known === 'all' ? undefined : (known as Branch);
}

/** A value that holds others, and how far it has been written. */
interface Level {
  readonly holder: object;
  readonly end: string;
  /** The values in order, each with what is written before it and how the path goes on to it. */
  readonly inside: Iterator<Inside>;
  /** Where the value is that is being written. */
  place: string;
  isEmpty: boolean;
}

interface Inside {
  readonly before: string;
  readonly place: string;
  readonly value: unknown;
  readonly excluded?: Excluded | undefined;
  /** Whether `toJSON` returned it, which is then not asked again, as in `JSON.stringify`. */
  readonly isReduced?: boolean;
}

/**
 * Writes a parsed body so that equal bodies give equal text and different ones different text. Members are sorted by
 * UTF-16 code unit, as in RFC 8785. `JSON.stringify` escapes strings, which tells lone surrogates apart. What JSON lacks
 * is written as a call, such as `Date(0)`, which no JSON text contains. Order counts in a Set, as it does in a list.
 *
 * Linear in what a stranger sends: each value is visited once and each character is written once, at any depth. The walk
 * has a stack of its own, because a recursive one overflows at depths that `JSON.parse` takes.
 *
 * @param write - Receives the text piece by piece.
 * @throws {@link NotCanonicalError} for functions, symbols, cycles, and instances of classes without `toJSON`.
 */
export function writeCanonical(value: unknown, write: (piece: string) => void, excluded?: Excluded): void {
  const levels: Level[] = [];
  const holders = new Set<object>();
  const visits = new Map<object, number>();
  const visit = ({ value: next, excluded: members, isReduced = false }: Omit<Inside, 'before'>): void => {
    const text = leaf(next);
    if (text !== undefined) {
      write(text);
      return;
    }
    const times = (visits.get(next as object) ?? 0) + 1;
    visits.set(next as object, times);
    const opened = misplaced(holders.has(next as object), times) ?? open(next, members, isReduced);
    if (typeof opened === 'string') throw new NotCanonicalError(pathOf(levels), opened);
    holders.add(next as object);
    write(opened.start);
    levels.push({ holder: next as object, ...opened, place: '', isEmpty: true });
  };
  visit({ place: '', value, excluded });
  for (let level = levels.at(-1); level; level = levels.at(-1)) {
    const next = level.inside.next();
    if (next.done) {
      write(level.end);
      holders.delete(level.holder);
      levels.pop();
      continue;
    }
    write(level.isEmpty ? next.value.before : `,${next.value.before}`);
    level.isEmpty = false;
    level.place = next.value.place;
    visit(next.value);
  }
}

/** Parsers with references, such as those of YAML, can make few bytes stand for any number of values. */
const MOST_PLACES = 1_000;

function misplaced(isOpen: boolean, times: number): string | undefined {
  if (isOpen) return 'a value that contains itself';
  return times > MOST_PLACES ? `a value that stands in more than ${MOST_PLACES} places` : undefined;
}

/** The text of {@link writeCanonical}. */
export function canonicalText(value: unknown, excluded?: Excluded): string {
  let text = '';
  writeCanonical(value, (piece) => (text += piece), excluded);
  return text;
}

/** The whole text of a value that holds no others; undefined for one that does, or has no canonical form. */
function leaf(value: unknown): string | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return JSON.stringify(value);
    case 'number':
      // A parser reads "-0" as -0 and hands it to the handler like 0. NaN and the infinities are no JSON either way.
      return String(value);
    case 'bigint':
      return `BigInt(${value})`;
    case 'undefined':
      return 'undefined';
    case 'object':
      return value === null ? 'null' : leafObject(value);
    default:
      return undefined;
  }
}

function leafObject(value: object): string | undefined {
  if (types.isDate(value)) return `Date(${value.getTime()})`;
  if (types.isAnyArrayBuffer(value)) return `ArrayBuffer(${base64(value)})`;
  if (!ArrayBuffer.isView(value)) return undefined;
  const { buffer, byteOffset, byteLength } = value;
  const type = (value as Uint8Array)[Symbol.toStringTag] as string;
  return `${type}(${base64(buffer, byteOffset, byteLength)})`;
}

function base64(...bytes: [ArrayBufferLike, number?, number?]): string {
  return Buffer.from(...bytes).toString('base64');
}

type Opened = { readonly start: string } & Pick<Level, 'end' | 'inside'>;

/** How a value begins, goes on and ends; or what it is, where it has no canonical form. */
function open(value: unknown, excluded: Excluded | undefined, isReduced: boolean): Opened | string {
  if (typeof value !== 'object' || value === null) return `a ${typeof value}`;
  if (Array.isArray(value)) return { start: '[', inside: listed(value), end: ']' };
  if (types.isSet(value)) return { start: 'Set(', inside: listed(value), end: ')' };
  if (types.isMap(value)) return openMap(value, excluded);
  const prototype: unknown = Object.getPrototypeOf(value);
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  if (isPlain) return { start: '{', inside: members(value, excluded), end: '}' };
  const name = classOf(prototype as object);
  if (isReduced || !('toJSON' in value) || typeof value.toJSON !== 'function')
    return `an instance of ${name}`;
  const reduced: Inside = {
    before: '',
    place: '',
    value: (value.toJSON as () => unknown)(),
    excluded,
    isReduced: true,
  };
  return { start: `${name}.toJSON(`, inside: [reduced].values(), end: ')' };
}

function classOf(prototype: object): string {
  const { constructor } = prototype as { constructor?: unknown };
  return typeof constructor === 'function' ? constructor.name : 'an unnamed class';
}

function openMap(map: ReadonlyMap<unknown, unknown>, excluded: Excluded | undefined): Opened | string {
  const keyed: Inside[] = [];
  for (const [key, value] of map) {
    const text = typeof key === 'object' ? undefined : leaf(key);
    if (text === undefined) return `a Map with a key of type ${typeof key}`;
    const within = excluded?.get(String(key));
    if (within !== 'all') keyed.push({ before: `${text}:`, place: `[${text}]`, value, excluded: within });
  }
  keyed.sort((one, other) => (one.before < other.before ? -1 : 1));
  return { start: 'Map(', inside: keyed.values(), end: ')' };
}

function* listed(values: Iterable<unknown>): Generator<Inside> {
  let index = 0;
  for (const value of values) yield { before: '', place: `[${index++}]`, value };
}

function* members(object: object, excluded: Excluded | undefined): Generator<Inside> {
  const values = object as Readonly<Record<string, unknown>>;
  for (const name of Object.keys(values).sort()) {
    const within = excluded?.get(name);
    const value = values[name];
    if (value === undefined || within === 'all') continue;
    const text = JSON.stringify(name);
    yield { before: `${text}:`, place: `[${text}]`, value, excluded: within };
  }
}

/** JSONPath (RFC 9535) of the value that is being written. */
function pathOf(levels: readonly Level[]): string {
  return `$${levels.map(({ place }) => place).join('')}`;
}
