import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What becomes of a call, but for its being answered. */
type Trouble =
  /** It takes effect, and its answer is lost on the way. */
  | 'lose-answer'
  /** It takes effect, and its answer does not come. */
  | 'hold-answer'
  /** It is lost on the way. */
  | 'lose-request'
  /** Refused with this status, without an effect. */
  | number;

/** Something that was made by a call. */
interface Thing {
  readonly id: string;
  /** The idempotency key that it was made under. */
  readonly key: string | undefined;
  readonly [member: string]: unknown;
}

/**
 * The services outside: `POST /things` makes one, once for each `Idempotency-Key` where one is sent, and
 * `GET /things/key-or-reference` finds it.
 */
export interface OutsideWorld {
  readonly url: string;
  /** What there is of a kind. */
  made(kind: string): readonly Thing[];
  /** How often a path was asked for, with or without success. */
  calls(path: string): number;
  /** Has the next call of that kind go wrong. */
  trouble(kind: string, trouble: Trouble): void;
  /** Listens no more, until it is up again on the same port. */
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

/** Starts the {@link OutsideWorld} on a free port. */
export async function startOutsideWorld(): Promise<OutsideWorld> {
  const things = new Map<string, Thing[]>();
  const troubles = new Map<string, Trouble>();
  const calls = new Map<string, number>();
  const made = (kind: string): Thing[] => things.get(kind) ?? [];

  const make = async (kind: string, request: IncomingMessage): Promise<Thing> => {
    let body = '';
    for await (const chunk of request as AsyncIterable<Buffer>) body += chunk.toString();
    const key = request.headers['idempotency-key']?.toString();
    const before = key === undefined ? undefined : made(kind).find((thing) => thing.key === key);
    if (before) return before;
    const thing = { ...(JSON.parse(body) as object), id: `${kind}-${made(kind).length + 1}`, key };
    things.set(kind, [...made(kind), thing]);
    return thing;
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const [, kind = '', name] = path.split('/');
    calls.set(path, (calls.get(path) ?? 0) + 1);
    const trouble = troubles.get(kind);
    troubles.delete(kind);
    // A connection that is kept would be broken by going down, in place of the next one being refused.
    response.setHeader('Connection', 'close').setHeader('Content-Type', 'application/json');
    if (trouble === 'lose-request') {
      request.socket.destroy();
      return;
    }
    if (typeof trouble === 'number') {
      response.writeHead(trouble).end('{}');
      return;
    }
    const thing =
      request.method === 'POST'
        ? await make(kind, request)
        : made(kind).find(({ key, reference }) => key === name || reference === name);
    if (trouble === 'lose-answer') request.socket.destroy();
    if (trouble !== undefined) return;
    response.writeHead(thing ? 200 : 404).end(JSON.stringify(thing ?? {}));
  };

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  const listen = async (port: number): Promise<number> => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const down = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  const port = await listen(0);
  return {
    url: `http://127.0.0.1:${port}`,
    made,
    calls: (path) => calls.get(path) ?? 0,
    trouble: (kind, trouble) => void troubles.set(kind, trouble),
    down,
    up: async () => {
      await listen(port);
    },
    close: down,
  };
}
