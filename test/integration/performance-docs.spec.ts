import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Result } from '../../bench/kit/subjects.js';

const PAGE = 'docs/performance.md';
const SCRIPT = 'bench/report.mjs';
const run = promisify(execFile);

const MACHINE = {
  ...{ cpu: 'a processor', cores: 2, memory_gb: 8, kernel: 'linux', load_node: '24.0.0', redis: null },
  postgres: { server_version: '18.4', fsync: 'on', synchronous_commit: 'on' },
};

/** Of an application with 16 connections. */
function resultOf(side: string, phase: 'first' | 'replay', rps: number): Result {
  return {
    ...{ side, phase, adapter: 'express', connections: 16, node: '24.0.0', rps, rounds: 5 },
    ...{ p50_ms: 1.5, p99_ms: 9.25, cpu_ms: 2, cpu_app_ms: 1.25, cpu_db_ms: 0.75, cpu_load_ms: 0.5 },
    ...{ ratio_to_bare: rps / 1000, cpu_ratio_to_bare: 1.5 },
    spread: { rps: [rps - 10.4, rps + 10.4], p50_ms: [1, 2], p99_ms: [8, 10] },
  };
}

const LATEST = {
  machine: MACHINE,
  settings: { rounds: 5, seconds: 2, pool: 16, seed: 42 },
  results: [
    resultOf('bare', 'first', 1000),
    resultOf('transaction', 'first', 765),
    resultOf('transaction', 'replay', 1234),
    resultOf('node-idempotency-redis', 'replay', 2468),
  ],
};

const RATIO = { rps: 0.95, spread: [0.9, 1] };

const GROWTH = {
  machine: MACHINE,
  settings: { side: 'transaction', adapter: 'express', connections: 16, rounds: 5, seconds: 3, seed: 42 },
  results: ['first', 'first-by-time', 'replay', 'replay-any'].map((phase) => ({
    ...{ phase, records: 10_000_000, size_mb: 6355, rps: 832, p50_ms: 17.94, p99_ms: 38.63 },
    ...{ cpu_app_ms: 1.05, cpu_db_ms: 0.87, wal_bytes: 8402, rounds: 5 },
  })),
  ratios: [
    { phase: 'first', ...RATIO },
    { phase: 'replay-any', rps: 0.7, spread: [0.5, 0.8] },
  ],
  by_time_over_random: { rps: 1.25, spread: [1.1, 1.4] },
  target: 0.9,
};

const PURGE = {
  machine: MACHINE,
  settings: { side: 'transaction', adapter: 'express', records: 1_000_000, rate: 200, naptime: 1 },
  results: [1, 2].map((cycle) => ({
    ...{ cycle, p50_quiet_ms: 3, p50_purge_ms: 3.5, p99_before_ms: 10, p99_purge_ms: 12, p99_after_ms: 11 },
    ...{ p99_quiet_ms: 10.5, p99_vacuum_ms: 13, purge_s: 7.5, deleted_per_s: 133_333 },
    ...{ vacuum_s: 20.25, vacuumed_by: 'autovacuum', filled_records: 1_004_000, filled_table_mb: 460.5 },
    ...{ filled_index_mb: 230.75, left_records: 8000, left_table_mb: 461, left_index_mb: 231, dead_rows: 3 },
    ...{ free_percent: 99.25, table_bloat: 1, index_bloat: cycle === 1 ? 1 : 1.04 },
  })),
  p99: {
    all: { quiet_ms: 10.25, purge_ms: 11.89, ratio: 1.16 },
    second: { quiet_ms: 8.5, purge_ms: 9.69, ratio: 1.14 },
    ratios: [1.02, 1.26],
    quiet_ratios: [0.9, 1.1],
  },
  target: 1.25,
};

const MEMORY = {
  machine: MACHINE,
  settings: { side: 'transaction', adapter: 'express', connections: 16, waiting: 1000 },
  steps: [0, 100_000, 200_000].map((requests) => ({ requests, heap_mb: 42.25, rss_mb: 396.5 })),
  growth_per_100k: { heap_mb: 0.05, rss_mb: 0.1 },
  waiting: {
    duplicates: { heap_mb: 20.05, rss_mb: 0.6 },
    bare: { heap_mb: 18.15, rss_mb: 0.6 },
    library: { heap_mb: 1.9, rss_mb: 0 },
    connections: { heap_mb: 4.5, rss_mb: 0.1 },
  },
  target_mb: 20,
};

/** Runs the report; rejects when it fails. */
const report = (...parameters: string[]): Promise<{ stderr: string }> =>
  run(process.execPath, [SCRIPT, ...parameters]);

