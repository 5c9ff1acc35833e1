import { HandlerStatements } from './handler-statements.js';
import { statementName } from './statement-name.js';
import type { Statements } from './statements.js';

/** How statements are sent. */
export interface Tuning {
  /** Whether several go to the server in one piece, where the client can. */
  readonly pipeline: boolean;
  /** The name under which the server keeps a statement prepared, by its text; none for what is parsed each time. */
  readonly names: ReadonlyMap<string, string>;
  /** Which of the handlers' own statements are prepared; undefined: none. */
  readonly handlers?: HandlerStatements;
}

/** One after the other, none prepared: what works everywhere. */
export const PLAIN: Tuning = { pipeline: false, names: new Map() };

/** What every request sends. What is rare is not worth the memory that a prepared statement takes in each session. */
const HOT = [
  'look',
  'lock',
  'existing',
  'record',
  'claim',
  'completeLease',
  'extend',
  'fenceLock',
  'fence',
] as const;

/** The tuning that the options ask for. */
export function tuningFor(
  {
    pipeline = false,
    preparedStatements = false,
  }: { pipeline?: boolean; preparedStatements?: boolean | 'all' },
  statements: Statements,
): Tuning {
  const prepared = preparedStatements ? HOT : [];
  const names = prepared.map(
    (statement) => [statements[statement], statementName(statement, statements[statement])] as const,
  );
  return {
    pipeline,
    names: new Map(names),
    ...(preparedStatements === 'all' && { handlers: new HandlerStatements() }),
  };
}
