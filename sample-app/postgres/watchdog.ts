import { spawn, type ChildProcess } from 'node:child_process';
import { Socket } from 'node:net';
import { serverEnvironment } from './environment.js';
import type { ServerUser } from './server-user.js';

/** What the watchdog is to run, and what it does when it is over. */
export interface WatchdogOrder {
  readonly command: string;
  readonly arguments: readonly string[];
  readonly user: ServerUser | undefined;
  readonly dataDir: string;
  readonly pgCtl: string;
  readonly log: string;
  /** Directory to remove once the server has stopped. */
  readonly remove: string | undefined;
}

/** A server that lives no longer than this process. */
export interface SupervisedServer {
  readonly pid: number;
  /** How the server ended by itself; `undefined` while it runs. */
  ended(): string | undefined;
  /** Stops the server, and removes what the order names unless it is to be kept. May be called twice. */
  stop(options?: { readonly keepData: boolean }): Promise<void>;
}

/**
 * The program of the watchdog, which is the server's parent and sees the end of *its* parent, however it came
 * about, by the end of its standard input. A string rather than a file, so that it needs neither to be compiled
 * nor to be found.
 */
const PROGRAM = `
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const order = JSON.parse(process.argv[1]);
const STEPS = [['SIGINT', 10000], ['SIGQUIT', 5000], ['SIGKILL', 5000]];
let running = true, stopping = false, keepData = false;

// The server's user owns the directory: a link it left under this name must not be followed with our rights.
fs.rmSync(order.log, { force: true });
const log = fs.openSync(order.log, 'wx', 0o600);
if (order.user) fs.fchownSync(log, order.user.uid, order.user.gid);

const report = (message) => process.stdout.write(JSON.stringify(message) + '\\n');
process.stdout.on('error', () => {});
const server = spawn(order.command, order.arguments, { ...order.user, cwd: '/', stdio: ['ignore', log, log] });
server.on('spawn', () => report({ pid: server.pid }));
server.on('error', (error) => ended(error.message));
server.on('exit', (code, signal) => ended(signal ?? 'exit code ' + code));

function ended(how) {
  running = false;
  report({ ended: how });
  if (stopping) finish();
}
function stop() {
  if (stopping) return;
  stopping = true;
  if (running) step(0);
  else finish();
}
function step(index) {
  const [signal, patience] = STEPS[index];
  if (process.platform === 'win32' && index === 0) spawnSync(order.pgCtl, ['stop', '-D', order.dataDir, '-m', 'fast', '-W']);
  else server.kill(signal);
  if (index + 1 < STEPS.length) setTimeout(step, patience, index + 1);
}
function finish() {
  if (order.remove && !keepData) fs.rmSync(order.remove, { recursive: true, force: true, maxRetries: 10 });
  process.exit();
}
process.stdin.on('data', () => { keepData = true; });
process.stdin.on('close', stop);
process.stdin.on('error', stop);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, stop);
`;

/** Starts a server under a watchdog; resolves when the server's process is there, not when it is ready. */
export async function launchSupervised(order: WatchdogOrder): Promise<SupervisedServer> {
  const watchdog = spawn(
    process.execPath,
    ['--input-type=commonjs', '--eval', PROGRAM, JSON.stringify(order)],
    {
      // In a process group of its own, so that Ctrl-C in a terminal reaches the application first.
      detached: true,
      cwd: '/',
      env: serverEnvironment(),
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  const exited = new Promise<void>((resolve) => watchdog.once('exit', () => resolve()));
  let ended: string | undefined;
  const pid = await new Promise<number>((resolve, reject) => {
    let complaint = '';
    watchdog.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    watchdog.once('error', reject);
    watchdog.once('close', () => reject(new Error(`The watchdog of PostgreSQL ended: ${complaint}`)));
    onReport(watchdog, (report) => {
      if (report.pid !== undefined) resolve(report.pid);
      ended ??= report.ended;
      if (report.ended !== undefined) reject(new Error(`PostgreSQL could not be run: ${report.ended}`));
    });
  });
  releaseEventLoop(watchdog);
  let stopped: Promise<void> | undefined;
  return {
    pid,
    ended: () => ended,
    stop: ({ keepData } = { keepData: false }) => {
      watchdog.ref();
      watchdog.stdin.end(keepData ? 'keep' : '');
      return (stopped ??= exited);
    },
  };
}

interface Report {
  readonly pid?: number;
  readonly ended?: string;
}

function onReport(watchdog: ChildProcess, listener: (report: Report) => void): void {
  let pending = '';
  watchdog.stdout?.on('data', (chunk: Buffer) => {
    const lines = (pending + chunk.toString()).split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) listener(JSON.parse(line) as Report);
  });
}

/** A server must not keep the process alive that started it. */
function releaseEventLoop(watchdog: ChildProcess): void {
  watchdog.unref();
  for (const stream of [watchdog.stdin, watchdog.stdout, watchdog.stderr]) {
    // The watchdog may end before it has read what it was told.
    stream?.on('error', () => undefined);
    if (stream instanceof Socket) stream.unref();
  }
}
