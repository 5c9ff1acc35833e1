import { OutgoingMessage, ServerResponse, type OutgoingHttpHeader } from 'node:http';

/** Fields that follow the body (RFC 9110, section 6.5), in the order in which they were added. */
export type Trailers = readonly (readonly [name: string, value: string])[];

/** What was written to a held response, and how much of it does not look sent yet. */
export class Written {
  /** Behind the body. */
  trailers: Trailers = [];
  size = 0;
  pending = 0;
  needsDrain = false;
  readonly #chunks: Buffer[] = [];
  #callbacks: (() => void)[] | undefined;

  constructor(private readonly maxSize: number) {}

  get isTooLarge(): boolean {
    return this.size > this.maxSize;
  }

  get body(): Buffer {
    const [first] = this.#chunks;
    return first && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
  }

  /** Whether somebody waits for a {@link flush}. */
  get isAwaited(): boolean {
    return this.#callbacks !== undefined;
  }

  /** HTTP/2 keeps those of other names, and node:http only those of the last call. */
  setTrailers(added: Trailers, isHttp2: boolean): void {
    const names = new Set(added.map(([name]) => name.toLowerCase()));
    const kept = isHttp2 ? this.trailers.filter(([name]) => !names.has(name.toLowerCase())) : [];
    this.trailers = [...kept, ...added];
  }

  /** False for a writer that is to wait: what never paused would let nothing else run. */
  add(bytes: Buffer, highWaterMark: number): boolean {
    this.size += bytes.length;
    this.pending += bytes.length;
    if (this.isTooLarge) this.#chunks.length = 0;
    else if (bytes.length > 0) this.#chunks.push(bytes);
    this.needsDrain ||= this.pending > highWaterMark;
    return !this.needsDrain;
  }

  /** @throws what node throws, for a body that is not, or will not be, as long as was said. */
  assertLength(said: number, added: number, isLast: boolean): void {
    const size = this.size + added;
    if (isLast ? size !== said : size > said)
      throw writeError('ERR_HTTP_CONTENT_LENGTH_MISMATCH', size, said);
  }

  /** Whether it is the first since the last {@link flush}, for which somebody has to call that. */
  later(callback: () => void): boolean {
    this.#callbacks ??= [];
    return this.#callbacks.push(callback) === 1;
  }

  /** From now on all of it looks sent. Whether somebody waits for that. */
  flush(): boolean {
    const callbacks = this.#callbacks ?? [];
    this.#callbacks = undefined;
    this.pending = 0;
    for (const callback of callbacks) callback();
    const isAwaited = this.needsDrain;
    this.needsDrain = false;
    return isAwaited;
  }
}

/** The bytes of a chunk. A copy: the writer may reuse its buffer while it is held here. */
export function bytesOf(chunk: unknown, encoding: unknown): Buffer {
  if (typeof chunk === 'string') {
    return Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8');
  }
  if (chunk instanceof Uint8Array) return Buffer.from(chunk);
  // What node refuses is refused in its own words. This message has no socket, and nothing of it goes anywhere.
  new OutgoingMessage().write(chunk);
  throw new TypeError('the chunk is neither text nor bytes');
}

/**
 * The headers given to `writeHead`: an object, pairs, or names and values in turn.
 *
 * @throws what node throws, for a list of odd length.
 */
export function headerPairs(headers: unknown): [string, OutgoingHttpHeader][] {
  if (typeof headers !== 'object' || headers === null) return [];
  if (!Array.isArray(headers)) return Object.entries(headers) as [string, OutgoingHttpHeader][];
  const flat: unknown[] = Array.isArray(headers[0]) ? headers.flat() : headers;
  if (flat.length % 2 !== 0) spare().writeHead(200, flat as string[]);
  const pairs = new Map<string, string[]>();
  for (let index = 0; index + 1 < flat.length; index += 2) {
    const name = String(flat[index]).toLowerCase();
    pairs.set(name, [...(pairs.get(name) ?? []), ...[flat[index + 1]].flat().map(String)]);
  }
  return [...pairs].map(([name, values]) => [name, values.length === 1 ? String(values[0]) : values]);
}

/** @throws what node throws, for a name or a value that HTTP does not allow. */
export function trailerPairs(trailers: unknown): Trailers {
  new OutgoingMessage().addTrailers(trailers as Record<string, string>);
  const pairs = (Array.isArray(trailers) ? trailers : Object.entries(trailers as object)) as [
    string,
    unknown,
  ][];
  return pairs.flatMap(([name, value]) => [value].flat().map((each) => [name, String(each)] as const));
}

/** @throws what node throws, for a status or a reason that HTTP does not allow. */
export function assertSendable(status: number, reason: string | undefined): void {
  const isSendable = status >= 100 && status <= 999 && Number.isInteger(status);
  if (!isSendable || reason) spare().writeHead(status, reason);
}

/**
 * Does nothing of what would leave before the answer, as early hints do; whoever waits for it goes on.
 *
 * @throws what node throws: for hints that it refuses, and in some releases once the head of HTTP/1 looks sent.
 */
export function leaveOut(method: string, args: readonly unknown[], isSent: boolean): void {
  const callback = args.find((arg): arg is (error?: Error) => void => typeof arg === 'function');
  const isPush = method === 'createPushResponse';
  if (isPush && !callback) throw writeError('ERR_INVALID_ARG_TYPE');
  const message = spare();
  if (isSent) Object.assign(message, { _header: 'sent' });
  const own = Reflect.get(message, method) as ((...args: unknown[]) => unknown) | undefined;
  if (own) Reflect.apply(own, message, args.slice(0, method === 'writeProcessing' ? 0 : 1));
  if (callback) process.nextTick(callback, isPush ? writeError('ERR_HTTP2_PUSH_DISABLED') : undefined);
}

/** An error as node gives it. */
export function writeError(code: keyof typeof MESSAGES, ...facts: number[]): Error & { code: string } {
  const message = MESSAGES[code](...(facts as [number, number]));
  return Object.assign(new Error(message), { code });
}

const MESSAGES = {
  ERR_STREAM_WRITE_AFTER_END: () => 'write after end',
  ERR_STREAM_DESTROYED: () => 'Cannot call write after a stream was destroyed',
  ERR_STREAM_ALREADY_FINISHED: () => 'Cannot call end after a stream was finished',
  ERR_INVALID_ARG_TYPE: () => 'The "callback" argument must be of type function.',
  ERR_HTTP2_PUSH_DISABLED: () => 'HTTP/2 client has disabled push streams',
  ERR_HTTP2_HEADERS_SENT: () => 'Response has already been initiated.',
  ERR_HTTP_CONTENT_LENGTH_MISMATCH: (has: number, says: number) =>
    `Response body's content-length of ${has} byte(s) does not match the content-length of ${says} byte(s) set in header`,
};

/** A response without a socket, of which nothing goes anywhere: for what node says of its arguments. */
function spare(): ServerResponse {
  return new ServerResponse({ method: 'POST' } as ConstructorParameters<typeof ServerResponse>[0]);
}
