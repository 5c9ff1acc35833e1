import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';

const HUNDRED_KB = 100_000;

/** Texts that a scan has to go through to its end. `COUNT` is how often the part before them comes. */
const TEXTS: Readonly<Record<string, { readonly text: string; readonly ends: boolean }>> = {
  'block comments before it': { text: `'/* a */'.repeat(20_000) + 'SELECT 1 AS one'`, ends: false },
  'block comments before COMMIT': { text: `'/* a */'.repeat(20_000) + 'COMMIT'`, ends: true },
  'block comments and white space before it': {
    text: `' /**/\\n'.repeat(20_000) + 'SELECT 1 AS one'`,
    ends: false,
  },
  'comments in comments': {
    text: `'/*'.repeat(2_000) + 'x'.repeat(${HUNDRED_KB}) + '*/'.repeat(2_000) + 'SELECT 1 AS one'`,
    ends: false,
  },
  'comments in comments, and COMMIT': {
    text: `'/*'.repeat(2_000) + '*/'.repeat(2_000) + 'COMMIT'`,
    ends: true,
  },
  'lines of comments': { text: `'-- a\\n'.repeat(20_000) + 'SELECT 1 AS one'`, ends: false },
  'lines of comments, and COMMIT': { text: `'-- a\\n'.repeat(20_000) + 'COMMIT'`, ends: true },
  'dashes on one line': { text: `'--'.repeat(${HUNDRED_KB}) + '\\nSELECT 1 AS one'`, ends: false },
  'a string of quotes': { text: `"SELECT '" + "''".repeat(${HUNDRED_KB}) + "' AS text"`, ends: false },
  'a string of backslashes': { text: `"SELECT '" + "\\\\".repeat(${HUNDRED_KB}) + "' AS text"`, ends: false },
  'a dollar quoted string of dollars': {
    text: `'SELECT $a$' + '$b$ $'.repeat(20_000) + '$a$ AS text'`,
    ends: false,
  },
  'many strings': { text: `"SELECT 'a' || " + "';' || ".repeat(500) + "'b' AS text"`, ends: false },
  'empty statements': { text: `';'.repeat(${HUNDRED_KB}) + 'SELECT 1 AS one'`, ends: false },
  'white space': { text: `' \\t\\n'.repeat(${HUNDRED_KB}) + 'SELECT 1 AS one'`, ends: false },
  'white space within ROLLBACK TO': {
    text: `'SAVEPOINT a; ROLLBACK' + ' \\n'.repeat(${HUNDRED_KB}) + 'TO a'`,
    ends: false,
  },
  'a string that does not end': { text: `"SELECT '" + ";".repeat(${HUNDRED_KB})`, ends: false },
  // PostgreSQL's own scanner goes back for each of these.
  'a comment that does not end': { text: `'/*'.repeat(2_000) + ' COMMIT'`, ends: false },
  'dollar quoted strings that do not end': {
    text: `Array.from({ length: 20_000 }, (_, index) => '$' + 'a'.repeat(1 + (index % 7)) + index + '$').join(' ')`,
    ends: false,
  },
};

/** A process of its own: a scan that does not end would stop this one, its time limits included. */
const PROGRAM = `
import 'reflect-metadata';
import { Application } from './test/helpers/application.ts';

const texts = { ${Object.entries(TEXTS)
  .map(([name, { text }]) => `${JSON.stringify(name)}: () => ${text}`)
  .join(',\n')} };
const app = await Application.start({ adapter: 'none', databaseUrl: process.env.SCANNED });
console.log('ready');
process.on('message', async (name) => {
  const task = { client: 'scan', endpoint: 'scan', key: name };
  const code = await app.service
    .run(task, async () => {
      await app.dataSource.query(texts[name]());
    })
    .then(() => 'passed', (error) => error.code ?? error.error?.code ?? String(error));
  console.log(code);
});
`;

describe('what a handler sends is looked through in one go', () => {
  let database: TestDatabase;
  let child: TypeScriptProcess | undefined;

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  afterAll(async () => {
    await child?.kill();
    await database.drop();
  });

  /** The outcome of a text in the process, or in a new one where the last has not come back. */
  const outcomeOf = async (name: string): Promise<string> => {
    const running = child ?? runTypeScript(PROGRAM, { SCANNED: database.url }, 'channel');
    if (!child) expect(await running.nextLine()).toBe('ready');
    child = running;
    running.process.send(name);
    const outcome = await Promise.race([running.nextLine(), isStuck()]);
    if (outcome !== STUCK) return outcome;
    child = undefined;
    await running.kill();
    return STUCK;
  };

  it.each(Object.keys(TEXTS))('%s', async (name) => {
    const outcome = await outcomeOf(name);
    if (TEXTS[name]!.ends) expect(outcome).toBe('IDEMPOTENCY_TRANSACTION_NOT_YOURS');
    // Whatever PostgreSQL says of it.
    else expect(outcome).toMatch(/^(?:passed|[0-9A-Z]{5})$/);
  });
});

const STUCK = 'it did not come back';

/** Long after the slowest machine is through, and before the test's own limit. */
function isStuck(): Promise<typeof STUCK> {
  return delay(20_000, STUCK, { ref: false });
}
