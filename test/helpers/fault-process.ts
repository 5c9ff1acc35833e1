import { runTypeScript } from './child-process.js';
import type { FaultAppOptions } from './fault-app.js';

/** An application of `fault-app.ts` in a process of its own, which can die. */
export interface FaultProcess {
  readonly url: string;
  /** Resolves when the process is gone, whoever ended it. */
  readonly gone: Promise<void>;
  /** Resolves with the next line that the process prints; rejects with its error output when it ends instead. */
  nextLine(): Promise<string>;
  /** Sends a message to the process, whose preamble has to listen for it. */
  send(message: object): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/** Only what JSON can carry can be an option. `preamble` is source text that runs before anything is imported. */
export async function startFaultProcess(options: FaultAppOptions, preamble = ''): Promise<FaultProcess> {
  const child = runTypeScript(
    `
    ${preamble}
    const { startFaultApp } = await import('./test/helpers/fault-app.ts');
    const { url } = await startFaultApp(${JSON.stringify(options)});
    console.log(url);
  `,
    {},
    'channel',
  );
  const gone = new Promise<void>((resolve) => child.process.once('exit', () => resolve()));
  return {
    url: await child.nextLine(),
    gone,
    nextLine: () => child.nextLine(),
    // Whoever is sent something may be dead by now; that shows elsewhere.
    send: (message) => void child.process.send(message, () => undefined),
    kill: () => child.kill(),
  };
}
