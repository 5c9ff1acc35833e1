import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request as it arrived, to its last byte. */
export interface ReceivedRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  /** Names in lower case. */
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
  /** The body as UTF-8. */
  readonly text: string;
}

/** How the server meets one request. */
export interface ScriptedAnswer {
  /** Default 200. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** A value is sent as JSON, bytes and text as they are. Default: nothing. */
  readonly body?: unknown;
  /** What the answer waits for. */
  readonly after?: Promise<unknown>;
  /** Where the connection breaks off: before the first byte of the answer, in the middle of its body, or behind it. */
  readonly cut?: 'before' | 'within' | 'behind';
}

/** A server on loopback that answers by a script. */
export interface ScriptedServer {
  readonly url: string;
  readonly requests: readonly ReceivedRequest[];
  /** Connections that were ever made. */
  readonly connections: number;
  close(): Promise<void>;
}

/** Answers by position, or a function of the request. */
type Script = readonly ScriptedAnswer[] | ((request: ReceivedRequest, index: number) => ScriptedAnswer);

/** The server of one test, closed after it. */
export interface ServerOfTest extends ScriptedServer {
  /** Starts a server. The other members are about the last one started. */
  start(script: Script): Promise<ScriptedServer>;
}

/**
 * Sets up the client's specs. Pass the spec's own `afterEach`: Node loads helpers once per worker,
 * so a hook imported here would belong to the first file.
 */
export function serverOfTest(afterEach: (hook: () => Promise<void>) => void): ServerOfTest {
  let current: ScriptedServer | undefined;
  const started = (): ScriptedServer => {
    if (!current) throw new Error('This test has started no server');
    return current;
  };
  afterEach(async () => {
    await current?.close();
    current = undefined;
  });
  return {
    start: async (script) => (current = await startScriptedServer(script)),
    get url() {
      return started().url;
    },
    get requests() {
      return started().requests;
    },
    get connections() {
      return started().connections;
    },
    close: () => started().close(),
  };
}

/** What a request behind the end of the script gets: no client tries again after it. */
const SCRIPT_IS_OVER: ScriptedAnswer = { status: 418, body: 'the script is over' };

/** Starts a {@link ScriptedServer}. */
export async function startScriptedServer(script: Script): Promise<ScriptedServer> {
  const requests: ReceivedRequest[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    void receive(request).then(
      async (received) => {
        const index = requests.push(received) - 1;
        const answer = typeof script === 'function' ? script(received, index) : script[index];
        await answerWith(answer ?? SCRIPT_IS_OVER, response);
      },
      // The client broke off before its request was complete: there is nobody to answer.
      () => undefined,
    );
  });
  server.on('connection', () => (connections += 1));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    get connections() {
      return connections;
    },
    close: () => close(server),
  };
}

async function receive(message: IncomingMessage): Promise<ReceivedRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of message as AsyncIterable<Buffer>) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const { method = '', url = '', headers } = message;
  return { method, url, headers, body, text: body.toString('utf8') };
}

async function answerWith(answer: ScriptedAnswer, response: ServerResponse): Promise<void> {
  const { status = 200, headers = {}, body, after, cut } = answer;
  await after;
  if (cut === 'before') {
    response.destroy();
    return;
  }
  const isValue = body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body);
  const bytes = Buffer.from(isValue ? JSON.stringify(body) : ((body ?? '') as string));
  const contentType = isValue ? { 'content-type': 'application/json' } : {};
  // 204 has no length, as it has no body.
  const length = status === 204 ? {} : { 'content-length': String(bytes.length) };
  response.writeHead(status, { ...contentType, ...length, ...headers });
  if (cut === 'within') {
    response.write(bytes.subarray(0, bytes.length >> 1), () => response.destroy());
    return;
  }
  response.end(bytes, () => cut === 'behind' && response.destroy());
}

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}
