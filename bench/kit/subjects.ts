import type { Phase, Sample } from './measure.js';
import { median, round, spread } from './statistics.js';
import { table } from './table.js';

/** What is measured: pgbench has neither adapter nor Node.js. */
export interface Subject {
  readonly side: string;
  readonly phase: Phase;
  readonly adapter: string;
  readonly connections: number;
  readonly node: string;
}

/** Its samples, one of each round. */
export interface Measured extends Subject {
  readonly samples: readonly Sample[];
}

/** Medians over the rounds. CPU time is milliseconds per request, of the application and of the database servers. */
export interface Result extends Subject {
  readonly rps: number;
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly cpu_ms: number;
  readonly cpu_app_ms: number;
  /** Null where the database server is not ours. */
  readonly cpu_db_ms: number | null;
  readonly cpu_load_ms: number;
  readonly rounds: number;
  /** Median of each round's throughput over that of the bare handler in the same round. Null without it. */
  readonly ratio_to_bare: number | null;
  /** The same of CPU time. */
  readonly cpu_ratio_to_bare: number | null;
  /** Lowest and highest round. */
  readonly spread: {
    readonly rps: [number, number];
    readonly p50_ms: [number, number];
    readonly p99_ms: [number, number];
  };
}

/** Makes one result of each subject's samples. */
export function resultsFrom(measured: readonly Measured[]): Result[] {
  return measured.map((subject) => {
    const bare = measured.find((other) => isBareOf(subject, other));
    return {
      ...withoutSamples(subject),
      ...summary(subject.samples),
      ...ratios(subject.samples, bare?.samples),
    };
  });
}

function isBareOf(subject: Subject, other: Subject): boolean {
  const { adapter, connections, node } = subject;
  return (
    other.side === 'bare' &&
    other.adapter === adapter &&
    other.connections === connections &&
    other.node === node
  );
}

function withoutSamples({ side, phase, adapter, connections, node }: Measured): Subject {
  return { side, phase, adapter, connections, node };
}

function summary(
  samples: readonly Sample[],
): Omit<Result, keyof Subject | 'ratio_to_bare' | 'cpu_ratio_to_bare'> {
  const middle = (value: (sample: Sample) => number): number => round(median(samples.map(value)));
  const isCounted = samples.every(({ cpuDatabase }) => cpuDatabase !== undefined);
  return {
    rps: Math.round(middle(({ rps }) => rps)),
    p50_ms: middle(({ p50 }) => p50),
    p99_ms: middle(({ p99 }) => p99),
    cpu_ms: middle(cpuOf),
    cpu_app_ms: middle(({ cpuApp }) => cpuApp),
    cpu_db_ms: isCounted ? middle(({ cpuDatabase }) => cpuDatabase!) : null,
    cpu_load_ms: middle(({ cpuLoad }) => cpuLoad),
    rounds: samples.length,
    spread: {
      rps: spread(samples.map(({ rps }) => rps)),
      p50_ms: spread(samples.map(({ p50 }) => p50)),
      p99_ms: spread(samples.map(({ p99 }) => p99)),
    },
  };
}

function ratios(
  samples: readonly Sample[],
  bare: readonly Sample[] | undefined,
): Pick<Result, 'ratio_to_bare' | 'cpu_ratio_to_bare'> {
  if (bare?.length !== samples.length) return { ratio_to_bare: null, cpu_ratio_to_bare: null };
  const ratio = (value: (sample: Sample) => number): number =>
    round(median(samples.map((sample, index) => value(sample) / value(bare[index]!))));
  return { ratio_to_bare: ratio(({ rps }) => rps), cpu_ratio_to_bare: ratio(cpuOf) };
}

function cpuOf({ cpuApp, cpuDatabase = 0 }: Sample): number {
  return cpuApp + cpuDatabase;
}

const HEAD = [
  ...['node', 'adapter', 'conns', 'side', 'phase', 'req/s', 'lowest', 'highest', 'p50 ms', 'p99 ms'],
  ...['cpu ms', 'app', 'db', '× bare', 'cpu × bare'],
];

/** The table that is printed. */
export function resultTable(results: readonly Result[]): string {
  return table(
    HEAD,
    results.map((result) => [
      ...[result.node, result.adapter, result.connections, result.side, result.phase, result.rps],
      ...result.spread.rps.map(Math.round),
      ...[result.p50_ms, result.p99_ms, result.cpu_ms, result.cpu_app_ms, result.cpu_db_ms],
      ...[result.ratio_to_bare, result.cpu_ratio_to_bare],
    ]),
  );
}
