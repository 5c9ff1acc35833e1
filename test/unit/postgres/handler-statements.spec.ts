import { describe, expect, it } from '@jest/globals';
import { HandlerStatements, isPreparable } from '../../../lib/postgres/handler-statements.js';

const CANDIDATES = 1_000;

/** Sends a text that many times, and resolves with the names it was sent under. */
function sent(statements: HandlerStatements, text: string, times = 1): (string | undefined)[] {
  return Array.from({ length: times }, () => {
    const name = statements.nameOf(text);
    if (name === undefined) statements.count(text);
    return name;
  });
}

describe('HandlerStatements', () => {
  it('names a text from the fifth time on, and always the same', () => {
    const statements = new HandlerStatements();
    const names = sent(statements, 'SELECT $1', 7);
    expect(names.slice(0, 4)).toEqual(Array(4).fill(undefined));
    expect(names[4]).toMatch(/^idempotency_handler_[0-9a-f]{32}$/);
    expect(new Set(names.slice(4)).size).toBe(1);
    expect(sent(new HandlerStatements(), 'SELECT $1', 5)[4]).toBe(names[4]);
    expect(sent(statements, 'SELECT $2', 5)[4]).not.toBe(names[4]);
  });

  it('names no text again that was given up, and keeps its place', () => {
    const statements = new HandlerStatements();
    for (let text = 0; text < 256; text++) sent(statements, `${text}`, 5);
    statements.giveUp('7');
    expect(sent(statements, '7', 10)).toEqual(Array(10).fill(undefined));
    expect(sent(statements, 'one more', 10)).toEqual(Array(10).fill(undefined));
    expect(sent(statements, '8')).toEqual([expect.any(String)]);
  });

  it('forgets the oldest of those that it counts', () => {
    const statements = new HandlerStatements();
    sent(statements, 'oldest', 3);
    sent(statements, 'second', 3);
    for (let text = 2; text <= CANDIDATES; text++) sent(statements, `${text}`);
    expect(sent(statements, 'oldest', 5).findIndex(Boolean)).toBe(4);
    // Coming back, it took the place of the second.
    expect(sent(statements, 'second', 5).findIndex(Boolean)).toBe(4);
    expect(sent(statements, `${CANDIDATES}`, 4).findIndex(Boolean)).toBe(3);
  });
});

describe('what may be sent under a name', () => {
  it.each<[string, unknown[]]>([
    ['values of every simple kind', [null, undefined, '', 1, true, 1n, new Date(), Buffer.of(1)]],
    ['lists of them', [[null, 'a'], [], [Buffer.of(1)]]],
  ])('are %s', (_what, values) => {
    expect(isPreparable(['SELECT $1', values])).toBe(true);
  });

  it.each<[string, unknown[]]>([
    ['a text alone', ['SELECT 1']],
    ['no values', ['SELECT 1', []]],
    ['undefined values', ['SELECT 1', undefined]],
    ['values that are no list', ['SELECT 1', { 0: 'a' }]],
    ['a query object', [{ text: 'SELECT $1', values: [1] }]],
    ['a query object beside values', [{ text: 'SELECT $1', rowMode: 'array' }, [1]]],
    ['something more', ['SELECT $1', [1], undefined]],
    ['a value that becomes JSON', ['SELECT $1', [{}]]],
    ['one that converts itself', ['SELECT $1', [{ toPostgres: () => '1' }]]],
    ['one within a list', ['SELECT $1', [[{}]]]],
    ['lists in lists', ['SELECT $1', [[['a']]]]],
  ])('is not %s', (_what, args) => {
    expect(isPreparable(args)).toBe(false);
  });
});
