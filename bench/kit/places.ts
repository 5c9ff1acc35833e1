import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Root of the repository: this file may be the source, or what was compiled from it. */
export const repository = findRoot(import.meta.dirname);

/** Where the benchmarks' own packages and results are. */
export const benchFolder = join(repository, 'bench');

function findRoot(folder: string): string {
  if (existsSync(join(folder, 'bench', 'package.json'))) return folder;
  const above = dirname(folder);
  if (above === folder) throw new Error('The repository of the benchmarks was not found');
  return findRoot(above);
}
