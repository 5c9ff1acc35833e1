/** Pauses between two looks at the store, in milliseconds: the first, and the longest. */
const FIRST_PAUSE = 40;
const LONGEST_PAUSE = 1_000;
const GROWTH = 1.6;

/** How many times as long as the work a rest is, and the longest in milliseconds. */
const RESTS = 4;
const LONGEST_REST = 5_000;

/**
 * Milliseconds to pause before a further look at a request that runs in another process. They grow, so that a long request
 * is not asked after all the time, and each is spread over its upper half, so that instances do not ask together.
 *
 * @param look - 0 for the first pause.
 * @param random - From 0 to 1.
 */
export function pauseBefore(look: number, random: number): number {
  const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH ** look);
  return pause * (0.5 + random / 2);
}

/**
 * Milliseconds to rest after work that has taken so many, so that whoever else the database serves hardly notices it. Work that
 * took long has found the database busy; what has waited for a lock or for a connection is no reason to rest for hours.
 */
export function restAfter(took: number): number {
  return Math.min(LONGEST_REST, RESTS * took);
}

/**
 * Seconds for `Retry-After`, from what is known: a request that has run for so long will probably run for about as long
 * again, but not beyond its limit. Both in milliseconds.
 */
export function retryAfter(elapsed: number, remaining: number): number {
  return Math.max(1, Math.ceil(Math.min(elapsed, remaining) / 1_000));
}
