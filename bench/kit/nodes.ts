import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { benchFolder } from './places.js';

/** A Node.js to run applications on. */
export interface NodeRuntime {
  readonly path: string;
  /** Such as `24.21.0`. */
  readonly version: string;
}

/** The Node.js that this process runs on. */
export const thisNode: NodeRuntime = { path: process.execPath, version: process.versions.node };

/** Finds a Node.js by its major version, or `own`: this one, or the one that is installed for the benchmarks. */
export function findNode(wanted: string): NodeRuntime {
  if (wanted === 'own' || majorOf(thisNode.version) === wanted) return thisNode;
  const path = join(benchFolder, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node');
  const version = existsSync(path)
    ? execFileSync(path, ['--version'], { encoding: 'utf8' }).trim().slice(1)
    : undefined;
  if (version !== undefined && majorOf(version) === wanted) return { path, version };
  throw new Error(
    `Node.js ${wanted} is not here: this is ${thisNode.version}, and ${version ?? 'none'} is installed in bench/. ` +
      `Run \`npm --prefix bench install --save-optional node-${process.platform}-${process.arch}@${wanted}\`, ` +
      'or choose with --nodes (`own` is this one).',
  );
}

function majorOf(version: string): string {
  return version.split('.')[0]!;
}
