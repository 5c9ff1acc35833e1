import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { deferred, type Deferred } from './conditions.js';

/**
 * What becomes of a chunk: `forward` passes it on, `drop` swallows it, `cut-before` swallows it and resets the
 * connection, `cut-after` makes sure that the receiver gets it and then cuts the connection.
 */
type ChunkVerdict = 'forward' | 'drop' | 'cut-before' | 'cut-after';

/**
 * Sees each chunk before it is passed on; no verdict means `forward`. A promise holds back this direction of this
 * connection until it is settled.
 */
type ChunkHook = (
  chunk: Buffer,
  connection: ProxiedConnection,
) => ChunkVerdict | undefined | Promise<ChunkVerdict | undefined>;

/** One client's connection through the proxy. */
export interface ProxiedConnection {
  /** Counts from 1 in the order of arrival. */
  readonly id: number;
  /** Resets both sides. */
  cut(): void;
}

/** A proxy between an application and its database that fails in the ways that networks fail. */
export interface TcpProxy {
  readonly port: number;
  /** The same connection string, but through the proxy. */
  url(databaseUrl: string): string;
  /** The connections that are open now. */
  connections(): readonly ProxiedConnection[];
  /** Resets all open connections. New ones are still accepted. */
  cut(): void;
  /** Half-open, like a host that vanished: nothing is forwarded either way, not even that a side has closed. */
  pause(): void;
  /** Forwards what was held back by {@link TcpProxy.pause}, and everything after it. */
  resume(): void;
  /** Resets new connections as they arrive, or (`false`) accepts them again. */
  refuse(refusing?: boolean): void;
  /** Forwards new connections to another server, as a virtual address that moves does. Open ones stay where they are. */
  repoint(target: TcpProxyTarget): void;
  /** Adds a hook on what clients send; returns how to remove it. */
  onClientData(hook: ChunkHook): () => void;
  /** Adds a hook on what the server sends; returns how to remove it. */
  onServerData(hook: ChunkHook): () => void;
  /** Resets everything and stops listening. May be called twice. */
  close(): Promise<void>;
}

/** Where the proxy forwards to. */
export interface TcpProxyTarget {
  readonly host: string;
  readonly port: number;
}

/** Starts a {@link TcpProxy} on a free port of the loopback interface. */
export async function startTcpProxy(target: TcpProxyTarget): Promise<TcpProxy> {
  const state = new ProxyState(target);
  const server = createServer({ allowHalfOpen: true }, (client) => state.accept(client));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let closed: Promise<void> | undefined;
  return {
    port,
    url: (databaseUrl) => {
      const url = new URL(databaseUrl);
      url.host = `127.0.0.1:${port}`;
      return url.href;
    },
    connections: () => [...state.connections],
    cut: () => state.cut(),
    pause: () => state.pause(),
    resume: () => state.resume(),
    refuse: (refusing = true) => void (state.refusing = refusing),
    repoint: (to) => void (state.target = to),
    onClientData: (hook) => register(state.clientHooks, hook),
    onServerData: (hook) => register(state.serverHooks, hook),
    close: () => (closed ??= closeAll(server, state)),
  };
}

/** Starts a proxy in front of the server that a connection string names. */
export async function startDatabaseProxy(databaseUrl: string): Promise<TcpProxy> {
  const { hostname, port } = new URL(databaseUrl);
  return startTcpProxy({ host: hostname, port: Number(port === '' ? 5432 : port) });
}

function register(hooks: Set<ChunkHook>, hook: ChunkHook): () => void {
  // A hook of its own for each registration: the same function may be registered twice.
  const own: ChunkHook = (chunk, connection) => hook(chunk, connection);
  hooks.add(own);
  return () => void hooks.delete(own);
}

async function closeAll(server: Server, state: ProxyState): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  state.cut();
  state.resume();
  await closed;
}

class ProxyState {
  readonly connections = new Set<ProxiedConnection>();
  readonly clientHooks = new Set<ChunkHook>();
  readonly serverHooks = new Set<ChunkHook>();
  refusing = false;
  private gate: Deferred<void> | undefined;
  private accepted = 0;

  constructor(public target: TcpProxyTarget) {}

  accept(client: Socket): void {
    client.on('error', () => undefined);
    if (this.refusing) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...this.target, allowHalfOpen: true });
    server.on('error', () => undefined);
    client.setNoDelay(true);
    server.setNoDelay(true);
    const connection: ProxiedConnection = { id: ++this.accepted, cut: () => reset(client, server) };
    this.connections.add(connection);
    void Promise.all([
      this.pump(client, server, this.clientHooks, connection),
      this.pump(server, client, this.serverHooks, connection),
    ]).finally(() => this.connections.delete(connection));
  }

  cut(): void {
    for (const connection of this.connections) connection.cut();
  }

  pause(): void {
    this.gate ??= deferred();
  }

  resume(): void {
    this.gate?.resolve();
    this.gate = undefined;
  }

  /** Forwards one direction until it ends. The gate is passed before every effect that the other side could see. */
  private async pump(
    source: Socket,
    target: Socket,
    hooks: ReadonlySet<ChunkHook>,
    connection: ProxiedConnection,
  ): Promise<void> {
    try {
      // By default an iterator that ends destroys its socket, and with it the other direction.
      for await (const chunk of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        const verdict = await judge(chunk, hooks, connection);
        await this.gate?.promise;
        if (verdict === 'cut-before' || verdict === 'cut-after') {
          if (verdict === 'cut-before') connection.cut();
          else cutAfter(chunk, source, target);
          return;
        }
        // After a cut on the other direction this one is still read to its end, but has nowhere to go.
        if (verdict === 'forward' && target.writable && !target.write(chunk)) await writable(target);
      }
      await this.gate?.promise;
      target.end();
    } catch {
      await this.gate?.promise;
      connection.cut();
    }
  }
}

/** Holds back what is sent next, and everything behind it on that connection, until it is let go. */
export function holdNext(proxy: TcpProxy): { readonly held: Promise<void>; readonly letGo: () => void } {
  const [held, go] = [deferred(), deferred()];
  let first: ProxiedConnection | undefined;
  const stop = proxy.onClientData(async (_chunk, connection): Promise<undefined> => {
    first ??= connection;
    held.resolve();
    if (connection === first) await go.promise;
  });
  const letGo = (): void => {
    stop();
    go.resolve();
  };
  return { held: held.promise, letGo };
}

/** The first hook that does not simply forward decides. */
async function judge(
  chunk: Buffer,
  hooks: ReadonlySet<ChunkHook>,
  connection: ProxiedConnection,
): Promise<ChunkVerdict> {
  for (const hook of hooks) {
    const verdict = (await hook(chunk, connection)) ?? 'forward';
    if (verdict !== 'forward') return verdict;
  }
  return 'forward';
}

/**
 * A reset would throw away what the receiver has not read yet, and so may closing a socket that has something to
 * read: the receiver's side is only ended, and closes when the receiver does.
 */
function cutAfter(chunk: Buffer, source: Socket, target: Socket): void {
  source.resetAndDestroy();
  target.end(chunk);
}

async function writable(target: Socket): Promise<void> {
  if (target.destroyed) return;
  await Promise.race([once(target, 'drain'), once(target, 'close')]);
}

function reset(...sockets: readonly Socket[]): void {
  for (const socket of sockets) {
    if (socket.destroyed) continue;
    // The system refuses to reset a socket that is just being ended, and Node would then keep its handle for ever.
    if (socket.writableEnded && !socket.writableFinished) socket.destroy();
    else socket.resetAndDestroy();
  }
}
