import { runTypeScript } from './child-process.js';
import type { PropertyAppOptions } from './property-app.js';

/** An application of `property-app.ts` in a process of its own, which can die. */
export interface PropertyProcess {
  readonly url: string;
  /** Resolves when the next handler stays where its request wants it held; rejects when the process dies before. */
  held(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/** Starts a {@link PropertyProcess}. */
export async function startPropertyProcess(options: PropertyAppOptions): Promise<PropertyProcess> {
  const child = runTypeScript(`
    import { startPropertyApp } from './test/helpers/property-app.ts';
    const { url } = await startPropertyApp(${JSON.stringify(options)}, () => console.log('held'));
    console.log(url);
  `);
  return {
    url: await child.nextLine(),
    held: async () => {
      await child.nextLine();
    },
    kill: () => child.kill(),
  };
}
