import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { runTypeScript } from '../../helpers/child-process.js';
import { parseRetryAfter, pauseAfter } from '../../../lib/client/backoff.js';

const failures = fc.integer({ min: 1, max: 1_000_000 });
const milliseconds = fc.integer({ min: 1, max: 2_147_483_647 });
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const backoff = fc.record({ base: milliseconds, max: milliseconds });

/** The largest number that Math.random gives. */
const ALMOST_ONE = 1 - 2 ** -53;

describe('pauseAfter', () => {
  it('is a whole number between 0 and what has been doubled, and never beyond the maximum', () => {
    fc.assert(
      fc.property(failures, backoff, random, (count, { base, max }, chance) => {
        const pause = pauseAfter(count, { base, max }, undefined, chance);
        expect(Number.isInteger(pause)).toBe(true);
        expect(pause).toBeGreaterThanOrEqual(0);
        expect(pause).toBeLessThanOrEqual(Math.min(max, base * 2 ** (count - 1)));
      }),
    );
  });

  it.each([
    [1, 200],
    [2, 400],
    [3, 800],
    [6, 6_400],
    [7, 10_000],
    [1_000_000, 10_000],
  ])('has after %d failures its full range, from 0 to %d', (count, most) => {
    const backoff = { base: 200, max: 10_000 };
    expect(pauseAfter(count, backoff, undefined, 0)).toBe(0);
    expect(pauseAfter(count, backoff, undefined, 0.5)).toBe(most / 2);
    expect(pauseAfter(count, backoff, undefined, ALMOST_ONE)).toBe(most);
  });

  it('grows with the random number', () => {
    fc.assert(
      fc.property(failures, backoff, random, random, (count, limits, one, other) => {
        const [less, more] = one < other ? [one, other] : [other, one];
        expect(pauseAfter(count, limits, undefined, less)).toBeLessThanOrEqual(
          pauseAfter(count, limits, undefined, more),
        );
      }),
    );
  });

  it('takes Retry-After as the least, and adds the jitter of a first pause however many failures there were', () => {
    const asked = fc.integer({ min: 0, max: 86_400_000 });
    fc.assert(
      fc.property(failures, backoff, asked, random, (count, { base, max }, retryAfter, chance) => {
        const pause = pauseAfter(count, { base, max }, retryAfter, chance);
        expect(pause).toBeGreaterThanOrEqual(retryAfter);
        expect(pause).toBeLessThanOrEqual(retryAfter + Math.min(base, max));
        expect(pause).toBe(pauseAfter(1, { base, max }, retryAfter, chance));
      }),
    );
  });

  it('spreads those who were asked to come back at the same moment', () => {
    const at = (chance: number): number => pauseAfter(4, { base: 200, max: 10_000 }, 5_000, chance);
    expect([at(0), at(0.5), at(ALMOST_ONE)]).toEqual([5_000, 5_100, 5_200]);
  });
});

describe('parseRetryAfter', () => {
  const now = Date.UTC(1994, 10, 6, 8, 49, 0);

  it('reads seconds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seconds) => {
        expect(parseRetryAfter(String(seconds), now)).toBe(seconds * 1_000);
      }),
    );
    expect(parseRetryAfter(' 7 ', now)).toBe(7_000);
    expect(parseRetryAfter('007', now)).toBe(7_000);
  });

  it.each([
    ['an IMF-fixdate', 'Sun, 06 Nov 1994 08:49:37 GMT'],
    ['a date of RFC 850', 'Sunday, 06-Nov-94 08:49:37 GMT'],
    ['a date of asctime()', 'Sun Nov  6 08:49:37 1994'],
    ['a date of asctime() without the second blank', 'Sun Nov 6 08:49:37 1994'],
  ])('reads %s', (_, header) => {
    expect(parseRetryAfter(header, now)).toBe(37_000);
  });

  it('knows the weekdays and months in every form', () => {
    const second = fc.integer({ min: 0, max: Date.UTC(2049, 11, 31) / 1_000 });
    fc.assert(
      fc.property(second, fc.constantFrom('fixdate', 'asctime'), (at, form) => {
        const fixdate = new Date(at * 1_000).toUTCString();
        const [weekday = '', day = '', month, year, time] = fixdate.split(/,? /);
        const header =
          form === 'fixdate'
            ? fixdate
            : `${weekday} ${String(month)} ${day.replace(/^0/, ' ')} ${String(time)} ${String(year)}`;
        expect(parseRetryAfter(header, 0)).toBe(at * 1_000);
      }),
    );
  });

  it('takes asctime() for GMT wherever the client is', async () => {
    const child = runTypeScript(
      `import { parseRetryAfter } from './lib/client/backoff.ts';
       console.log(new Date(0).getHours(), parseRetryAfter('Sun Nov  6 08:49:37 1994', ${now}));`,
      { TZ: 'America/New_York' },
    );
    expect(await child.nextLine()).toBe('19 37000');
    await child.kill();
  });

  it('does not wait for what is past', () => {
    expect(parseRetryAfter('Sun, 06 Nov 1994 08:48:00 GMT', now)).toBe(0);
    expect(parseRetryAfter('0', now)).toBe(0);
  });

  it.each([
    null,
    '',
    ' ',
    '1.5',
    '-1',
    '+1',
    '1e3',
    '0x10',
    '1, 2',
    'soon',
    '1994-11-06T08:49:37Z',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 06 Nov 1994 08:49:37 +0100',
    'Sun, 99 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 GMT',
    'Foo Bar 1',
    'Mon, 1 GMT',
    'sun, 06 nov 1994 08:49:37 gmt',
    '٣',
  ])('takes %j for nothing', (header) => {
    expect(parseRetryAfter(header, now)).toBeUndefined();
  });

  it('never takes anything for a time that is no number', () => {
    fc.assert(
      fc.property(fc.string(), (header) => {
        const result = parseRetryAfter(header, now);
        expect(result === undefined || result >= 0).toBe(true);
      }),
    );
  });
});
