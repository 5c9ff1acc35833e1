import { once } from 'node:events';
import { createServer, request as startRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

/** What can happen to a request between a client and a server. */
export const MISHAPS = [
  /** The connection breaks before anything is forwarded. */
  'request-lost',
  /** It is carried out, and the connection breaks in place of the first byte of the answer. */
  'answer-lost',
  /** It is carried out, and the connection breaks in the middle of the answer's body. */
  'answer-cut',
  /** It is forwarded only when the client has given it up. */
  'request-late',
  /** It is carried out, and the answer does not come before the client has given up. */
  'answer-late',
  /** Nothing is forwarded, and a 502 is all there is. */
  'gateway-before',
  /** It is carried out, and a 502 is all there is. */
  'gateway-after',
] as const;
export type Mishap = (typeof MISHAPS)[number];

/** A request as it came, whole. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** A proxy that speaks HTTP, as gateways do, and fails in the ways that they and the networks around them fail. */
export interface LossyHttp {
  readonly url: string;
  /** How often each mishap has happened. */
  readonly mishaps: Readonly<Record<Mishap, number>>;
  /** Resolves when nothing is on its way any more: what was late has been carried out as well. */
  settled(): Promise<void>;
  /** Breaks all connections and stops listening. May be called twice. */
  close(): Promise<void>;
}

/** Decides what happens to a request, in the order in which they came. No mishap: it is forwarded, and so is the answer. */
type Judge = (request: SeenRequest) => Mishap | undefined;

interface Answer {
  readonly status: number;
  /** Names and values alternating. */
  readonly headers: readonly string[];
  readonly body: Buffer;
}

/** Starts a {@link LossyHttp} in front of the server at `target`, on a free port. */
export async function startLossyHttp(target: string, judge: Judge): Promise<LossyHttp> {
  const mishaps = Object.fromEntries(MISHAPS.map((mishap) => [mishap, 0])) as Record<Mishap, number>;
  const running = new Set<Promise<void>>();

  const handle = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    // Asked for before anything is awaited: a client may be gone already when its request has been read.
    const gone = new Promise<void>((resolve) => response.once('close', resolve));
    const { method = '', url: path = '', headers } = incoming;
    const request: SeenRequest = { method, path, headers, body: await buffer(incoming) };
    const mishap = judge(request);
    if (mishap !== undefined) mishaps[mishap]++;
    if (mishap === 'request-lost' || mishap === 'gateway-before') {
      if (mishap === 'request-lost') response.destroy();
      else badGateway(response);
      return;
    }
    if (mishap === 'request-late') await gone;
    const answer = await forward(target, request);
    switch (mishap) {
      case undefined:
        send(response, answer).end(answer.body);
        return;
      case 'answer-cut':
        send(response, answer).write(answer.body.subarray(0, answer.body.length / 2), () =>
          response.destroy(),
        );
        return;
      case 'answer-lost':
        response.destroy();
        return;
      case 'gateway-after':
        badGateway(response);
        return;
      case 'request-late':
      case 'answer-late':
        await gone;
    }
  };

  const server = createServer((request, response) => {
    const handled = handle(request, response)
      .catch(() => void response.destroy())
      .finally(() => running.delete(handled));
    running.add(handled);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let closed: Promise<void> | undefined;
  const settled = async (): Promise<void> => {
    while (running.size > 0) await Promise.all(running);
  };
  const close = async (): Promise<void> => {
    const ended = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await ended;
    await settled();
  };
  return { url: `http://127.0.0.1:${port}`, mishaps, settled, close: () => (closed ??= close()) };
}

/** On a connection of its own, which is the server's to close: none is kept that could break by itself. */
async function forward(target: string, { method, path, headers, body }: SeenRequest): Promise<Answer> {
  const request = startRequest(target + path, {
    method,
    agent: false,
    headers: { ...headers, connection: 'close' },
  });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const bytes = await buffer(response);
  return { status: response.statusCode ?? 0, headers: response.rawHeaders, body: bytes };
}

/** Headers about the connection are those of one hop; the next one has its own. */
const OF_ONE_HOP = /^(connection|keep-alive|transfer-encoding|content-length)$/i;

function send(response: ServerResponse, { status, headers, body }: Answer): ServerResponse {
  for (let index = 0; index < headers.length; index += 2) {
    const [name = '', value = ''] = headers.slice(index);
    if (!OF_ONE_HOP.test(name)) response.appendHeader(name, value);
  }
  // 204 and 304 have no body, and must not speak of one.
  if (body.length > 0) response.setHeader('Content-Length', body.length);
  // A browser sends a request again by itself when a connection that it had kept breaks, and these tests count requests.
  response.setHeader('Connection', 'close');
  return response.writeHead(status);
}

function badGateway(response: ServerResponse): void {
  response
    .writeHead(502, { 'Content-Type': 'text/html', Connection: 'close' })
    .end('<h1>502 Bad Gateway</h1>');
}
