import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

/**
 * Runs the TypeScript compiler on one project file.
 *
 * Ends the process when the compiler refuses: nothing that follows a failed build makes sense.
 */
export async function compile(project) {
  const compiler = spawn(process.execPath, [tsc, '-p', project], { stdio: 'inherit' });
  const [code] = await once(compiler, 'exit');
  if (code !== 0) {
    console.error(`Building ${project} failed.`);
    process.exit(1);
  }
}
