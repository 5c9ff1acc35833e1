import { join } from 'node:path';
import type { AppReply, AppRequests } from '../apps/app-messages.js';
import type { AppSettings } from '../apps/side.js';
import { Child } from './child.js';
import type { NodeRuntime } from './nodes.js';

const FILE = join(import.meta.dirname, '..', 'apps', 'serve.js');
const START_PATIENCE_MS = 30_000;
/** A purge of a million records is the longest that an application is asked for. */
const ANSWER_PATIENCE_MS = 300_000;

/** An application of one side, in a process of its own. */
export class App {
  private constructor(
    readonly settings: AppSettings,
    readonly node: NodeRuntime,
    readonly port: number,
    private readonly child: Child<AppReply>,
  ) {}

  static async start(
    settings: AppSettings,
    node: NodeRuntime,
    nodeOptions: readonly string[],
    started: (child: Child<AppReply>) => void,
  ): Promise<App> {
    const child = new Child<AppReply>({
      file: FILE,
      parameters: [JSON.stringify(settings)],
      node: node.path,
      nodeOptions,
    });
    started(child);
    const { port } = await child.ready(START_PATIENCE_MS);
    return new App(settings, node, port!, child);
  }

  get name(): string {
    return `${this.settings.side} on ${this.settings.adapter}, Node.js ${this.node.version}`;
  }

  get pid(): number {
    return this.child.pid;
  }

  async ask<Request extends keyof AppRequests>(request: Request): Promise<AppRequests[Request]> {
    const { result } = await this.child.ask({ request }, ANSWER_PATIENCE_MS);
    return result as AppRequests[Request];
  }

  end(): Promise<void> {
    return this.child.end();
  }
}
