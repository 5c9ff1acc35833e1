import type { TestApp } from '../helpers/application.js';
import { propertyProgram, startPropertyApp, type PropertyAppOptions } from './application.js';
import { startApplicationProcess, type ApplicationProcess } from '../helpers/application-process.js';
import type { Instances, Side } from './world.js';

/**
 * Two instances in processes of their own, and a third that takes the place of one that dies. Who asks for one waits until it
 * serves; `close` ends those that were still starting as well.
 */
export function startProcesses(options: PropertyAppOptions): Instances {
  const start = (): Promise<ApplicationProcess> => {
    const process = startApplicationProcess(propertyProgram(options));
    // Who needs it hears of its failure; a spare that nobody needs may fail unheard.
    process.catch(() => undefined);
    return process;
  };
  const serving: [Promise<ApplicationProcess>, Promise<ApplicationProcess>] = [start(), start()];
  let spare = start();
  return {
    url: async (side) => (await serving[side]).url,
    sacrifice: async (side, work) => {
      const doomed = await serving[side];
      serving[side] = spare;
      spare = start();
      try {
        await work(doomed);
      } finally {
        await doomed.kill();
      }
    },
    close: async () => {
      for (const process of [...serving, spare])
        await process.then(({ kill }) => kill()).catch(() => undefined);
    },
  };
}

/** Two instances in this process, for sequences without kills. */
export async function startTwins(options: PropertyAppOptions): Promise<Instances> {
  const twins: [TestApp, TestApp] = [await startPropertyApp(options), await startPropertyApp(options)];
  return {
    url: async (side: Side) => twins[side].url,
    sacrifice: () => Promise.reject(new Error('Only a process can be killed')),
    close: async () => {
      await Promise.all(twins.map((twin) => twin.close()));
    },
  };
}
