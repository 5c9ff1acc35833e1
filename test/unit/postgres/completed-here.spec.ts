import { describe, expect, it } from '@jest/globals';
import { CompletedHere } from '../../../lib/postgres/completed-here.js';

describe('what this process remembers as completed', () => {
  it('is what was added and not deleted', () => {
    const completed = new CompletedHere();
    completed.add('1');
    completed.add('2');
    completed.delete('1');
    completed.delete('3');
    expect(['1', '2', '3'].map((lock) => completed.has(lock))).toEqual([false, true, false]);
  });

  it('is bounded, and the oldest goes first', () => {
    const completed = new CompletedHere(3);
    for (const lock of ['1', '2', '3', '3', '4', '5']) completed.add(lock);
    expect(['1', '2', '3', '4', '5'].filter((lock) => completed.has(lock))).toEqual(['3', '4', '5']);
  });

  it('is ten thousand unless another number is given', () => {
    const completed = new CompletedHere();
    for (let lock = 0; lock <= 10_000; lock++) completed.add(String(lock));
    expect([completed.has('0'), completed.has('1')]).toEqual([false, true]);
  });
});