describe('the figures of the documentation', () => {
  it('are those of the committed results', async () => {
    await report('--check');
  });
});

describe('the report of the benchmarks', () => {
  let folder: string;

  const write = (file: string, text: string): Promise<void> => writeFile(join(folder, file), text);
  const page = (): Promise<string> => readFile(join(folder, PAGE), 'utf8');

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'report-'));
    await mkdir(join(folder, 'docs'));
    await mkdir(join(folder, 'bench', 'results'), { recursive: true });
    for (const file of [PAGE, 'README.md']) await cp(file, join(folder, file));
  });

  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('writes tables from results, and the same ones again', async () => {
    await write('bench/results/latest.json', JSON.stringify(LATEST));
    await report(folder);
    const written = await page();
    expect(written).toContain('a processor, 2 cores, 8 GB');
    expect(written).toContain(
      '| express | transaction | 765 | 755 – 775 | 0.77 | 1.50 | 9.25 | 1.25 | 0.75 | 1.50 |',
    );
    expect(written).toContain('| express | transaction | 1,234 | 1.23 | 0.50 | 1.50 | 9.25 | 1.25 | 0.75 |');
    await report(folder);
    expect(await page()).toBe(written);
    await report('--check', folder);
  });

  it.each([
    [
      'growth',
      GROWTH,
      [
        '| first, keys by time | 10,000,000 | 6,355 | 832 | 17.94 | 38.63 | 1.05 | 0.87 | 8,402 |',
        '| replay of any record | 0.70 | 0.50 – 0.80 |',
        'with random ones: **1.25** (1.10 – 1.40)',
      ],
    ],
    [
      'purge',
      PURGE,
      [
        '| 2 | 3 | 3.50 | 10 | 12 | 11 | 13 | 7.50 | 133,333 |',
        'of all requests: **1.16** (11.89 over 10.25 ms)',
        'median of all seconds: **1.14** (9.69 over 8.50 ms)',
        'Of each cycle: 1.02 – 1.26; after over before, both without purge: 0.90 – 1.10.',
        '| 2 | 1,004,000 | 8,000 | 460.5 | 461 | 230.8 | 231 | 1 | 1.04 | 3 | 99.25 | autovacuum | 20.25 |',
        'table **1.00**, indexes **1.04**',
      ],
    ],
    [
      'memory',
      MEMORY,
      [
        '| 200,000 | 42.25 | 396.5 |',
        'heap 0.05 MB, RSS 0.10 MB',
        '| the difference | 1.90 | 0.00 |',
        '| connections on which nothing is asked | 4.50 | 0.10 |',
      ],
    ],
  ])('writes what was measured of %s', async (name, result, expected) => {
    await write(`bench/results/${name}.json`, JSON.stringify(result));
    await report(folder);
    const written = await page();
    for (const text of expected) expect(written).toContain(text);
  });

  it.each([
    ['growth', { ...GROWTH, ratios: { first: 0.86, replay: 0.64, target: 0.9 } }],
    ['purge', { ...PURGE, p99: { ratio: 0.32 } }],
  ])('says that results of %s are of an older form', async (name, result) => {
    await write(`bench/results/${name}.json`, JSON.stringify(result));
    await report(folder);
    expect(await page()).toContain(`Not measured yet in this form: \`npm run bench -- ${name}\`.`);
  });

  it('says what has not been measured', async () => {
    await report(folder);
    expect(await page()).toContain('Not measured yet: `npm run bench -- latency`.');
  });

  it.each([
    [
      'a figure of the page is changed',
      () => page().then((text) => write(PAGE, text.replace('| 765 |', '| 965 |'))),
    ],
    [
      'there are new results',
      () => write('bench/results/latest.json', JSON.stringify({ ...LATEST, results: [] })),
    ],
  ])('fails a check when %s', async (_what, change) => {
    await write('bench/results/latest.json', JSON.stringify(LATEST));
    await report(folder);
    await report('--check', folder);
    await change();
    await expect(report('--check', folder)).rejects.toMatchObject({ stderr: expect.stringContaining(PAGE) });
  });

  it('refuses a marker that it does not know, and one that is not closed', async () => {
    await write(PAGE, '<!-- bench:guesses -->\n<!-- /bench:guesses -->');
    await expect(report(folder)).rejects.toMatchObject({ stderr: expect.stringContaining('guesses') });
    await write(PAGE, '<!-- bench:latency -->');
    await expect(report(folder)).rejects.toMatchObject({ stderr: expect.stringContaining('not closed') });
  });
});
