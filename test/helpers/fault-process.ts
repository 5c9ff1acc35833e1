import { runTypeScript } from './child-process.js';
import type { FaultAppOptions } from './fault-app.js';

/** An application of `fault-app.ts` in a process of its own, which can die. */
export interface FaultProcess {
  readonly url: string;
  /** Resolves when the process is gone, whoever ended it. */
  readonly gone: Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/** Only what JSON can carry can be an option. `preamble` is source text that runs before anything is imported. */
export async function startFaultProcess(options: FaultAppOptions, preamble = ''): Promise<FaultProcess> {
  const child = runTypeScript(`
    ${preamble}
    const { startFaultApp } = await import('./test/helpers/fault-app.ts');
    const { url } = await startFaultApp(${JSON.stringify(options)});
    console.log(url);
  `);
  const gone = new Promise<void>((resolve) => child.process.once('exit', () => resolve()));
  return { url: await child.nextLine(), gone, kill: () => child.kill() };
}
