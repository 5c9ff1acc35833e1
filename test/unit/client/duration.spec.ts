import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { milliseconds } from '../../../lib/client/duration.js';

describe('milliseconds', () => {
  it.each([
    ['1ms', 1],
    ['250ms', 250],
    ['30s', 30_000],
    ['1.5s', 1_500],
    ['2m', 120_000],
    ['1h', 3_600_000],
    [' 10 s ', 10_000],
    ['0.5ms', 1],
    [1, 1],
    [2_147_483_647, 2_147_483_647],
    ['2147483647ms', 2_147_483_647],
  ])('takes %j for %d', (value, expected) => {
    expect(milliseconds(value)).toBe(expected);
  });

  it.each([
    0,
    -1,
    1.5,
    NaN,
    Infinity,
    2_147_483_648,
    '',
    '0s',
    '-1s',
    '10',
    's',
    '1d',
    '1 week',
    '1s 1s',
    '1e3s',
    '.5s',
    '25d',
    '597h',
    '0.4ms',
  ])('refuses %j', (value) => {
    expect(milliseconds(value)).toBeUndefined();
  });

  it('never gives a timer more than it holds, and always something to wait for', () => {
    const text = fc.tuple(fc.double({ min: 0, noNaN: true }), fc.constantFrom('ms', 's', 'm', 'h'));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.double(),
          text.map(([amount, unit]) => `${amount}${unit}`),
        ),
        (value) => {
          const result = milliseconds(value);
          const isTimer =
            result === undefined || (Number.isInteger(result) && result >= 1 && result < 2 ** 31);
          expect(isTimer).toBe(true);
        },
      ),
    );
  });

  it.each([null, undefined, true, {}, [30]])('refuses %j, whatever types say', (value) => {
    expect(milliseconds(value as never)).toBeUndefined();
  });
});
