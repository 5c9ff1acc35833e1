// Runs the benchmark that is named first, `throughput` unless one is, or all of them in their smallest form: `smoke`.
import type { Benchmark } from './benchmark.js';
import { writeResult } from './kit/results.js';
import { Stage } from './kit/stage.js';
import { growth } from './growth.js';
import { hold } from './hold.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { network } from './network.js';
import { purge } from './purge.js';
import { recordCost } from './record-cost.js';
import { reference } from './reference.js';
import { throughput } from './throughput.js';

const BENCHMARKS: readonly Benchmark[] = [
  throughput,
  network,
  reference,
  latency,
  growth,
  purge,
  memory,
  recordCost,
  hold,
];

async function main(): Promise<void> {
  const [first = '', ...others] = process.argv.slice(2);
  const isNamed = first !== '' && !first.startsWith('-');
  const name = isNamed ? first : 'throughput';
  const flags = isNamed ? others : process.argv.slice(2);
  const chosen = BENCHMARKS.filter((benchmark) => name === 'smoke' || benchmark.name === name);
  if (chosen.length === 0) {
    throw new Error(`There is no benchmark named ${name}: ${BENCHMARKS.map((each) => each.name).join(', ')}`);
  }
  const stage = await Stage.open();
  endWith(stage);
  try {
    for (const benchmark of chosen) await perform(stage, benchmark, name === 'smoke' ? undefined : flags);
  } finally {
    await stage.close();
  }
}

async function perform(
  stage: Stage,
  benchmark: Benchmark,
  flags: readonly string[] | undefined,
): Promise<void> {
  const started = performance.now();
  console.log(`\n== ${benchmark.name}${flags ? '' : ', only to see that it runs'}`);
  const { settings, ...found } = await benchmark.run(stage, flags ?? benchmark.smoke);
  const { machine } = stage;
  console.log(`\nMachine: ${JSON.stringify(machine, null, 2)}\nSettings: ${JSON.stringify(settings)}`);
  await writeResult(benchmark.file, { machine, settings, ...found }, flags === undefined);
  console.error(`${benchmark.name} took ${Math.round((performance.now() - started) / 1000)} s`);
}

/** Ctrl-C reaches the servers' watchdogs only through us: what was started is ended before this process is. */
function endWith(stage: Stage): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      console.error(`\n${signal}: stopping what was started`);
      void stage.close().finally(() => process.exit(1));
    });
  }
}

await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
