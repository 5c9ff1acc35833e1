import { runTypeScript } from './child-process.js';
import { postJson } from './http.js';
import type { LeaseAppOptions } from './lease-app.js';

/** An application of `lease-app.ts` in a process of its own, which can die or be paused. */
export interface LeaseProcess {
  readonly url: string;
  /** Resolves with the next milestone that begins so; the ones before it are skipped. */
  milestone(beginning: string): Promise<string>;
  close(place: string): Promise<void>;
  open(place: string): Promise<void>;
  /** SIGSTOP: not even its timers run. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/** Handlers stop at the places in `closed` until they are opened. Only what JSON can carry can be an option. */
export async function startLeaseProcess(
  options: LeaseAppOptions,
  closed: readonly string[] = [],
): Promise<LeaseProcess> {
  const child = runTypeScript(`
    import { Stage, startLeaseApp } from './test/helpers/lease-app.ts';
    const stage = new Stage((milestone) => console.log(milestone));
    for (const place of ${JSON.stringify(closed)}) stage.close(place);
    const { url } = await startLeaseApp(${JSON.stringify(options)}, stage);
    console.log(url);
  `);
  const url = await child.nextLine();
  const gate = async (place: string, open: boolean): Promise<void> => {
    await postJson(`${url}/gates`, { place, open });
  };
  return {
    url,
    milestone: async (beginning) => {
      for (;;) {
        const line = await child.nextLine();
        if (line.startsWith(beginning)) return line;
      }
    },
    close: (place) => gate(place, false),
    open: (place) => gate(place, true),
    pause: () => void child.process.kill('SIGSTOP'),
    resume: () => void child.process.kill('SIGCONT'),
    kill: () => child.kill(),
  };
}
