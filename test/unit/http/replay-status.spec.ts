import { describe, expect, it } from '@jest/globals';
import { isExchangeable, replayStatus } from '../../../lib/http/replay-status.js';

function recorded(
  status: number,
  ending: 'completed' | 'failed' = 'completed',
): Parameters<typeof replayStatus>[0] {
  return { status: ending, response: { status, headers: [], body: Buffer.alloc(0) } };
}

describe('replayStatus', () => {
  it.each([200, 201, 202, 203, 207, 299])('takes the place of %i', (original) => {
    expect(replayStatus(recorded(original), 'original')).toBe(original);
    expect(replayStatus(recorded(original), 203)).toBe(203);
  });

  it.each([204, 205, 206, 300, 304, 400, 402, 499])('leaves %i what it was', (original) => {
    expect(replayStatus(recorded(original), 200)).toBe(original);
  });

  it('leaves an error what a filter has made of it', () => {
    expect(replayStatus(recorded(200, 'failed'), 202)).toBe(200);
  });
});

describe('isExchangeable', () => {
  it.each([204, 205, 206, 199, 300, 200.5, Number.NaN, '200', null, undefined])('refuses %p', (status) => {
    expect(isExchangeable(status)).toBe(false);
  });
});
