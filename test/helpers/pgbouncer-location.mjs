import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian installs it where only root's PATH leads. */
const BESIDES_PATH = ['/usr/sbin', '/usr/local/sbin'];

/** Path of the PgBouncer of this machine, or `undefined` where none is installed. Plain JavaScript: Jest's configuration asks. */
export function findPgBouncer() {
  if (process.platform === 'win32') return undefined;
  const directories = (process.env.PATH ?? '').split(delimiter).filter((directory) => directory !== '');
  return [...directories, ...BESIDES_PATH]
    .map((directory) => join(directory, 'pgbouncer'))
    .find((candidate) => isExecutable(candidate));
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
