import { describe, expect, it } from '@jest/globals';
import { isExchangeable, replayStatus } from '../../../lib/http/replay-status.js';

describe('replayStatus', () => {
  it.each([200, 201, 202, 203, 207, 299])('takes the place of %i', (original) => {
    expect(replayStatus(original, 'original')).toBe(original);
    expect(replayStatus(original, 203)).toBe(203);
  });

  it.each([204, 205, 206, 300, 304, 400, 402, 499])('leaves %i what it was', (original) => {
    expect(replayStatus(original, 200)).toBe(original);
  });
});

describe('isExchangeable', () => {
  it.each([204, 205, 206, 199, 300, 200.5, Number.NaN, '200', null, undefined])('refuses %p', (status) => {
    expect(isExchangeable(status)).toBe(false);
  });
});
