import type { FaultAppOptions } from './fault-app.js';
import { startFaultProcess } from './fault-process.js';

/** Milliseconds within which a process that is set to kill itself has to do so; otherwise it is killed. */
const PATIENCE = 20_000;

/** Who a process writes to. */
export type Peer = 'database' | 'provider' | 'client';

/** One write of a process, as it can be found again in another run. */
export interface Place {
  readonly peer: Peer;
  /** The texts of the statements that go to the database, joined by `; `; otherwise empty. */
  readonly what: string;
  /** Counts from 1 among the same. */
  readonly occurrence: number;
}

/** What a process wrote. */
export interface Trace {
  readonly places: readonly Place[];
  /** How many bytes that were, with those that opened connections. */
  readonly bytes: number;
}

/** Where a process dies: before (0), after (1) or inside one of its writes, by the share of its bytes that got out. */
interface Death {
  readonly place: Place;
  readonly share: number;
}

/** How a victim is watched. */
interface Watch {
  /** A statement that must have been sent before the provider gets to see anything; one never sent holds for good. */
  readonly holdProviderUntil?: string | undefined;
}

interface Tracing extends Watch {
  readonly ports: { readonly database: number; readonly provider: number };
}

/** What `socket-tracer.ts` is told by its parent. From each of these on, it counts anew. */
export type TracerCommand =
  | { readonly do: 'nothing' | 'report' }
  | ({ readonly do: 'trace' } & Tracing)
  | ({ readonly do: 'die' } & Death & Tracing)
  | ({ readonly do: 'die at byte'; readonly byte: number } & Tracing);

/** A process whose writes can be listed, and which can be told to kill itself at one of them. */
export interface Victim {
  readonly url: string;
  /** What it writes while that goes on. */
  trace(work: () => Promise<unknown>, watch?: Watch): Promise<Trace>;
  /** Resolves when it is set to kill itself. */
  arm(death: Death, watch?: Watch): Promise<void>;
  /** The same, by the number of bytes that get out first, whoever they go to. */
  armAtByte(byte: number): Promise<void>;
  /** Whether it has killed itself, or does so in time; then it is gone. */
  died(): Promise<boolean>;
  /** Resolves when the process is gone. */
  readonly gone: Promise<void>;
  kill(): Promise<void>;
}

/** Starts a {@link Victim}. */
export async function startVictim(
  options: FaultAppOptions & { readonly providerUrl: string },
): Promise<Victim> {
  const ports = { database: portOf(options.databaseUrl), provider: portOf(options.providerUrl) };
  const tracer = new URL('./socket-tracer.ts', import.meta.url).href;
  const child = await startFaultProcess(options, `await import('${tracer}');`);
  const expectLine = async (beginning: string): Promise<string> => {
    const line = await child.nextLine();
    if (!line.startsWith(beginning)) throw new Error(`Expected "${beginning}", got "${line}"`);
    return line.slice(beginning.length);
  };
  const tell = async (command: TracerCommand): Promise<void> => {
    child.send(command);
    await expectLine('ready');
  };
  return {
    url: child.url,
    gone: child.gone,
    trace: async (work, watch) => {
      await tell({ do: 'trace', ports, ...watch });
      await work();
      child.send({ do: 'report' } satisfies TracerCommand);
      return JSON.parse(await expectLine('trace')) as Trace;
    },
    arm: (death, watch) => tell({ do: 'die', ports, ...death, ...watch }),
    armAtByte: (byte) => tell({ do: 'die at byte', byte, ports }),
    died: async () => {
      const timer = setTimeout(() => void child.kill(), PATIENCE);
      try {
        await expectLine('died');
        await child.gone;
        return true;
      } catch {
        return false;
      } finally {
        clearTimeout(timer);
      }
    },
    kill: () => child.kill(),
  };
}

function portOf(url: string): number {
  const { port } = new URL(url);
  return Number(port === '' ? 5432 : port);
}
