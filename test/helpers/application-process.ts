import { once } from 'node:events';
import { runTypeScript } from './child-process.js';

/** What runs in the process: an exported function that starts an application. */
export interface Program {
  /** Relative to the repository's root. */
  readonly module: string;
  /** The function's name. It receives the options and `onMilestone`. */
  readonly start: string;
  /** Only what JSON can carry. */
  readonly options: object;
}

/** An application in its own process. The test can kill it or pause it. */
export interface ApplicationProcess {
  readonly url: string;
  /** Resolves when the process is gone, whoever ended it. */
  readonly gone: Promise<void>;
  /** Resolves with the next milestone that begins so. Rejects if the process dies. */
  milestone(beginning: string): Promise<string>;
  /** As `Application.block`. Resolves when the process has done it. */
  block(place: string): Promise<void>;
  unblock(place: string): Promise<void>;
  /** SIGSTOP: not even its timers run. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/** Starts an {@link ApplicationProcess}. */
export async function startApplicationProcess(program: Program): Promise<ApplicationProcess> {
  return (await start(program)).application;
}

/** Where a process writes to. */
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

/** Where a process dies: before (0), after (1) or inside a write, by the share of bytes sent. */
interface Death {
  readonly place: Place;
  readonly share: number;
}

/** How a process is watched. */
interface Watch {
  /** Holds all writes to the provider until this statement was sent. */
  readonly holdProviderUntil?: string | undefined;
}

interface Tracing extends Watch {
  readonly ports: { readonly database: number; readonly provider: number };
}

/** Commands for `socket-tracer.ts`. Each restarts its counts. */
export type TracerCommand =
  | { readonly do: 'nothing' | 'report' }
  | ({ readonly do: 'trace' } & Tracing)
  | ({ readonly do: 'die' } & Death & Tracing)
  | ({ readonly do: 'die at byte'; readonly byte: number } & Tracing);

/** A process that lists its writes, and can kill itself at one of them. */
export interface TracedProcess extends ApplicationProcess {
  /** Lists what it writes during `work`. */
  trace(work: () => Promise<unknown>, watch?: Watch): Promise<Trace>;
  /** Tells it to kill itself at this place. */
  arm(death: Death, watch?: Watch): Promise<void>;
  /** Tells it to kill itself after this many bytes, to whichever peer. */
  armAtByte(byte: number): Promise<void>;
  /** Whether it killed itself in time. If so, it is gone. */
  died(): Promise<boolean>;
}

/** Milliseconds after which a process that should have killed itself is killed. */
const PATIENCE = 20_000;

/** Starts a {@link TracedProcess} that writes to these peers and to its clients. */
export async function startTracedProcess(
  program: Program,
  peers: { readonly databaseUrl: string; readonly providerUrl: string },
): Promise<TracedProcess> {
  const ports = { database: portOf(peers.databaseUrl), provider: portOf(peers.providerUrl) };
  const tracer = new URL('./socket-tracer.ts', import.meta.url).href;
  const { application, nextLine, send } = await start(program, `await import('${tracer}');`);
  const expectLine = async (beginning: string): Promise<string> => {
    const line = await nextLine();
    if (!line.startsWith(beginning)) throw new Error(`Expected "${beginning}", got "${line}"`);
    return line.slice(beginning.length);
  };
  const tell = async (command: TracerCommand): Promise<void> => {
    send(command);
    await expectLine('ready');
  };
  return {
    ...application,
    trace: async (work, watch) => {
      await tell({ do: 'trace', ports, ...watch });
      await work();
      send({ do: 'report' } satisfies TracerCommand);
      return JSON.parse(await expectLine('trace')) as Trace;
    },
    arm: (death, watch) => tell({ do: 'die', ports, ...death, ...watch }),
    armAtByte: (byte) => tell({ do: 'die at byte', byte, ports }),
    died: async () => {
      const timer = setTimeout(() => void application.kill(), PATIENCE);
      try {
        await expectLine('died');
        await application.gone;
        return true;
      } catch {
        return false;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

interface Started {
  readonly application: ApplicationProcess;
  readonly nextLine: () => Promise<string>;
  readonly send: (message: object) => void;
}

/** `preamble` is source text that runs before any import. */
async function start({ module, start, options }: Program, preamble = ''): Promise<Started> {
  const child = runTypeScript(
    `
    ${preamble}
    const { ${start}: start } = await import('${module}');
    const onMilestone = (milestone) => console.log(milestone);
    const application = await start({ ...${JSON.stringify(options)}, onMilestone });
    process.on('message', ({ gate, place }) => {
      if (gate) process.send({ done: application[gate](place) });
    });
    process.on('disconnect', () => process.exit());
    console.log(application.url);
  `,
    {},
    'channel',
  );
  const gone = new Promise<void>((resolve) => child.process.once('exit', () => resolve()));
  // The process may be dead by now. That shows elsewhere.
  const send = (message: object): void => void child.process.send(message, () => undefined);
  const operate = async (gate: 'block' | 'unblock', place: string): Promise<void> => {
    const done = once(child.process, 'message');
    send({ gate, place });
    await done;
  };
  const { nextLine } = child;
  const application: ApplicationProcess = {
    url: await nextLine(),
    gone,
    milestone: async (beginning) => {
      for (;;) {
        const line = await nextLine();
        if (line.startsWith(beginning)) return line;
      }
    },
    block: (place) => operate('block', place),
    unblock: (place) => operate('unblock', place),
    pause: () => void child.process.kill('SIGSTOP'),
    resume: () => void child.process.kill('SIGCONT'),
    kill: () => child.kill(),
  };
  return { application, nextLine, send };
}

function portOf(url: string): number {
  const { port } = new URL(url);
  return Number(port === '' ? 5432 : port);
}
