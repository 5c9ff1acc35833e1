// `npm run bench`: installs what only the benchmarks need, builds the library and the benchmarks, and runs one by its name.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { compile } from '../scripts/compile.mjs';

const root = join(import.meta.dirname, '..');
const smoke = process.argv[2] === 'smoke';
process.chdir(root);

await install();
// The half of the package that ES modules load: the same files as in the tarball.
await compile('tsconfig.esm.json');
await compile('bench/tsconfig.build.json');
// In this very process, so that signals reach it.
await import('../dist/bench/bench/main.js');

/** A smoke run needs no second Node.js, which is large. */
async function install() {
  const lock = await readFile(join(root, 'bench', 'package-lock.json'));
  const done = join(root, 'bench', 'node_modules', '.installed');
  const wanted = createHash('sha256').update(lock).digest('hex');
  const [found, extent] = (await readFile(done, 'utf8').catch(() => '')).split(' ');
  if (found === wanted && (smoke || extent === 'all')) return;
  const omitted = smoke ? ['--omit=optional'] : [];
  const options = ['--prefix', 'bench', '--no-audit', '--no-fund', '--loglevel=error', ...omitted];
  await run('npm', ['ci', ...options]);
  await writeFile(done, `${wanted} ${smoke ? 'part' : 'all'}`);
}

async function run(command, parameters) {
  // Standard output is for the result alone.
  const child = spawn(command, parameters, { stdio: ['ignore', 2, 2] });
  const [code] = await once(child, 'exit');
  if (code === 0) return;
  console.error(`${command} ${parameters.join(' ')} failed.`);
  process.exit(1);
}
