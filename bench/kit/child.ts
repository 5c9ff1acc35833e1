import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

/** How long a child may take to end when it is told to. */
const END_PATIENCE_MS = 10_000;

/** What a child is started with. */
export interface ChildOptions {
  readonly file: string;
  readonly parameters?: readonly string[];
  /** The Node.js to run it on. Default: this one. */
  readonly node?: string;
  readonly nodeOptions?: readonly string[];
}

interface Message {
  readonly id?: number;
  readonly failure?: string;
}

/** A Node process of ours that answers messages. It ends when this process ends. */
export class Child<Reply extends Message> {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<
    number | undefined,
    { resolve: (reply: Reply) => void; reject: (error: Error) => void }
  >();
  #ended: Error | undefined;
  #nextId = 1;

  constructor({ file, parameters = [], node = process.execPath, nodeOptions = [] }: ChildOptions) {
    this.#process = fork(file, parameters, {
      execPath: node,
      execArgv: [...nodeOptions],
      env: { ...process.env, NODE_OPTIONS: '', NODE_ENV: 'production' },
      stdio: ['ignore', 2, 2, 'ipc'],
    });
    this.#process.on('message', (reply: Reply) => this.#settle(reply));
    this.#process.on('error', (error) => this.#end(error));
    this.#process.on('exit', (code, signal) =>
      this.#end(new Error(`The process of ${file} ended (${signal ?? `exit code ${code}`})`)),
    );
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** The message that has no id: the child is ready. */
  ready(milliseconds: number): Promise<Reply> {
    return this.#await(undefined, milliseconds);
  }

  /** Sends a message and resolves with its answer. */
  ask(message: object, milliseconds: number, given?: (id: number) => void): Promise<Reply> {
    const id = this.#nextId++;
    const answer = this.#await(id, milliseconds);
    this.tell({ id, ...message });
    given?.(id);
    return answer;
  }

  tell(message: object): void {
    if (this.#process.connected) this.#process.send(message);
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    const exited = once(this.#process, 'exit');
    this.#process.disconnect();
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), END_PATIENCE_MS);
    await exited;
    clearTimeout(timer);
  }

  #await(id: number | undefined, milliseconds: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(this.#ended);
        return;
      }
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`No answer within ${milliseconds} ms`));
      }, milliseconds);
      const settled = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      };
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
    });
  }

  #settle(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.failure === undefined) waiting?.resolve(reply);
    else waiting?.reject(new Error(reply.failure));
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
