import { describe, expect, it } from '@jest/globals';
import { statementsFor } from '../../../lib/postgres/statements.js';
import { PLAIN, tuningFor } from '../../../lib/postgres/tuning.js';

const namesIn = (table: string, schema?: string): ReadonlyMap<string, string> =>
  tuningFor({ preparedStatements: true }, statementsFor(table, schema, 180_000)).names;

describe('the tuning', () => {
  it('is none unless it is asked for', () => {
    expect(tuningFor({}, statementsFor('records', undefined, 180_000))).toEqual(PLAIN);
    expect(PLAIN).toEqual({ pipeline: false, names: new Map() });
  });

  it('gives another name to another text, of whatever table, and always the same', () => {
    const tables: [string, string?][] = [['one'], ['other'], ['one', 'a'], ['one', 'b']];
    const named = tables.flatMap((table) => [...namesIn(...table)]);
    const texts = new Map(named.map(([text, name]) => [name, text]));
    expect(new Set(texts.values()).size).toBe(texts.size);
    for (const [text, name] of named) expect(texts.get(name)).toBe(text);
    expect(namesIn('one')).toEqual(namesIn('one'));
  });

  it('gives names that PostgreSQL does not cut', () => {
    for (const name of namesIn('t'.repeat(51), 's'.repeat(63)).values())
      expect(name).toMatch(/^idempotency_[a-zA-Z_0-9]{1,51}$/);
  });
});
