import type { OutgoingHttpHeader, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';

/** A response as it was about to leave. Header names are in lower case. */
export interface Answer {
  readonly status: number;
  readonly statusMessage?: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: Buffer;
}

/** How the held response ended: with `end`, or because its source or its writer gave up. */
export type HeldEnd = 'ended' | 'broken';

type Head = Pick<Answer, 'status' | 'statusMessage' | 'headers'>;
type Callback = () => void;

/**
 * Holds back everything written to a raw response until it is decided what the client gets.
 *
 * While it is held, the response looks to its writers as if it were being sent: headers are sent from the first byte,
 * and it is ended from `end` on. A client that goes away meanwhile is not noticed by the writers, because streams and
 * frameworks would stop half-way, and what the client asked for has an effect that a retry must find complete.
 */
export class ResponseRecorder {
  readonly #chunks: Buffer[] = [];
  readonly #saved = new Map<PropertyKey, PropertyDescriptor | undefined>();
  #size = 0;
  #head: Head | undefined;
  #end: HeldEnd | undefined;
  #closed: unknown[] | undefined;
  #holding = true;
  /** Those who waited for the response before it was held hear of it when it is sent. */
  readonly #observers: readonly unknown[];

  /** `onEnd` is called once, when nothing more is to be expected. */
  constructor(
    private readonly raw: ServerResponse,
    private readonly maxSize: number,
    private readonly onEnd: () => void,
  ) {
    this.#observers = raw.rawListeners('finish');
    this.#hold();
  }

  /** Undefined while more may come. */
  get end(): HeldEnd | undefined {
    return this.#end;
  }

  /** Whether it looks as if its headers were sent, so that nobody can answer with another status any more. */
  get begun(): boolean {
    return this.#head !== undefined;
  }

  /** Whether the body is larger than can be kept; its bytes are gone. */
  get tooLarge(): boolean {
    return this.#size > this.maxSize;
  }

  /** What was written so far, as the client would get it. */
  held(): Answer {
    return { ...(this.#head ?? this.#currentHead()), body: Buffer.concat(this.#chunks) };
  }

  /**
   * Tells writers that the held response was sent. A handler that waits for it, as the promise of a stream pipeline
   * does, would otherwise wait for its own end.
   */
  tellWriters(): void {
    for (const listener of this.raw.rawListeners('finish') as Callback[]) {
      if (this.#observers.includes(listener)) continue;
      this.raw.removeListener('finish', listener);
      listener.call(this.raw);
    }
  }

  /** Lets the response go without sending anything: from now on writers reach the client. */
  letGo(): void {
    if (!this.#holding) return;
    this.#holding = false;
    for (const [name, descriptor] of this.#saved) {
      if (descriptor) Object.defineProperty(this.raw, name, descriptor);
      else Reflect.deleteProperty(this.raw, name);
    }
    if (this.#closed) this.raw.emit('close', ...this.#closed);
  }

  /** Sends an answer through whatever wrapped the response before it was held, such as compression. */
  send({ status, statusMessage, headers, body }: Answer): void {
    const isClientGone = this.#closed !== undefined;
    this.letGo();
    if (isClientGone) return;
    const complete = { ...framing(status, headers, body), ...headers };
    for (const name of this.raw.getHeaderNames()) {
      if (!(name in complete)) this.raw.removeHeader(name);
    }
    for (const [name, value] of Object.entries(complete)) {
      if (value === undefined) this.raw.removeHeader(name);
      else if (this.raw.getHeader(name) !== value) this.raw.setHeader(name, value);
    }
    this.raw.statusCode = status;
    // That of the held response must not stay; without one Node takes the standard one.
    this.raw.statusMessage = statusMessage ?? '';
    if (body.length > 0) this.raw.end(body);
    else this.raw.end();
  }

  #hold(): void {
    const { raw } = this;
    const emit = raw.emit.bind(raw) as (event: string | symbol, ...args: unknown[]) => boolean;
    this.#replace('writeHead', (status: number, ...rest: unknown[]) => this.#writeHead(status, rest));
    this.#replace('flushHeaders', () => {
      this.#fixHead();
    });
    this.#replace('write', (...args: unknown[]) => this.#write(args));
    this.#replace('end', (...args: unknown[]) => this.#endResponse(args));
    this.#replace('destroy', () => this.#finish('broken'));
    this.#replace('emit', (event: string | symbol, ...args: unknown[]) => {
      if (event === 'close') {
        this.#closed = args;
        return true;
      }
      if (event === 'pipe') this.#watch(args[0] as Readable);
      return emit(event, ...args);
    });
    this.#pretend('headersSent', () => this.#head !== undefined);
    this.#pretend('writableEnded', () => this.#end !== undefined);
    // node:http sets these on the response itself when the connection closes.
    for (const name of ['destroyed', '_closed']) {
      if (Object.hasOwn(raw, name)) this.#pretend(name, () => false);
    }
  }

  #replace(name: string, value: unknown): void {
    this.#saved.set(name, Object.getOwnPropertyDescriptor(this.raw, name));
    Object.defineProperty(this.raw, name, { value, writable: true, configurable: true });
  }

  #pretend(name: string, get: () => unknown): void {
    const saved = Object.getOwnPropertyDescriptor(this.raw, name);
    this.#saved.set(name, saved);
    const set = (value: unknown): void => {
      if (saved) saved.value = value;
    };
    Object.defineProperty(this.raw, name, { get, set, configurable: true });
  }

  #currentHead(): Head {
    const { statusCode: status, statusMessage } = this.raw;
    return { status, statusMessage, headers: { ...this.raw.getHeaders() } };
  }

  /** From the first byte on, changes of status and headers no longer count. */
  #fixHead(): void {
    this.#head ??= this.#currentHead();
  }

  #writeHead(status: number, rest: unknown[]): ServerResponse {
    if (this.#head) return this.raw;
    this.raw.statusCode = status;
    if (typeof rest[0] === 'string') this.raw.statusMessage = rest[0];
    for (const [name, value] of headerPairs(rest[1] ?? rest[0])) this.raw.setHeader(name, value);
    this.#fixHead();
    return this.raw;
  }

  #write(args: unknown[]): boolean {
    const { chunk, callback } = writeArguments(args);
    if (this.#end === undefined) {
      this.#fixHead();
      if (chunk) this.#keep(chunk);
    }
    if (callback) process.nextTick(callback);
    return true;
  }

  #endResponse(args: unknown[]): ServerResponse {
    const { chunk, callback } = writeArguments(args);
    if (callback) this.raw.once('finish', callback);
    if (this.#end === undefined) {
      this.#fixHead();
      if (chunk) this.#keep(chunk);
    }
    return this.#finish('ended');
  }

  #keep(chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.tooLarge) this.#chunks.length = 0;
    else this.#chunks.push(chunk);
  }

  #finish(end: HeldEnd): ServerResponse {
    if (this.#end === undefined) {
      this.#end = end;
      this.onEnd();
    }
    return this.raw;
  }

  /** A source that fails or closes early leaves a body that only looks complete, whatever is written afterwards. */
  #watch(source: Readable): void {
    const onGone = (): void => {
      if (!source.readableEnded && this.#holding) this.#finish('broken');
    };
    source.once('error', onGone);
    source.once('close', onGone);
  }
}

