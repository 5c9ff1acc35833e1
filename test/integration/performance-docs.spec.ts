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
