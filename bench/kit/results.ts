import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { benchFolder, repository } from './places.js';

/** Writes a result where it belongs; what a smoke run finds means nothing and goes where builds go. */
export async function writeResult(name: string, result: object, smoke: boolean): Promise<void> {
  const folder = smoke ? join(repository, 'dist', 'bench-smoke') : join(benchFolder, 'results');
  const file = join(folder, `${name}.json`);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
  console.log(`\nWritten to ${relative(repository, file)}`);
}
