/*
 * Question: what does one record cost, in bytes of table, of index and of write-ahead log?
 *
 * Variants: responses of 100 bytes, 1 kB and 10 kB of text that does not compress, of a handler that writes nothing itself, so
 * that all that is written is the library's. The table is measured as it is left, and once more when as many records were
 * written after a vacuum, which is what it comes to in the long run.
 *
 * The log is measured while pages are warm: full-page images after a checkpoint come on top.
 *
 * Knobs: see KNOBS.
 */
import type { Benchmark, BenchmarkResult } from './benchmark.js';
import type { App } from './kit/app.js';
import { readFlags, type Settings } from './kit/flags.js';
import { thisNode } from './kit/nodes.js';
import type { Database } from './kit/postgres.js';
import { recordSizes, walPosition } from './kit/records.js';
import type { Stage } from './kit/stage.js';
import { table } from './kit/table.js';

const KNOBS = {
  bytes: [100, 1000, 10_000],
  records: 5000,
  sides: ['transaction'],
} as const;

type Knobs = Settings<typeof KNOBS>;

export const recordCost: Benchmark = {
  name: 'record-cost',
  file: 'record-cost',
  smoke: ['--records=50', '--bytes=100', '--sides=transaction'],
  run,
};

async function run(stage: Stage, flags: readonly string[]): Promise<BenchmarkResult> {
  const knobs = readFlags(flags, KNOBS);
  const database = await stage.shop();
  const results = [];
  for (const side of knobs.sides) {
    const app = await stage.app({ side, adapter: 'express', database, node: thisNode });
    for (const bytes of knobs.bytes) {
      results.push({ side, response_bytes: bytes, ...(await costOf(stage, database, app, knobs, bytes)) });
    }
    await app.end();
  }
  console.log(
    table(
      Object.keys(results[0]!),
      results.map((row) => Object.values(row)),
    ),
  );
  return { settings: knobs, results };
}

async function costOf(stage: Stage, database: Database, app: App, { records }: Knobs, bytes: number) {
  const write = async (series: string): Promise<void> => {
    const source = { kind: 'series', series, body: JSON.stringify({ bytes }) } as const;
    const target = { path: '/extras/sized', connections: 4 };
    await stage.load.run(app, { ...target, requests: records, source });
  };
  await database.query('TRUNCATE idempotency_records');
  await write('first');
  const left = await recordSizes(database);
  await database.query('VACUUM idempotency_records');
  const before = await walPosition(database);
  await write('second');
  const wal = (await walPosition(database)) - before;
  const sizes = await recordSizes(database);
  return {
    table_bytes_before_vacuum: Math.round(left.table / records),
    table_bytes: Math.round(sizes.table / records / 2),
    index_bytes: Math.round(sizes.indexes / records / 2),
    wal_bytes: Math.round(wal / records),
  };
}
