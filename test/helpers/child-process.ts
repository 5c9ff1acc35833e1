import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** A Node process of its own that runs a TypeScript module of this repository. */
export interface TypeScriptProcess {
  readonly process: ChildProcess;
  /** Resolves with the next line that the process prints; rejects with its error output when it ends instead. */
  nextLine(): Promise<string>;
  /** Sends a signal (default SIGKILL), and resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/**
 * Runs ESM source text in a process whose imports are relative to the repository's root, TypeScript included. With
 * `'channel'` messages can be sent to the process, which lives on as long as it listens for them.
 */
export function runTypeScript(
  source: string,
  environment: NodeJS.ProcessEnv = {},
  messages: 'channel' | 'none' = 'none',
): TypeScriptProcess {
  const hooks = join(REPOSITORY, 'test', 'jest', 'register-typescript.mjs');
  const child = spawn(process.execPath, ['--import', hooks, '--input-type=module', '--eval', source], {
    cwd: REPOSITORY,
    env: { ...process.env, NODE_OPTIONS: '', ...environment },
    stdio: ['ignore', 'pipe', 'pipe', ...(messages === 'channel' ? (['ipc'] as const) : [])],
  });
  const exited = once(child, 'exit');
  let complaint = '';
  child.stderr!.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return {
    process: child,
    nextLine: async () => {
      const next = await lines.next();
      if (next.done === true) throw new Error(`The process ended without another line:\n${complaint}`);
      return next.value;
    },
    kill: async (signal = 'SIGKILL') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      await exited;
    },
  };
}
