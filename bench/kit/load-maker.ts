import { join } from 'node:path';
import type { App } from './app.js';
import { Child } from './child.js';
import type { Load, LoadReply, LoadResult, Turns, TurnsResult } from './load-messages.js';

const FILE = join(import.meta.dirname, 'load-process.js');
/** What a load may take beyond its own time: the requests on their way, and a machine that does other things. */
const PATIENCE_MS = 60_000;
/** A load of a number of requests says nothing of its time. */
const LONGEST_LOAD_MS = 600_000;

/** A load, whoever it is for. */
export type AppLoad = Omit<Load, 'port'>;

/** A load that is running. */
export interface RunningLoad {
  readonly result: Promise<LoadResult>;
  /** Lets the requests on their way end, and no more begin. */
  end(): void;
}

/** The process that makes the load, one load after the other. */
export class LoadMaker {
  readonly #child = new Child<LoadReply>({ file: FILE });

  run(app: App, load: AppLoad): Promise<LoadResult> {
    return this.start(app, load).result;
  }

  start(app: App, load: AppLoad): RunningLoad {
    let id = 0;
    const patience = (load.milliseconds ?? LONGEST_LOAD_MS) + PATIENCE_MS;
    const order: { load: Load } = { load: { ...load, port: app.port } };
    const result = this.#child
      .ask(order, patience, (given) => (id = given))
      .then(
        (reply) => (reply as { result: LoadResult }).result,
        (cause: unknown) => {
          throw new Error(`${app.name}: ${(cause as Error).message}`, { cause });
        },
      );
    return { result, end: () => this.#child.tell({ end: id }) };
  }

  async takeTurns(turns: Turns): Promise<TurnsResult> {
    const reply = await this.#child.ask({ turns }, LONGEST_LOAD_MS);
    return (reply as { times: TurnsResult }).times;
  }

  end(): Promise<void> {
    return this.#child.end();
  }
}
