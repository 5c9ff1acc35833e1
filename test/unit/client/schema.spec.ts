import { describe, expect, it } from '@jest/globals';
import { describeIssues, unchecked } from '../../../lib/client/schema.js';

describe('unchecked', () => {
  it('lets everything through, as it is', async () => {
    const value = { id: 1 };
    const schema = unchecked<{ id: string }>()['~standard'];
    expect(await schema.validate(value)).toEqual({ value });
    expect(((await schema.validate(value)) as { value: unknown }).value).toBe(value);
    expect(await schema.validate(undefined)).toEqual({ value: undefined });
    expect({ version: schema.version, vendor: schema.vendor }).toEqual({
      version: 1,
      vendor: 'nestjs-pg-idempotency',
    });
  });
});

describe('describeIssues', () => {
  it.each([
    ['no path', [{ message: 'is required' }], 'is required'],
    ['an empty path', [{ message: 'is required', path: [] }], 'is required'],
    ['a path', [{ message: 'no number', path: ['items', 0, 'quantity'] }], 'items.0.quantity: no number'],
    ['a path of segments', [{ message: 'no', path: [{ key: 'items' }, { key: 1 }] }], 'items.1: no'],
    ['a symbol', [{ message: 'no', path: [Symbol('tag')] }], 'Symbol(tag): no'],
    ['several', [{ message: 'one', path: ['a'] }, { message: 'two' }], 'a: one; two'],
    ['none', [], ''],
  ])('writes issues with %s as one line', (_, issues, line) => {
    expect(describeIssues(issues)).toBe(line);
  });
});
