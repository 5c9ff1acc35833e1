import { randomInt } from 'node:crypto';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

/** Whether fault runs have their full length, as `npm run test:faults` asks. */
const FULL_LENGTH = process.env['FAULTS'] === 'full';

/** How much a fault run does: a little in every `npm test`, much more when it is asked for. */
export function amount({ short, full }: { readonly short: number; readonly full: number }): number {
  return FULL_LENGTH ? full : short;
}

/** Numbers that look random and are the same for the same seed. */
export interface Random {
  readonly seed: number;
  /** An integer from 0 up to, but not including, `limit`. */
  below(limit: number): number;
  /** True in so many of a hundred cases. */
  percent(chance: number): boolean;
  pick<T>(choices: readonly T[]): T;
  /** The same choices in another order. */
  shuffle<T>(choices: readonly T[]): T[];
  /** A generator of its own, so that what one part of a run draws does not depend on how far another has come. */
  fork(): Random;
}

/** The seed of this run: that of the environment variable SEED, or one drawn now, which the run has to print. */
export function chooseSeed(): number {
  const asked = process.env['SEED'];
  return asked === undefined ? randomInt(2 ** 31) : Number(asked);
}

/** Creates a {@link Random}. */
export function seededRandom(seed: number): Random {
  const generator = xoroshiro128plus(seed);
  const below = (limit: number): number => uniformInt(generator, 0, limit - 1);
  return {
    seed,
    below,
    percent: (chance) => below(100) < chance,
    pick: (choices) => choices[below(choices.length)]!,
    shuffle: (choices) => {
      const left = [...choices];
      return choices.map(() => left.splice(below(left.length), 1)[0]!);
    },
    fork: () => seededRandom(below(2 ** 31)),
  };
}

/** What a fault run did and what came of it, such as `{ requests: 400, kills: 31, violations: 0 }`. */
export type Figures = Readonly<Record<string, number | string>>;

/** Prints what a fault run did, with how to repeat it. */
export function printFigures(run: string, seed: number, figures: Figures): void {
  const counted = Object.entries(figures).map(([name, figure]) => `${name} ${figure}`);
  process.stdout.write(`[faults] ${run}: seed ${seed}; ${counted.join(', ')}\n`);
}
