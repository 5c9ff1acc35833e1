import { describe, expect, it } from '@jest/globals';
import { parseDuration } from '../../../lib/core/duration.js';

describe('parseDuration', () => {
  it.each([
    [1, 1],
    [60_000, 60_000],
    ['250ms', 250],
    ['250 ms', 250],
    ['1.5s', 1_500],
    ['60s', 60_000],
    ['10m', 600_000],
    ['24h', 86_400_000],
    ['0.5d', 43_200_000],
    [' 7d ', 604_800_000],
  ])('reads %j', (duration, milliseconds) => {
    expect(parseDuration(duration)).toBe(milliseconds);
  });

  it.each([
    [0],
    [-1],
    [1.5],
    [Number.NaN],
    [Number.POSITIVE_INFINITY],
    [2 ** 53],
    ['0s'],
    ['0.1ms'],
    ['-1s'],
    ['1'],
    ['s'],
    [''],
    ['1 week'],
    ['1S'],
    ['1e3s'],
    ['1s 5ms'],
    ['9'.repeat(20) + 'd'],
    [null],
    [undefined],
    [{}],
    [10n],
  ])('refuses %p', (duration) => {
    expect(parseDuration(duration)).toBeUndefined();
  });
});
