const UNIT_IN_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const PATTERN = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/;

/** The longest time PostgreSQL's millisecond settings and Node's timers can hold: 2^31 - 1 ms, 24.8 days. */
export const LONGEST_TIMEOUT_MS = 2_147_483_647;

/**
 * A span of time: a whole number of milliseconds, or a string of a number and a unit
 * (`ms`, `s`, `m`, `h`, `d`), such as `'24h'`, `'1.5s'` or `'250 ms'`.
 */
export type Duration = number | string;

/** Milliseconds of a {@link Duration}, or undefined when it is not one, is not positive or is not finite. */
export function parseDuration(value: unknown): number | undefined {
  const milliseconds = typeof value === 'string' ? parseText(value) : value;
  if (typeof milliseconds !== 'number' || !Number.isSafeInteger(milliseconds) || milliseconds <= 0)
    return undefined;
  return milliseconds;
}

function parseText(text: string): number | undefined {
  const [, amount, unit] = PATTERN.exec(text.trim()) ?? [];
  if (amount === undefined || unit === undefined) return undefined;
  return Math.round(Number(amount) * UNIT_IN_MS[unit as keyof typeof UNIT_IN_MS]);
}
