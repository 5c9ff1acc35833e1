import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** What to do where it is missing. */
export const REDIS_REMEDY =
  'Install it with `apt-get install redis-server`, or leave the side out with --sides.';

const START_PATIENCE_MS = 10_000;

/**
 * The server's parent is a shell that ends it as soon as its own standard input ends, however this process ended. In memory
 * alone: no snapshots and no log.
 */
const SUPERVISED = `
redis-server --port "$1" --bind 127.0.0.1 --save '' --appendonly no --daemonize no >/dev/null &
server=$!
(read -r _; kill $server) <&3 2>/dev/null &
reader=$!
trap 'kill $server $reader' TERM
echo $server
wait $server
kill $reader 2>/dev/null`;

/** Whether Redis is installed. */
export function hasRedis(): boolean {
  return spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** A Redis server of our own that lives no longer than this process. */
export class Redis {
  private constructor(
    private readonly shell: ChildProcess,
    readonly pid: number,
    private readonly port: number,
    readonly version: string,
  ) {}

  static async start(): Promise<Redis> {
    const { status, stdout } = spawnSync('redis-server', ['--version'], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`redis-server is not installed. ${REDIS_REMEDY}`);
    const port = await freePort();
    const shell = spawn('/bin/sh', ['-c', SUPERVISED, 'sh', String(port)], {
      detached: true,
      stdio: ['ignore', 'pipe', 2, 'pipe'],
    });
    const [line] = (await once(shell.stdout!, 'data')) as [Buffer];
    const version = /v=(\S+)/.exec(stdout)?.[1] ?? 'unknown';
    const redis = new Redis(shell, Number(line.toString()), port, version);
    try {
      await redis.#untilReady();
    } catch (error) {
      await redis.stop();
      throw error;
    }
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  async flush(): Promise<void> {
    if ((await this.#command('FLUSHALL')) !== '+OK') throw new Error('Redis did not forget what it had');
  }

  async stop(): Promise<void> {
    if (this.shell.exitCode !== null || this.shell.signalCode !== null) return;
    const exited = once(this.shell, 'exit');
    this.shell.kill('SIGTERM');
    await exited;
  }

  async #untilReady(): Promise<void> {
    const deadline = performance.now() + START_PATIENCE_MS;
    for (;;) {
      const answer = await this.#command('PING').catch(() => undefined);
      if (answer === '+PONG') return;
      if (performance.now() > deadline) throw new Error('Redis did not start');
      await delay(20);
    }
  }

  #command(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(this.port, '127.0.0.1', () => socket.write(`${command}\r\n`));
      socket.once('error', reject);
      socket.once('data', (data) => {
        socket.destroy();
        resolve(data.toString().trim());
      });
    });
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}
