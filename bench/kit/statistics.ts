/** The value below which that part of the sorted values lies. */
export function percentile(sorted: ArrayLike<number>, part: number): number {
  const index = Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1);
  return sorted[Math.max(0, index)]!;
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Lowest and highest. */
export function spread(values: readonly number[]): [number, number] {
  return [round(Math.min(...values)), round(Math.max(...values))];
}

/** Three digits after the point: more would be noise. */
export function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** The seed that was given, or a random one where it is 0. */
export function chooseSeed(given: number): number {
  return given === 0 ? 1 + Math.floor(Math.random() * 1e9) : given;
}

/** A generator of numbers from 0 to 1 that gives the same ones for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** The same items in random order. */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const result = [...items];
  for (let index = result.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [result[index], result[other]] = [result[other]!, result[index]!];
  }
  return result;
}

/** The numbers of the rounds that each generation of processes is measured in. */
export function generationsOf({ rounds, generations }: { rounds: number; generations: number }): number[][] {
  const all = Array.from({ length: rounds }, (_, index) => index + 1);
  const size = Math.ceil(rounds / Math.max(1, generations));
  return all.filter((_, index) => index % size === 0).map((first) => all.slice(first - 1, first - 1 + size));
}
