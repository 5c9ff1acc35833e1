import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Peer, Place, Trace, TracerCommand } from './application-process.js';

/*
 * Imported first by a process that is to die. It sees every write of every socket as it goes to the kernel, tells what
 * was written, and can end the process in the middle of one: SIGKILL to oneself is served before the system call
 * returns, so that nothing of this process runs after it.
 *
 * Commands come as messages of the parent; what it says goes to the standard output, synchronously.
 */

type Callback = (error?: Error | null) => void;
type Write = (this: Socket, chunk: Buffer | string, encoding: BufferEncoding, callback: Callback) => void;
type Writev = (
  this: Socket,
  chunks: readonly { chunk: Buffer | string; encoding: BufferEncoding }[],
  callback: Callback,
) => void;

const prototype = Socket.prototype as unknown as { _write: Write; _writev: Writev };
const { _write: write, _writev: writev } = prototype;

let command: TracerCommand = { do: 'nothing' };
let places: Place[] = [];
let bytesWritten = 0;
/** Writes to the provider that wait until the lease has been extended. */
let held: (() => void)[] = [];

prototype._write = function (chunk, encoding, callback) {
  intercept(this, toBuffer(chunk, encoding), callback, () => write.call(this, chunk, encoding, callback));
};

prototype._writev = function (chunks, callback) {
  const bytes = Buffer.concat(chunks.map(({ chunk, encoding }) => toBuffer(chunk, encoding)));
  intercept(this, bytes, callback, () => writev.call(this, chunks, callback));
};

process.on('message', (message: TracerCommand) => {
  if (message.do === 'report') {
    say(`trace ${JSON.stringify({ places, bytes: bytesWritten } satisfies Trace)}`);
    message = { do: 'nothing' };
  } else {
    places = [];
    bytesWritten = 0;
    say('ready');
  }
  command = message;
});
process.on('disconnect', () => process.exit());

function intercept(socket: Socket, bytes: Buffer, callback: Callback, pass: () => void): void {
  const peer = peerOf(socket);
  if (peer === undefined) {
    pass();
    return;
  }
  if (peer === 'provider' && isHolding()) {
    held.push(() => intercept(socket, bytes, callback, pass));
    return;
  }
  const place = note(peer, bytes);
  const cut = fate(place, bytes.length);
  if (cut === undefined) pass();
  else if (cut === 0) die(place);
  else {
    // Without an error the kernel has taken them.
    write.call(socket, bytes.subarray(0, cut), 'buffer' as BufferEncoding, (error) => {
      if (error) callback(error);
      else die(place);
    });
  }
  releaseHeld();
}

/** After how many bytes of this write the process dies. */
function fate(place: Place | undefined, length: number): number | undefined {
  const before = bytesWritten;
  bytesWritten += length;
  if (command.do === 'die at byte') {
    const cut = command.byte - before;
    return cut >= 0 && cut <= length ? cut : undefined;
  }
  if (command.do !== 'die' || place === undefined) return undefined;
  const { peer, what, occurrence } = command.place;
  if (place.peer !== peer || place.what !== what || place.occurrence !== occurrence) return undefined;
  if (command.share === 0 || command.share === 1) return length * command.share;
  return Math.min(Math.max(Math.floor(length * command.share), 1), length - 1);
}

function die(place: Place | undefined): void {
  say(`died ${JSON.stringify(place ?? null)}`);
  process.kill(process.pid, 'SIGKILL');
}

/** What opens and closes a session is no place of its own: it depends on the age of the pool. */
function note(peer: Peer, bytes: Buffer): Place | undefined {
  const what = peer === 'database' ? statementsIn(bytes).join('; ') : '';
  if (peer === 'database' && what === '') return undefined;
  const earlier = places.filter((place) => place.peer === peer && place.what === what);
  const place = { peer, what, occurrence: earlier.length + 1 };
  places.push(place);
  return place;
}

function isHolding(): boolean {
  if (!('holdProviderUntil' in command)) return false;
  const { holdProviderUntil: awaited } = command;
  // A statement of the library's own travels with the BEGIN and the COMMIT around it.
  return awaited !== undefined && !places.some(({ what }) => what.split('; ').includes(awaited));
}

function releaseHeld(): void {
  if (held.length === 0 || isHolding()) return;
  const released = held;
  held = [];
  for (const resume of released) resume();
}

function peerOf(socket: Socket): Peer | undefined {
  if (!('ports' in command) || socket.remotePort === undefined) return undefined;
  if (socket.remotePort === command.ports.database) return 'database';
  return socket.remotePort === command.ports.provider ? 'provider' : 'client';
}

/** What was prepared, by its name. Every session is taken to have prepared the same under it. */
const prepared = new Map<string, string>();

/** The texts of the statements in messages of PostgreSQL's frontend: simple queries, parsed ones, and prepared ones. */
function statementsIn(bytes: Buffer): string[] {
  const found: string[] = [];
  let parsed: string | undefined;
  for (let at = 0; at + 5 <= bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
    const type = String.fromCharCode(bytes[at]!);
    // What opens a session begins with its length, that is with a zero.
    if (type === '\0') break;
    const end = at + 1 + bytes.readInt32BE(at + 1);
    const [first = '', second = ''] = bytes.toString('utf8', at + 5, end).split('\0');
    // The number of a lock is another for each key, and so is the key.
    if (type === 'Q') {
      found.push(first.replace(/-?\d+::bigint/, '…::bigint').replace(/decode\('\w*'/g, "decode('…'"));
    }
    if (type === 'P') {
      parsed = first;
      found.push(second);
      prepared.set(first, second);
    }
    // A portal for what was prepared before.
    if (type === 'B' && second !== '' && second !== parsed) found.push(prepared.get(second) ?? second);
  }
  return found;
}

function toBuffer(chunk: Buffer | string, encoding: BufferEncoding): Buffer {
  return typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk;
}

function say(line: string): void {
  writeSync(1, `${line}\n`);
}
