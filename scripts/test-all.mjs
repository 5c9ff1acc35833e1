// Runs every test there is, pass after pass, and prints how long each took. `--outputFile=…` takes the sum of their
// counts as JSON, as Jest writes it. Options behind it go to every pass.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { findPgBouncer } from '../test/helpers/pgbouncer-location.mjs';

/** The first is the README's command; what each of the others adds is in jest.config.js. */
const PASSES = ['direct', 'pages', 'faults', 'partitioned', 'pgbouncer', 'interop'];
const COUNTS = ['numPassedTests', 'numFailedTests', 'numRuntimeErrorTestSuites'];

const options = process.argv.slice(2);
const output = options.find((option) => option.startsWith('--outputFile='))?.split('=')[1];
const others = options.filter((option) => !option.startsWith('--outputFile='));
const place = await mkdtemp(join(tmpdir(), 'test-all-'));
const total = Object.fromEntries(COUNTS.map((count) => [count, 0]));
const times = [];
const files = [];

try {
  for (const pass of PASSES) await run(pass);
} finally {
  await rm(place, { recursive: true, force: true });
}
if (output) await writeFile(output, JSON.stringify(total));
const slowest = files.sort((one, other) => other.seconds - one.seconds).slice(0, 10);
console.log(`\n${times.join('\n')}\n\nThe slowest files:`);
for (const { seconds, name, pass } of slowest)
  console.log(`${seconds.toFixed(0).padStart(5)} s  ${name} (${pass})`);
process.exitCode = total.numFailedTests + total.numRuntimeErrorTestSuites > 0 ? 1 : 0;

async function run(pass) {
  if (pass === 'pgbouncer' && findPgBouncer() === undefined) {
    times.push('pgbouncer: not installed, not run');
    return;
  }
  const report = join(place, `${pass}.json`);
  const started = performance.now();
  console.log(`==> ${pass}`);
  // The others need nothing that `npm ci` does not install.
  const isReady = pass !== 'interop' || (await succeeds('npm', ['run', '--silent', 'install:interop']));
  const jest = ['test', '--', '--json', `--outputFile=${report}`, ...others];
  const isOver = isReady && (await succeeds('npm', jest, { ...process.env, PASS: pass }));
  const counts = await countsIn(report);
  // A run that failed although no test did, such as one whose server did not start, is a failure too.
  if (!isOver && counts.numFailedTests + counts.numRuntimeErrorTestSuites === 0)
    counts.numRuntimeErrorTestSuites = 1;
  for (const count of COUNTS) total[count] += counts[count];
  for (const { name, startTime, endTime } of counts.testResults ?? [])
    files.push({ name: relative(process.cwd(), name), seconds: (endTime - startTime) / 1_000, pass });
  const { numPassedTests, numFailedTests, numRuntimeErrorTestSuites } = counts;
  const seconds = Math.round((performance.now() - started) / 1_000);
  times.push(
    `${pass}: ${numPassedTests} passed, ${numFailedTests + numRuntimeErrorTestSuites} failed, ${seconds} s`,
  );
}

/** Counts are read from the report, so that only what goes to the error output is shown. */
async function succeeds(command, commandLine, env = process.env) {
  const child = spawn(command, commandLine, { stdio: ['ignore', 'ignore', 'inherit'], env });
  const [code] = await once(child, 'exit');
  return code === 0;
}

async function countsIn(report) {
  try {
    return JSON.parse(await readFile(report, 'utf8'));
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numRuntimeErrorTestSuites: 1 };
  }
}
