import { request as startHttpRequest, type Agent, type IncomingMessage } from 'node:http';

/** A response, byte for byte as it came. */
export interface HttpResponse {
  readonly status: number;
  readonly statusMessage: string;
  /** Names in lower case; an array where a header came in several lines. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Names and values alternating, in the order and the case in which they came. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  /** The body as UTF-8. */
  readonly text: string;
  /** The body parsed as JSON. */
  json(): unknown;
}

/** Header lines: an array value, or pairs of the same name, are sent as lines of their own. */
export type HttpRequestHeaders =
  Readonly<Record<string, string | readonly string[]>> | readonly (readonly [name: string, value: string])[];

/** What to send, and how. */
export interface HttpRequestOptions {
  /** Default `GET`. */
  readonly method?: string;
  readonly headers?: HttpRequestHeaders;
  readonly body?: string | Buffer;
  /** Without an agent each request has a connection of its own, which is closed after it. */
  readonly agent?: Agent;
  /** Breaks the connection off when the promise resolves, or when the predicate on received body bytes holds. */
  readonly abortAfter?: Promise<unknown> | ((receivedBytes: number) => boolean);
}

/** A request on its way. */
export interface HttpRequestInFlight {
  /** Rejects when the connection breaks before the response is complete. */
  readonly response: Promise<HttpResponse>;
  /** Resolves with the status when the head of the response is there. */
  readonly head: Promise<number>;
  /** Breaks the connection off. */
  destroy(): void;
}

/** Sends a request, and resolves with the complete response. */
export async function sendRequest(url: string, options: HttpRequestOptions = {}): Promise<HttpResponse> {
  return startRequest(url, options).response;
}

/** Sends JSON; a Buffer is sent as it is. By default by `POST`, and as `application/json`. */
export async function postJson(
  url: string,
  body: unknown,
  headers: HttpRequestHeaders = {},
  options: Omit<HttpRequestOptions, 'body' | 'headers'> = {},
): Promise<HttpResponse> {
  const lines = headerLines(headers);
  if (!lines.some(([name]) => name.toLowerCase() === 'content-type'))
    lines.push(['Content-Type', 'application/json']);
  const bytes = Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return sendRequest(url, { method: 'POST', ...options, headers: lines, body: bytes });
}

/** Sends a request that the caller can break off. */
export function startRequest(url: string, options: HttpRequestOptions = {}): HttpRequestInFlight {
  const { method = 'GET', agent = false, body, abortAfter } = options;
  const request = startHttpRequest(url, { method, agent });
  for (const [name, value] of headerLines(options.headers ?? {})) request.appendHeader(name, value);
  if (body !== undefined) request.setHeader('Content-Length', Buffer.byteLength(body));
  const head = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
    request.once('close', () => reject(new Error('The connection closed before the response')));
  });
  const response = head.then((message) => receive(message, abortAfter));
  const status = head.then(({ statusCode }) => statusCode ?? 0);
  // A caller that breaks off need not look at either promise; whoever does look still sees the rejection.
  response.catch(() => undefined);
  status.catch(() => undefined);
  if (typeof abortAfter === 'object') void abortAfter.then(() => request.destroy());
  request.end(body);
  return { response, head: status, destroy: () => void request.destroy() };
}

async function receive(
  message: IncomingMessage,
  abortAfter: HttpRequestOptions['abortAfter'],
): Promise<HttpResponse> {
  const chunks: Buffer[] = [];
  let received = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    received += chunk.length;
    if (typeof abortAfter === 'function' && abortAfter(received)) throw new Error('Aborted by the test');
  }
  const body = Buffer.concat(chunks);
  return {
    status: message.statusCode ?? 0,
    statusMessage: message.statusMessage ?? '',
    headers: collapse(message.headersDistinct),
    rawHeaders: message.rawHeaders,
    body,
    text: body.toString('utf8'),
    json: (): unknown => JSON.parse(body.toString('utf8')),
  };
}

function headerLines(headers: HttpRequestHeaders): (readonly [string, string])[] {
  if (isPairs(headers)) return [...headers];
  return Object.entries(headers).flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : value).map((line) => [name, line] as const),
  );
}

function isPairs(headers: HttpRequestHeaders): headers is readonly (readonly [string, string])[] {
  return Array.isArray(headers);
}

function collapse(distinct: NodeJS.Dict<string[]>): Record<string, string | string[] | undefined> {
  return Object.fromEntries(
    Object.entries(distinct).map(([name, lines]) => [name, lines?.length === 1 ? lines[0] : lines]),
  );
}
