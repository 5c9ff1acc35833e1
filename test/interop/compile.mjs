// Compiles the applications as their users would: to CommonJS for Nest 11, to ES modules for Nest 12.
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transform } from '@swc/core';
import { swcOptions } from '../jest/swc-options.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));

const TARGETS = [
  ['nest11', 'commonjs'],
  ['nest12', 'es6'],
];

/** Writes `nest11/dist` and `nest12/dist`. Several workers may do so at once. */
export async function compileApps() {
  const names = (await readdir(join(here, 'apps'))).filter((name) => name.endsWith('.ts'));
  for (const [folder, type] of TARGETS) {
    const out = join(here, folder, 'dist');
    await mkdir(out, { recursive: true });
    for (const name of names) await compile(join(here, 'apps', name), out, type);
  }
}

async function compile(file, out, type) {
  const source = await readFile(file, 'utf8');
  const { code } = await transform(source, { ...swcOptions, filename: file, module: { type } });
  const target = join(out, basename(file).replace(/\.ts$/, '.js'));
  if ((await readFile(target, 'utf8').catch(() => '')) === code) return;
  // A process that starts meanwhile reads the old file or the new one, never half of it.
  await writeFile(`${target}.${process.pid}`, code);
  await rename(`${target}.${process.pid}`, target);
}
