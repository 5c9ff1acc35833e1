import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { isCommit, isCommitAnswer } from '../../helpers/commit-faults.js';
import { deferred, eventually } from '../../helpers/conditions.js';
import { startTcpProxy, type TcpProxy } from '../../helpers/tcp-proxy.js';

/** Collects what one side of a connection gets to see. */
class Peer {
  received = '';
  events: string[] = [];

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => (this.received += chunk.toString()));
    socket.on('error', (error: NodeJS.ErrnoException) => this.events.push(error.code ?? error.message));
    socket.on('end', () => this.events.push('end'));
  }

  async receives(text: string): Promise<void> {
    await eventually(() => expect(this.received).toBe(text));
  }
}

describe('TCP proxy', () => {
  let server: Server;
  let proxy: TcpProxy;
  let backends: Peer[];
  let clients: Socket[];

  beforeEach(async () => {
    backends = [];
    clients = [];
    server = createServer({ allowHalfOpen: true }, (socket) => backends.push(new Peer(socket)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    proxy = await startTcpProxy({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  });

  afterEach(async () => {
    await proxy.close();
    for (const socket of [...clients, ...backends.map((backend) => backend.socket)]) socket.destroy();
    server.close();
    await once(server, 'close');
  });

  async function open(): Promise<{ client: Peer; backend: Peer }> {
    const arrived = backends.length;
    const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
    clients.push(socket);
    const client = new Peer(socket);
    const backend = await eventually(() => backends[arrived] ?? false);
    return { client, backend };
  }

  it('forwards both ways, and the end of each direction by itself', async () => {
    const { client, backend } = await open();
    client.socket.end('question');
    await backend.receives('question');
    await eventually(() => expect(backend.events).toEqual(['end']));
    backend.socket.end('answer');
    await client.receives('answer');
    await eventually(() => expect(client.events).toEqual(['end']));
    await eventually(() => proxy.connections().length === 0);
  });

  it('forwards more than the buffers hold, byte for byte', async () => {
    const { client, backend } = await open();
    const bulk = 'abcdefghij'.repeat(800_000);
    backend.socket.end(bulk);
    await eventually(() => expect(client.events).toEqual(['end']));
    expect(client.received === bulk).toBe(true);
  });

  it('cuts with a reset on both sides', async () => {
    const { client, backend } = await open();
    proxy.cut();
    await eventually(() => expect([client.events, backend.events]).toEqual([['ECONNRESET'], ['ECONNRESET']]));
  });

  it('tells neither side anything while it is paused', async () => {
    const { client, backend } = await open();
    const seen = deferred();
    proxy.onClientData(() => {
      seen.resolve();
    });
    proxy.pause();
    client.socket.end('held back');
    await seen.promise;
    const other = await open();
    backend.socket.write('also held back');
    expect([backend.received, backend.events, client.received]).toEqual(['', [], '']);
    proxy.resume();
    await backend.receives('held back');
    await client.receives('also held back');
    await eventually(() => expect(backend.events).toEqual(['end']));
    other.client.socket.write('still open');
    await other.backend.receives('still open');
  });

  it('drops and cuts by what the chunks say, for one connection only', async () => {
    const { client, backend } = await open();
    const bystander = await open();
    const dropped = deferred();
    const remove = proxy.onClientData((chunk, { id }) => {
      if (id !== 1) return 'forward';
      if (chunk.includes('lost')) {
        dropped.resolve();
        return 'drop';
      }
      return chunk.includes('last') ? 'cut-after' : 'forward';
    });
    client.socket.write('lost');
    await dropped.promise;
    bystander.client.socket.write('lost');
    await bystander.backend.receives('lost');
    client.socket.write('last');
    await backend.receives('last');
    await eventually(() => expect(client.events).toEqual(['ECONNRESET']));
    backend.socket.end('too late');
    await eventually(() => expect(proxy.connections().map(({ id }) => id)).toEqual([2]));
    expect([client.received, bystander.client.events]).toEqual(['', []]);
    remove();
  });

  it('cuts before the server hears of a chunk', async () => {
    const { client, backend } = await open();
    proxy.onClientData((chunk) => (chunk.includes('COMMIT') ? 'cut-before' : 'forward'));
    client.socket.write('COMMIT');
    await eventually(() => expect([client.events, backend.events]).toEqual([['ECONNRESET'], ['ECONNRESET']]));
    expect(backend.received).toBe('');
  });

  it('holds a chunk back until its hook has decided', async () => {
    const { client, backend } = await open();
    const decision = deferred<'forward'>();
    const asked = deferred();
    proxy.onClientData(() => {
      asked.resolve();
      return decision.promise;
    });
    client.socket.write('waiting');
    await asked.promise;
    expect(backend.received).toBe('');
    decision.resolve('forward');
    await backend.receives('waiting');
  });

  it('resets new connections while it refuses', async () => {
    proxy.refuse();
    const socket = connect(proxy.port, '127.0.0.1');
    clients.push(socket);
    const refused = new Peer(socket);
    await eventually(() => expect(refused.events).toEqual(['ECONNRESET']));
    proxy.refuse(false);
    const { client, backend } = await open();
    client.socket.write('welcome');
    await backend.receives('welcome');
  });

  it('rewrites connection strings', () => {
    expect(proxy.url('postgres://me:secret@db.example:6543/shop?application_name=x')).toBe(
      `postgres://me:secret@127.0.0.1:${proxy.port}/shop?application_name=x`,
    );
  });
});

describe('COMMIT on the wire', () => {
  const simple = Buffer.from('Q\0\0\0\x0bCOMMIT\0');
  const extended = Buffer.from('P\0\0\0\x0e\0commit\0\0\0B');

  it.each([
    ['a simple query', simple, true],
    ['an extended query', extended, true],
    ['a statement with a longer text', Buffer.from("Q\0\0\0\x12SELECT 'COMMIT'\0"), false],
    ['COMMIT PREPARED', Buffer.from("Q\0\0\0\x19COMMIT PREPARED 'x'\0"), false],
  ])('is recognised: %s', (_name, bytes, expected) => {
    expect(isCommit(bytes)).toBe(expected);
  });

  it('is told from a rollback in the answer', () => {
    expect(isCommitAnswer(Buffer.from('C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I'))).toBe(true);
    expect(isCommitAnswer(Buffer.from('C\0\0\0\x0dROLLBACK\0Z\0\0\0\x05I'))).toBe(false);
  });
});