/** Said here because node:http sends chunks once a length has been removed, as it is when a placeholder's headers go. */
function framing(status: number, headers: OutgoingHttpHeaders, body: Buffer): OutgoingHttpHeaders {
  const hasNoBody = status < 200 || status === 204 || status === 304;
  return hasNoBody || 'transfer-encoding' in headers ? {} : { 'content-length': body.length };
}

/** The arguments of `write` and `end`, in all their forms. */
function writeArguments(args: unknown[]): { chunk: Buffer | undefined; callback: Callback | undefined } {
  const callback = args.find((arg): arg is Callback => typeof arg === 'function');
  const [chunk, encoding] = args;
  if (typeof chunk === 'string') {
    return {
      chunk: Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8'),
      callback,
    };
  }
  // A copy: the writer may reuse its buffer while it is held here.
  return { chunk: chunk instanceof Uint8Array ? Buffer.from(chunk) : undefined, callback };
}

/** The headers given to `writeHead`: an object, pairs, or names and values in turn. */
function headerPairs(headers: unknown): [string, OutgoingHttpHeader][] {
  if (typeof headers !== 'object' || headers === null) return [];
  if (!Array.isArray(headers)) {
    return Object.entries(headers as OutgoingHttpHeaders).filter(
      (pair): pair is [string, OutgoingHttpHeader] => {
        return pair[1] !== undefined;
      },
    );
  }
  const flat: unknown[] = Array.isArray(headers[0]) ? headers.flat() : headers;
  const pairs = new Map<string, string[]>();
  for (let index = 0; index + 1 < flat.length; index += 2) {
    const name = String(flat[index]).toLowerCase();
    pairs.set(name, [...(pairs.get(name) ?? []), ...[flat[index + 1]].flat().map(String)]);
  }
  return [...pairs].map(([name, values]) => [name, values.length === 1 ? String(values[0]) : values]);
}
