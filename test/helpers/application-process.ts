import { once } from 'node:events';
import { runTypeScript } from './child-process.js';

/** What runs in the process: a function that a module exports, and which starts an application. */
export interface Program {
  /** Relative to the repository's root. */
  readonly module: string;
  /** Is called with the options, and with `onMilestone`. */
  readonly start: string;
  /** Only what JSON can carry. */
  readonly options: object;
}

/** An application in a process of its own, which can die or be paused. */
export interface ApplicationProcess {
  readonly url: string;
  /** Resolves when the process is gone, whoever ended it. */
  readonly gone: Promise<void>;
  /** Resolves with the next milestone that begins so; the ones before it are skipped. Rejects when the process dies. */
  milestone(beginning: string): Promise<string>;
  /** Of an `Application`: handlers that come to this place wait there. Resolves when the process has done so. */
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

/** How a process is watched. */
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
export interface TracedProcess extends ApplicationProcess {
  /** What it writes while that goes on. */
  trace(work: () => Promise<unknown>, watch?: Watch): Promise<Trace>;
  /** Resolves when it is set to kill itself. */
  arm(death: Death, watch?: Watch): Promise<void>;
  /** The same, by the number of bytes that get out first, whoever they go to. */
  armAtByte(byte: number): Promise<void>;
  /** Whether it has killed itself, or does so in time; then it is gone. */
  died(): Promise<boolean>;
}

/** Milliseconds within which a process that is set to kill itself has to do so; otherwise it is killed. */
const PATIENCE = 20_000;

/** Starts a {@link TracedProcess}; `peers` are the URLs of who it writes to besides its clients. */
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

/** The preamble is source text that runs before anything is imported. */
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
  // Whoever is sent something may be dead by now; that shows elsewhere.
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
