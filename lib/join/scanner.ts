/** What a statement does to the transaction that the library began, or to what its session keeps prepared. */
export type Intrusion = 'ends' | 'forgets';

/** What has none of these words intrudes nowhere, and is most of what is sent. */
const SUSPECT = /\b(?:commit|end|abort|rollback|prepare|deallocate|discard)\b/i;

/**
 * One piece of a text from where the last has ended; each alternative is linear. A plain string that doubles a quote, or goes on
 * in the next line, is two; one with backslashes goes on with them.
 */
const PIECE =
  /(?<space>\s+|--[^\n\r]*)|(?<comment>\/\*)|(?<escape>e'(?:[^'\\]+|\\[^]|''|'[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:\s|--[^\n\r]*[\n\r])*')*'?)|(?<word>[a-z_\u0080-\uffff][\w$\u0080-\uffff]*)|(?<quoted>'[^']*'?|"[^"]*"?)|(?<dollar>\$(?:[a-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$)|(?<other>[^])/iy;

/** Words of a statement's beginning that tell what it does: `ROLLBACK WORK TO SAVEPOINT` has most of them. */
const ENOUGH = 3;

/**
 * Whether one of the statements of a text ends the transaction, or makes the session forget what is prepared; undefined for
 * all others. Linear in the length of the text: it knows comments, which nest, strings, dollar quotes, quoted names, bodies of
 * functions and `;`, and looks at the words with which each statement begins.
 *
 * It takes backslashes in plain strings for what they are by default (`standard_conforming_strings`).
 *
 * Source: PostgreSQL manual, "Lexical Structure".
 */
export function intrusionOf(text: string): Intrusion | undefined {
  if (!SUSPECT.test(text)) return undefined;
  let forgets = false;
  for (const words of statementsIn(text)) {
    const intrusion = intrusionBy(words);
    if (intrusion === 'ends') return 'ends';
    forgets ||= intrusion === 'forgets';
  }
  return forgets ? 'forgets' : undefined;
}

function intrusionBy([first, second, third]: readonly string[]): Intrusion | undefined {
  switch (first) {
    case 'commit':
    case 'end':
    case 'abort':
      return 'ends';
    case 'rollback': {
      const isNoise = second === 'work' || second === 'transaction';
      return (isNoise ? third : second) === 'to' ? undefined : 'ends';
    }
    case 'prepare':
      return second === 'transaction' ? 'ends' : undefined;
    case 'deallocate':
    case 'discard':
      return 'forgets';
    default:
      return undefined;
  }
}

/** The first words of each statement. */
function* statementsIn(text: string): Generator<readonly string[]> {
  let words: string[] = [];
  let body = new Body();
  for (const piece of piecesOf(text)) {
    if (piece === ';' && !body.isOpen) {
      yield words;
      words = [];
      body = new Body();
    } else {
      if (words.length < ENOUGH) words.push(piece);
      body.read(piece);
    }
  }
  yield words;
}

/** The body of a function in SQL, whose statements are no statements of the text: `CREATE FUNCTION … BEGIN ATOMIC … ; END`. */
class Body {
  #isCreate: boolean | undefined;
  #depth = 0;
  #previous = '';

  get isOpen(): boolean {
    return this.#depth > 0;
  }

  read(piece: string): void {
    this.#isCreate ??= piece === 'create';
    if (!this.#isCreate) return;
    if (piece === 'atomic' && this.#previous === 'begin') this.#depth += 1;
    else if (piece === 'case' && this.isOpen) this.#depth += 1;
    else if (piece === 'end' && this.isOpen) this.#depth -= 1;
    this.#previous = piece;
  }
}

/** Words in lower case, and single characters for all that is neither word nor blank nor comment. */
function* piecesOf(text: string): Generator<string> {
  const regexp = new RegExp(PIECE);
  for (let match = regexp.exec(text); match; match = regexp.exec(text)) {
    const { space, comment, word, dollar } = match.groups ?? {};
    if (comment) regexp.lastIndex = endOfComment(text, match.index);
    else if (dollar) regexp.lastIndex = behind(text, dollar, regexp.lastIndex);
    if (!space && !comment) yield word?.toLowerCase() ?? match[0][0] ?? '';
  }
}

function behind(text: string, end: string, from: number): number {
  const place = text.indexOf(end, from);
  return place < 0 ? text.length : place + end.length;
}

/** Comments nest. */
function endOfComment(text: string, from: number): number {
  const bounds = /\/\*|\*\//g;
  bounds.lastIndex = from;
  let depth = 0;
  for (let bound = bounds.exec(text); bound; bound = bounds.exec(text)) {
    depth += bound[0] === '/*' ? 1 : -1;
    if (depth === 0) return bounds.lastIndex;
  }
  return text.length;
}
