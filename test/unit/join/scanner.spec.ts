import { describe, expect, it } from '@jest/globals';
import * as fc from 'fast-check';
import { intrusionOf, type Intrusion } from '../../../lib/join/scanner.js';

const NOTHING: Intrusion | undefined = undefined;

describe('what a statement does to the transaction', () => {
  it.each([
    'COMMIT',
    'commit',
    'CoMmIt',
    'COMMIT WORK',
    'COMMIT AND CHAIN',
    "COMMIT PREPARED 'x'",
    'END',
    'end transaction',
    'ABORT',
    'ROLLBACK',
    'rollback;',
    'ROLLBACK WORK',
    'ROLLBACK TRANSACTION AND CHAIN',
    "ROLLBACK PREPARED 'x'",
    "PREPARE TRANSACTION 'x'",
    '  \n\t COMMIT  ',
    ';;COMMIT',
    '-- a comment\nCOMMIT',
    '-- a comment\rCOMMIT',
    '--\nCOMMIT',
    '/* a comment */ COMMIT',
    '/* a /* nested */ comment */ COMMIT',
    '/* a /* /* */ */ -- */COMMIT',
    '/**/COMMIT',
    '/***/COMMIT',
    'COMMIT/* a comment that nobody ends',
    'COMMIT--',
    'SELECT 1; COMMIT',
    'SELECT 1;COMMIT;SELECT 2',
    "SELECT ';'; COMMIT",
    "SELECT ''; COMMIT",
    "SELECT 'it''s'; COMMIT",
    "SELECT '''' ; COMMIT",
    "SELECT '\\'; COMMIT",
    "SELECT E'\\''; COMMIT",
    "SELECT e'\\\\'; COMMIT",
    "SELECT E'a''b'; COMMIT",
    "SELECT E'a''\\''; COMMIT --'",
    "SELECT E'a'\n'\\''; COMMIT --'",
    "SELECT E'a' -- x\n -- y\n\t'\\''; COMMIT --'",
    "SELECT E'a' '\\'; COMMIT --'",
    "SELECT B'1', X'a', N'n', U&'x'; COMMIT",
    'SELECT "a""b;"; COMMIT',
    'SELECT U&"x"; COMMIT',
    'SELECT $$ ; $$; COMMIT',
    'SELECT $a$ $$ $b$ $a$; COMMIT',
    'SELECT $ä$ x $ä$; COMMIT',
    'SELECT $1; COMMIT',
    'SELECT $1$2; COMMIT',
    'SELECT a$1 FROM a; COMMIT',
    'SELECT a$b$ FROM b$c$; COMMIT',
    'SELECT 1e5; COMMIT',
    "SELECT type'x'; COMMIT",
    'SELECT CASE WHEN true THEN 1 END; COMMIT',
    'SELECT a FROM atomic; END',
    'BEGIN; END',
    'BEGIN ATOMIC; END',
    'CREATE TABLE a (b int); COMMIT',
    'CREATE TABLE "begin" (atomic int); END',
    'CREATE TABLE a (b int CHECK (CASE WHEN true THEN true END)); COMMIT',
    'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; COMMIT',
    'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; ROLLBACK',
    'CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END; END',
    'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; COMMIT',
    'DEALLOCATE ALL; COMMIT',
    'DISCARD ALL; END',
  ])('ends it: %j', (text) => expect(intrusionOf(text)).toBe('ends'));

  it.each([
    'DEALLOCATE ALL',
    'deallocate prepare x',
    'DISCARD ALL',
    'discard plans',
    'SELECT 1; DEALLOCATE x',
    'DISCARD TEMP; SELECT 1',
    '/* x */ DEALLOCATE ALL;',
  ])('makes its session forget: %j', (text) => expect(intrusionOf(text)).toBe('forgets'));

  it.each([
    '',
    ';',
    'SELECT 1',
    'BEGIN',
    'START TRANSACTION',
    'SAVEPOINT commit',
    'RELEASE SAVEPOINT a',
    'ROLLBACK TO a',
    'ROLLBACK TO SAVEPOINT a',
    'ROLLBACK WORK TO SAVEPOINT a',
    'ROLLBACK TRANSACTION TO a',
    'rollback /* x */ to -- y\n savepoint a',
    'PREPARE x AS SELECT 1',
    'PREPARE transactions AS SELECT 1',
    'EXECUTE commit',
    'committed',
    'SELECT commit FROM discard',
    'UPDATE a SET "end" = 1',
    '"commit"',
    '"ROLLBACK";',
    "'COMMIT'",
    "SELECT 'COMMIT; ROLLBACK'",
    "SELECT ';COMMIT;'",
    "SELECT 'it''s; COMMIT'",
    "SELECT E'it\\'s; COMMIT'",
    "SELECT E'\\\\\\'; COMMIT'",
    "SELECT e'x''; COMMIT'",
    "SELECT E'a\\'''; COMMIT",
    "SELECT E'a''\\'; COMMIT'",
    "SELECT E'a' \r\n '\\'; COMMIT'",
    "SELECT 'a'\n'; COMMIT'",
    "SELECT '\n; COMMIT'",
    'SELECT "a; COMMIT"',
    'SELECT "a""; COMMIT"',
    'SELECT $$; COMMIT $$',
    'SELECT $a$ $$; COMMIT $$ $a$',
    'SELECT $a$; COMMIT',
    "SELECT '; COMMIT",
    'SELECT "; COMMIT',
    "SELECT E'; COMMIT",
    'SELECT 1 /* ; COMMIT',
    'SELECT 1 /* /* */ ; COMMIT',
    'SELECT 1 -- ; COMMIT',
    '-- COMMIT',
    '/* COMMIT */',
    '/* ; /* COMMIT; */ ROLLBACK; */ SELECT 1',
    'DO $$ BEGIN COMMIT; END $$',
    'CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END; $f$',
    'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END',
    'CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE a WHEN 1 THEN CASE b WHEN 2 THEN 3 END END; SELECT 4; END;',
    'CREATE PROCEDURE p() BEGIN /* x */ ATOMIC INSERT INTO a VALUES (1); END; SELECT 1',
    'commit_ts',
    'commit$',
    'commitä',
    '_commit',
    'SELECT a.commit, 1 AS end',
    '@commit',
  ])('does nothing: %j', (text) => expect(intrusionOf(text)).toBe(NOTHING));
});

