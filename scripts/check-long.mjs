// What takes longer than CI has time for. `npm run check:long` runs all of it, for hours, and writes what came of it to
// docs/long-checks.md; `npm run check:long -- faults` runs what is named.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';

const PAGE = 'docs/long-checks.md';
const CHECKS = {
  faults: ['run', 'test:faults'],
  matrix: ['run', 'test:matrix', '--', '--write'],
  mutation: ['run', 'test:mutation'],
};

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(CHECKS);
const unknown = names.filter((name) => !(name in CHECKS));
if (unknown.length > 0)
  throw new Error(`There is no ${unknown.join(', ')}; there are ${Object.keys(CHECKS).join(', ')}`);

for (const name of names) {
  const started = performance.now();
  const child = spawn('npm', CHECKS[name], { stdio: 'inherit' });
  const [code] = await once(child, 'exit');
  const minutes = Math.ceil((performance.now() - started) / 60_000);
  await note(name, `${code === 0 ? 'passed' : `failed with ${code}`}, ${minutes} min`);
  if (code !== 0) process.exitCode = 1;
}

/** Writes the last two cells of a check's row. */
async function note(name, result) {
  const [date] = new Date().toISOString().split('T');
  const lines = (await readFile(PAGE, 'utf8')).split('\n');
  const row = lines.findIndex((line) => line.startsWith(`| \`${name}\` |`));
  if (row < 0) throw new Error(`${PAGE} has no row for ${name}`);
  const [check, what] = lines[row].split(' | ');
  lines[row] = [check, what, date, `${result} |`].join(' | ');
  await writeFile(PAGE, lines.join('\n'));
}
