const UNIT_IN_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;
const PATTERN = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/;
/** What timers can hold: 2^31 - 1 ms, 24.8 days. */
const LONGEST = 2_147_483_647;

/** A span of time: a whole number of milliseconds, or a number with a unit (`ms`, `s`, `m`, `h`), such as `'30s'`. */
export type Duration = number | string;

/** Milliseconds, or undefined for what is no duration, is not positive, or is longer than a timer can hold. */
export function milliseconds(value: Duration): number | undefined {
  const [, amount, unit] = typeof value === 'string' ? (PATTERN.exec(value.trim()) ?? []) : [];
  // Number.isInteger takes a text for none.
  const result = (
    unit ? Math.round(Number(amount) * UNIT_IN_MS[unit as keyof typeof UNIT_IN_MS]) : value
  ) as number;
  return Number.isInteger(result) && result > 0 && result <= LONGEST ? result : undefined;
}
