import { createHash } from 'node:crypto';
import { chmod, chown, cp, lstat, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { PostgresBinaries } from './binaries.js';
import { canEnter, canRun, type ServerUser } from './server-user.js';

const NAME = 'nestjs-pg-idempotency';

/** Creates a directory of the server's own, to be removed with it. */
export async function temporaryPlace(user: ServerUser | undefined): Promise<string> {
  const place = await mkdtemp(join(sharedPlace(user, [tmpdir(), '/tmp', '/var/tmp']), `${NAME}-`));
  if (user !== undefined) await chown(place, user.uid, user.gid);
  return place;
}

/**
 * Where data that was asked to be in `dataDir` can be: there, or, when the server's user cannot enter that
 * directory (a checkout below /root, say), in a place that is always the same for the same `dataDir`.
 */
export async function persistentPlace(dataDir: string, user: ServerUser | undefined): Promise<string> {
  const wanted = resolve(dataDir);
  await mkdir(dirname(wanted), { recursive: true });
  if (canEnter(dirname(wanted), user)) return wanted;
  const hash = createHash('sha256').update(wanted).digest('hex').slice(0, 12);
  const place = join(sharedPlace(user, ['/var/tmp', tmpdir(), '/tmp']), `${NAME}-data-${hash}`);
  await makeDirectory(place);
  await refuseForeign(place);
  await chmod(place, 0o755);
  process.emitWarning(
    `PostgreSQL cannot run as root, and the user it runs as instead cannot enter ${dirname(wanted)}: ` +
      `the data is kept in ${place}. To choose the place, run as an ordinary user or set DATABASE_URL.`,
  );
  return join(place, 'data');
}

/** The binaries themselves, or a copy of them where the server's user can run them. */
export async function runnableBinaries(
  binaries: PostgresBinaries,
  user: ServerUser | undefined,
): Promise<PostgresBinaries> {
  if (canRun(binaries.root, user)) return binaries;
  const place = sharedPlace(user, [tmpdir(), '/var/tmp', '/tmp']);
  const root = join(place, `${NAME}-postgres-${binaries.id}`);
  if (!(await isDirectory(root))) await copyInstallation(binaries.root, root);
  await refuseForeign(root);
  if (canRun(root, user)) return { ...binaries, root };
  throw new Error(
    `The user that PostgreSQL runs as (uid ${user?.uid}) can run it neither in ${binaries.root} nor in ${root}`,
  );
}

/** The copy gets its name when it is complete: processes that start together do not see each other's half copies. */
async function copyInstallation(from: string, to: string): Promise<void> {
  const draft = await mkdtemp(`${to}-`);
  try {
    await cp(from, draft, { recursive: true, verbatimSymlinks: true });
    await makeReadable(draft);
    await rename(draft, to).catch(async (error: unknown) => {
      if (!(await isDirectory(to))) throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** A strict umask at install time leaves files that only their owner can read. */
async function makeReadable(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isSymbolicLink())
      await chmod(path, (await lstat(path)).mode | (entry.isDirectory() ? 0o755 : 0o444));
  }
  for (const name of await readdir(join(directory, 'bin'))) await chmod(join(directory, 'bin', name), 0o755);
}

function sharedPlace(user: ServerUser | undefined, candidates: readonly string[]): string {
  const place = candidates.find((candidate) => canEnter(candidate, user));
  if (place !== undefined) return place;
  throw new Error(
    `The user that PostgreSQL runs as (uid ${user?.uid}) can enter none of ${candidates.join(', ')}. ` +
      'Set TMPDIR to a directory that everybody can enter, or DATABASE_URL to a PostgreSQL server of your own.',
  );
}

/** In directories that everybody can write to, somebody else may have taken the name in order to be trusted. */
async function refuseForeign(path: string): Promise<void> {
  const { uid, mode } = await lstat(path);
  if (uid === process.getuid?.() && (mode & 0o022) === 0) return;
  throw new Error(`${path} belongs to another user or can be written by others: remove it, and start again`);
}

async function makeDirectory(path: string): Promise<void> {
  await mkdir(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  });
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
