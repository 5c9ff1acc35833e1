import type { ProxiedConnection, TcpProxy } from './tcp-proxy.js';

/** What passed between an application and PostgreSQL. */
export interface WireCount {
  /** How often the application waited for the server to be ready again. */
  readonly roundTrips: number;
  /** Transactions that were committed by a COMMIT. */
  readonly commits: number;
}

/** Counts what passes through a proxy. */
export interface WireCounter {
  /** What passed since it was last asked. */
  take(): WireCount;
}

/** Counts messages of PostgreSQL's protocol. What opens a session does not count. */
export function countWire(proxy: TcpProxy): WireCounter {
  const asked = new Tally();
  const answered = new Tally();
  proxy.onClientData((chunk, connection) => {
    // A simple query and Sync are what the server answers with ReadyForQuery.
    for (const { type } of asked.messages(connection, chunk, true))
      if (type === 'S' || type === 'Q') asked.ready++;
  });
  proxy.onServerData((chunk, connection) => {
    for (const { type, body } of answered.messages(connection, chunk, false)) {
      if (type === 'Z') answered.ready++;
      if (type === 'C' && body.toString() === 'COMMIT\0') answered.commits++;
    }
  });
  return {
    take: () => {
      const [roundTrips, commits] = [asked.ready, answered.commits];
      if (answered.ready - answered.sessions !== roundTrips)
        throw new Error(`${roundTrips} questions, and ${answered.ready - answered.sessions} answers`);
      asked.ready = answered.ready = answered.sessions = answered.commits = 0;
      return { roundTrips, commits };
    },
  };
}

interface Message {
  readonly type: string;
  readonly body: Buffer;
}

/** One direction of all connections. A message may come in several chunks, and several in one. */
class Tally {
  ready = 0;
  commits = 0;
  sessions = 0;
  readonly #rests = new Map<ProxiedConnection, Buffer>();

  messages(connection: ProxiedConnection, chunk: Buffer, isClient: boolean): Message[] {
    const known = this.#rests.get(connection);
    if (known === undefined) this.sessions += 1;
    let rest = known ? Buffer.concat([known, chunk]) : chunk;
    // A client's first message has no type.
    if (known === undefined && isClient) rest = Buffer.concat([Buffer.of(0), rest]);
    const messages: Message[] = [];
    for (let end = endOf(rest); end <= rest.length; end = endOf(rest)) {
      messages.push({ type: String.fromCharCode(rest[0] ?? 0), body: rest.subarray(5, end) });
      rest = rest.subarray(end);
    }
    this.#rests.set(connection, rest);
    return messages;
  }
}

/** Where the first message ends, after its type and its length, which counts itself. */
function endOf(bytes: Buffer): number {
  return bytes.length < 5 ? Infinity : 1 + bytes.readInt32BE(1);
}
