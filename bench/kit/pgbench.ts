import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TracedStatement } from '../apps/app-messages.js';
import { cpuOfFamily } from './cpu.js';
import type { Sample } from './measure.js';
import type { Database } from './postgres.js';
import { WALLETS } from '../apps/shop.js';
import { POOL, type Stage } from './stage.js';
import { percentile } from './statistics.js';
import { thisNode } from './nodes.js';

const run = promisify(execFile);

/** Where it comes from. */
export const PGBENCH_REMEDY =
  'pgbench is not here, so that the table has no ceiling: it is in the Debian package postgresql-contrib or postgresql-NN.';

/** Whether pgbench is installed. */
export function hasPgbench(): boolean {
  return spawnSync('pgbench', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** What pgbench is to send again and again: a script, and the values in it that are always the same. */
export interface PgbenchScript {
  readonly side: string;
  /** Whether each session parses and plans the statements once. */
  readonly prepared: boolean;
  readonly text: string;
  readonly constants: readonly string[];
}

/**
 * Has one request handled by an application of that side, and makes a script of the statements that it sent, with another key,
 * lock, reference and wallet in each run of it. So the script is what the library sends, and stays it.
 */
export async function scriptOf(
  stage: Stage,
  database: Database,
  side: string,
  prepared = false,
): Promise<PgbenchScript> {
  const app = await stage.app({ side, adapter: 'express', database, node: thisNode, trace: true });
  try {
    const source = { kind: 'first', wallets: 1 } as const;
    const load = { path: '/orders', connections: 1, source };
    // The first request also opens a connection.
    await stage.load.run(app, { ...load, requests: 1 });
    await app.ask('trace');
    const { body } = await stage.load.run(app, { ...load, requests: 1 });
    const { reference } = JSON.parse(body) as { reference: string };
    return { side, prepared, ...scriptFrom(await app.ask('trace'), reference) };
  } finally {
    await app.end();
  }
}

function scriptFrom(
  statements: readonly TracedStatement[],
  key: string,
): Pick<PgbenchScript, 'text' | 'constants'> {
  const constants: string[] = [];
  const lines = statements.map(({ text, values }, index) =>
    // A record is of the transaction in which it is written: here that of pgbench, and not the traced one.
    text
      .replace(
        /(\(extract\(epoch FROM pg_catalog\.now\(\)\) \* 1000000\)::bigint) = \$\d+::bigint/,
        '$1 = $1',
      )
      .replace(/\$(\d+)/g, (_, position: string) => {
        const value = values[Number(position) - 1] ?? null;
        if (value === null) return 'NULL';
        if (value === key) return ':key';
        if (isLock(value)) return ':lock';
        if (isWallet(text, value)) return ':wallet';
        // As a variable, a value is sent as a parameter and need not be quoted; a colon in it would otherwise name one.
        const name = `value_${index}_${position}`;
        constants.push(`--define=${name}=${value}`);
        return `:${name}`;
      }),
  );
  const random = [
    `\\set wallet random(1, ${WALLETS})`,
    '\\set key random(1, 9000000000000000000)',
    '\\set lock random(1, 9000000000000000000)',
  ];
  return { text: [...random, ...lines.map((line) => `${line.trim()};`)].join('\n'), constants };
}

/** The one number of that size is the advisory lock's. */
function isLock(value: string): boolean {
  return /^-?\d{15,}$/.test(value);
}

/** The order is for wallet 1, and for an amount that is another number. */
function isWallet(text: string, value: string): boolean {
  return value === '1' && /"wallets"|"orders"/.test(text);
}

/** Sends a script from as many sessions as an application with that many requests would use. */
export async function runPgbench(
  stage: Stage,
  database: Database,
  script: PgbenchScript,
  connections: number,
  milliseconds: number,
): Promise<Sample> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-pgbench-'));
  try {
    const file = join(folder, 'script.sql');
    await writeFile(file, `${script.text}\n`);
    const before = stage.postgres.pid === undefined ? undefined : await cpuOfFamily(stage.postgres.pid);
    const seconds = Math.max(1, Math.round(milliseconds / 1000));
    await run(
      'pgbench',
      [
        '--no-vacuum',
        `--protocol=${script.prepared ? 'prepared' : 'extended'}`,
        `--client=${Math.min(connections, POOL)}`,
        `--time=${seconds}`,
        '--log',
        `--log-prefix=${join(folder, 'log')}`,
        `--file=${file}`,
        ...script.constants,
        database.url,
      ],
      { timeout: seconds * 1000 + 60_000 },
    );
    const after = stage.postgres.pid === undefined ? undefined : await cpuOfFamily(stage.postgres.pid);
    const cpu = before === undefined || after === undefined ? undefined : after - before;
    return sampleFrom(await latencies(folder), seconds, cpu);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Of each line of the log, the third word is the time of one transaction in microseconds. */
async function latencies(folder: string): Promise<number[]> {
  const files = (await readdir(folder)).filter((name) => name.startsWith('log'));
  const contents = await Promise.all(files.map((name) => readFile(join(folder, name), 'utf8')));
  const lines = contents.flatMap((content) => content.split('\n')).filter(Boolean);
  return lines.map((line) => Number(line.split(' ')[2]) / 1000).sort((a, b) => a - b);
}

function sampleFrom(sorted: readonly number[], seconds: number, cpu: number | undefined): Sample {
  if (sorted.length === 0) throw new Error('pgbench completed no transaction');
  return {
    rps: sorted.length / seconds,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    cpuApp: 0,
    cpuDatabase: cpu === undefined ? undefined : cpu / sorted.length,
    cpuLoad: 0,
    requests: sorted.length,
  };
}
