import { execFile } from 'node:child_process';
import { chown, mkdtemp, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { join, parse } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { executable, type PostgresBinaries } from './binaries.js';
import { serverEnvironment } from './environment.js';
import type { ServerUser } from './server-user.js';

const run = promisify(execFile);

/** What it takes to create a data directory. */
export interface DataDirectoryOptions {
  readonly binaries: PostgresBinaries;
  readonly user: ServerUser | undefined;
  readonly durable: boolean;
}

/** Creates the data directory unless it is there already. */
export async function ensureDataDirectory(dataDir: string, options: DataDirectoryOptions): Promise<void> {
  const content = await contentOf(dataDir);
  if (content.includes('PG_VERSION')) return;
  if (content.length > 0) {
    throw new Error(`${dataDir} holds files, but no PostgreSQL data: name an empty or a new directory`);
  }
  // Under its final name the directory is always complete, even when this process dies here.
  const draft = await mkdtemp(`${dataDir}.new-`);
  try {
    if (options.user !== undefined) await chown(draft, options.user.uid, options.user.gid);
    await initialise(draft, options);
    await rmdir(dataDir).catch(ignoreMissing);
    await rename(draft, dataDir);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** Whether this directory holds a PostgreSQL cluster. */
export async function isDataDirectory(dataDir: string): Promise<boolean> {
  return (await contentOf(dataDir)).includes('PG_VERSION');
}

async function initialise(dataDir: string, { binaries, user, durable }: DataDirectoryOptions): Promise<void> {
  const flags = ['--username=postgres', '--auth=trust', '--encoding=UTF8', '--locale=C'];
  if (!durable) flags.push('--no-sync');
  await run(executable(binaries, 'initdb'), ['-D', dataDir, ...flags], {
    ...user,
    cwd: parse(dataDir).root,
    env: serverEnvironment(),
  }).catch((cause: unknown) => {
    const { message, stderr } = cause as Error & { stderr?: string };
    throw new Error(`initdb could not create ${dataDir}: ${stderr ?? message}`, { cause });
  });
  await writeFile(
    join(dataDir, 'pg_hba.conf'),
    '# Only this machine, over TCP.\nhost all all 127.0.0.1/32 trust\n',
  );
}

/** The watchdog of a parent that was killed needs a moment to notice. */
const READY_PATIENCE_MS = 3_000;
/** A shutdown writes everything to disk, a start may have to recover. */
const TRANSIENT_PATIENCE_MS = 20_000;

/**
 * Makes sure that nobody else runs on this directory. The lock file of a server that crashed together with its
 * machine is removed: PostgreSQL itself refuses to start once another process has got the same process id.
 */
export async function awaitFormerServer(dataDir: string): Promise<void> {
  const lockFile = join(dataDir, 'postmaster.pid');
  const start = performance.now();
  for (;;) {
    const lock = await readLock(lockFile);
    if (lock === undefined) return;
    if (!isAlive(lock.pid) || !(await isPostgres(lock.pid))) {
      await rm(lockFile, { force: true });
      return;
    }
    if (performance.now() - start > (lock.ready ? READY_PATIENCE_MS : TRANSIENT_PATIENCE_MS)) {
      throw new Error(
        `Another PostgreSQL server (process ${lock.pid}) is running on ${dataDir}. Stop it, or name another directory.`,
      );
    }
    await delay(50);
  }
}

/** The first line is the process id (negative for a standalone backend), the eighth is the state. */
async function readLock(lockFile: string): Promise<{ pid: number; ready: boolean } | undefined> {
  const lines = (await readFile(lockFile, 'utf8').catch(ignoreMissing))?.split('\n') ?? [];
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10));
  return pid > 0 ? { pid, ready: lines[7]?.trim() === 'ready' } : undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** In doubt it is: removing the lock of a live server would cost data. */
async function isPostgres(pid: number): Promise<boolean> {
  try {
    return (await commandOf(pid)).includes('postgres');
  } catch {
    return isAlive(pid);
  }
}

async function commandOf(pid: number): Promise<string> {
  if (process.platform === 'linux') return readFile(`/proc/${pid}/cmdline`, 'utf8');
  if (process.platform === 'win32') return (await run('tasklist', ['/FI', `PID eq ${pid}`, '/NH'])).stdout;
  return (await run('ps', ['-o', 'command=', '-p', String(pid)])).stdout;
}

async function contentOf(directory: string): Promise<string[]> {
  return (await readdir(directory).catch(ignoreMissing)) ?? [];
}

function ignoreMissing(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
  throw error;
}
