import { join } from 'node:path';
import { Child } from './child.js';
import type { DelayReply, Target } from './delay-process.js';

const FILE = join(import.meta.dirname, 'delay-process.js');
const PATIENCE_MS = 10_000;

/** The process that makes the way to servers longer. */
export class Delays {
  private constructor(private readonly child: Child<DelayReply>) {}

  static async start(): Promise<Delays> {
    const child = new Child<DelayReply>({ file: FILE });
    await child.ready(PATIENCE_MS);
    return new Delays(child);
  }

  get pid(): number {
    return this.child.pid;
  }

  /** The same URL, but on a line on which there and back takes that much longer. */
  async lengthen(url: string, roundTrip: number): Promise<string> {
    if (roundTrip === 0) return url;
    const lengthened = new URL(url);
    const target: Target = { host: lengthened.hostname, port: Number(lengthened.port) };
    const { port } = await this.child.ask({ target, milliseconds: roundTrip / 2 }, PATIENCE_MS);
    lengthened.hostname = '127.0.0.1';
    lengthened.port = String(port);
    return lengthened.href;
  }

  end(): Promise<void> {
    return this.child.end();
  }
}
