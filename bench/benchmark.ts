import type { Stage } from './kit/stage.js';

/** One benchmark, which answers one question. */
export interface Benchmark {
  /** The name it is run by. */
  readonly name: string;
  /** Name of the file its result is written to. */
  readonly file: string;
  /** The knobs of its smallest form. */
  readonly smoke: readonly string[];
  /** Prints what it finds, and resolves with what is worth keeping of it. */
  run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult>;
}

/** What a benchmark found, with the settings it was found with. */
export interface BenchmarkResult {
  readonly settings: object;
  readonly [part: string]: unknown;
}
