import { execFileSync, spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';

/** The operating system user that the server runs as. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * PostgreSQL refuses to run as root, so root needs somebody else; everybody else runs it as themselves
 * (`undefined`). Existing data stays with the user who owns it.
 */
export function chooseServerUser(existingData?: string): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  if (existingData !== undefined) {
    const { uid, gid } = statSync(existingData);
    if (uid !== 0) return { uid, gid };
  }
  for (const name of ['postgres', '_postgres', 'nobody']) {
    const user = lookUp(name);
    if (user !== undefined) return user;
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and this system has neither a user "postgres" nor "nobody" to run it as. ' +
      'Start as an ordinary user, or set DATABASE_URL to a PostgreSQL server of your own.',
  );
}

function lookUp(name: string): ServerUser | undefined {
  try {
    const id = (flag: string): number =>
      Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
    return { uid: id('-u'), gid: id('-g') };
  } catch {
    return undefined;
  }
}

/** Whether the user can enter this directory, which needs every directory above it as well. */
export function canEnter(directory: string, user: ServerUser | undefined): boolean {
  return user === undefined || passes('cd "$1"', directory, user);
}

/** Whether the user can run the PostgreSQL installation in this directory. */
export function canRun(installation: string, user: ServerUser | undefined): boolean {
  const check =
    'cd "$1" && test -x bin/postgres && test -x bin/initdb && test -r lib && test -r share/postgresql/postgres.bki';
  return user === undefined || passes(check, installation, user);
}

/** Asking the system as that user is the one check that knows about groups, ACLs and mount options. */
function passes(check: string, directory: string, user: ServerUser): boolean {
  const { error, status } = spawnSync('/bin/sh', ['-c', check, 'sh', directory], {
    ...user,
    cwd: '/',
    stdio: 'ignore',
  });
  if (error !== undefined) {
    throw new Error(
      `PostgreSQL refuses to run as root, and this process is not allowed to become user ${user.uid}. ` +
        'Start as an ordinary user, or set DATABASE_URL to a PostgreSQL server of your own.',
      { cause: error },
    );
  }
  return status === 0;
}