describe('the scanner', () => {
  /** What is neither a word of its own nor a boundary, and what it is for whoever reads only words and `;`. */
  const opaque = fc.constantFrom(
    ...["'; COMMIT'", "''", "'it''s;'", "E'\\';COMMIT'", '"; END"', '"a""b;"', '$$; COMMIT $$'],
    ...['$q$ $$;END;$$ $q$', '-- ; COMMIT\n', '/* ; /* END; */ COMMIT; */'],
  );
  const word = fc.constantFrom(
    ...['commit', 'END', 'rollback', 'to', 'work', 'Transaction', 'prepare', 'discard', 'deallocate'],
    ...['select', 'x', 'savepoint', '1', ',', 'abort', 'begin', 'case'],
  );
  const pieces = fc.array(fc.oneof(word, opaque, fc.constant(';')), { maxLength: 24 });

  /** As the grammar has it, of what is known to be no part of a string or a comment. */
  const naive = (tokens: readonly string[]): Intrusion | undefined => {
    const words = tokens.filter((token) => !/^(?:--|\/\*)/.test(token)).map((token) => token.toLowerCase());
    const statements = words
      .join('\n')
      .split(/^;$/m)
      .map((statement) => statement.trim().split('\n').join(' '));
    if (statements.some((text) => /^(?:commit|end|abort)(?: |$)|^prepare transaction(?: |$)/.test(text)))
      return 'ends';
    const rollbacks = statements.filter((text) => /^rollback(?: |$)/.test(text));
    if (rollbacks.some((text) => !/^rollback (?:(?:work|transaction) )?to(?: |$)/.test(text))) return 'ends';
    return statements.some((text) => /^(?:deallocate|discard)(?: |$)/.test(text)) ? 'forgets' : undefined;
  };

  it('agrees with a naive one that is told where strings and comments are', () => {
    fc.assert(
      fc.property(pieces, fc.constantFrom(' ', '\n', '\t '), (tokens, blank) => {
        expect(intrusionOf(tokens.join(blank))).toBe(naive(tokens));
      }),
      { numRuns: 2_000 },
    );
  });

  it('reads whatever it is given', () => {
    const characters = fc.constantFrom(
      ...["'", '"', '$', '/', '*', '-', ';', '\\', 'e', 'E', '_', ' ', '\n', '\r', 'ä', 'a', '1'],
      ...['commit', 'end', '\u{1f600}', '\0'],
    );
    fc.assert(
      fc.property(fc.array(characters, { maxLength: 60 }), (parts) => {
        expect(['ends', 'forgets', undefined]).toContain(intrusionOf(parts.join('')));
      }),
      { numRuns: 2_000 },
    );
  });

  /** Work that grows with the square of these lengths would take minutes. */
  it.each<[string, string, string]>([
    ['comments in front', '/* x */ ', 'COMMIT'],
    ['lines of comment in front', '-- x\n', 'COMMIT'],
    ['comments within comments', '/*', ' COMMIT'],
    ['comments that are ended twice', '/**/*/', ' COMMIT'],
    ['blanks', ' ', 'COMMIT'],
    ['empty statements', ';', 'COMMIT'],
    ['statements', 'SELECT 1;', 'COMMIT'],
    ['strings', "'a''b' ", '; COMMIT'],
    ['quotes', "'", 'COMMIT'],
    ['escaped quotes', "E'\\'", 'COMMIT'],
    ['strings with escapes', "E'a''", 'COMMIT'],
    ['strings that go on in the next line', "E'a'\n'b", 'COMMIT'],
    ['lines behind a string', "E'a'\n", 'COMMIT'],
    ['lines of comment behind a string', "E'a' --\n--\n", 'COMMIT'],
    ['backslashes', '\\', 'COMMIT'],
    ['double quotes', '"', 'COMMIT'],
    ['dollars', '$', 'COMMIT'],
    ['beginnings of dollar quotes', '$a', ' COMMIT'],
    ['dollar quotes that nobody ends', '$a$ $b$ ', 'COMMIT'],
    ['different dollar quotes', '$a$$b$', 'COMMIT'],
    ['words', 'rollback ', 'COMMIT'],
    ['one word', 'commit', 'COMMIT'],
    ['nested bodies', 'CREATE FUNCTION f() BEGIN ATOMIC case ', '; END; COMMIT'],
    ['letters beyond ASCII', 'ä', ' COMMIT'],
    ['half a comment', '/', '* COMMIT'],
    ['half a line comment', '- ', 'COMMIT'],
  ])('is linear: hundreds of thousands of %s', (_what, repeated, end) => {
    const text = repeated.repeat(300_000) + end;
    const began = performance.now();
    intrusionOf(text);
    intrusionOf(`COMMIT; ${text}`);
    expect(performance.now() - began).toBeLessThan(20_000);
  });

  it('is linear behind one string: hundreds of thousands of blanks, lines and letters', () => {
    for (const repeated of [' ', '\n', ' --', '--\n', 'a', "''", '\\a']) {
      for (const start of ["SELECT E'a'", "SELECT E'a"]) {
        const began = performance.now();
        intrusionOf(`${start}${repeated.repeat(300_000)}; COMMIT`);
        expect(performance.now() - began).toBeLessThan(20_000);
      }
    }
    expect(intrusionOf(`SELECT E'${'a'.repeat(50_000_000)}'; COMMIT`)).toBe('ends');
  });

  it('sees through thousands of comments and statements', () => {
    expect(intrusionOf(`${'/* a */-- b\n'.repeat(20_000)}COMMIT`)).toBe('ends');
    expect(intrusionOf(`${"SELECT ';';".repeat(20_000)}COMMIT`)).toBe('ends');
    expect(intrusionOf(`${'/*'.repeat(20_000)}${'*/'.repeat(20_000)} END`)).toBe('ends');
    expect(intrusionOf(`${'/*'.repeat(20_001)}${'*/'.repeat(20_000)} END`)).toBeUndefined();
  });
});
