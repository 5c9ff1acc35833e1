import { describe, expect, it } from '@jest/globals';
import { pauseBefore, restAfter, retryAfter } from '../../../lib/core/waiting.js';

describe('pauseBefore', () => {
  it('grows with every look, up to a second', () => {
    const longest = Array.from({ length: 20 }, (_, look) => pauseBefore(look, 1));
    expect(longest[0]).toBe(40);
    for (let look = 1; look < longest.length; look++) {
      expect(longest[look]).toBeGreaterThanOrEqual(longest[look - 1]!);
    }
    expect(longest.at(-1)).toBe(1_000);
  });

  it('is spread over its upper half', () => {
    for (const look of [0, 3, 50]) {
      expect(pauseBefore(look, 0)).toBe(pauseBefore(look, 1) / 2);
      expect(pauseBefore(look, 0.5)).toBe(pauseBefore(look, 1) * 0.75);
    }
  });
});

describe('restAfter', () => {
  it.each([
    ['four times as long as the work took', 50, 200],
    ['at most five seconds', 1_800_000, 5_000],
  ])('is %s', (_what, took, rest) => {
    expect(restAfter(took)).toBe(rest);
  });
});

describe('retryAfter', () => {
  it.each([
    ['as long again as it has run', 7_000, 50_000, 7],
    ['but not beyond its limit', 40_000, 20_000, 20],
    ['in whole seconds, rounded up', 1_001, 50_000, 2],
    ['at least one second', 0, 50_000, 1],
    ['also past its limit', 60_000, -5, 1],
  ])('says %s', (_what, elapsed, remaining, seconds) => {
    expect(retryAfter(elapsed, remaining)).toBe(seconds);
  });
});
