import { isAscii } from 'node:buffer';
import { ServerResponse, type OutgoingHttpHeader, type OutgoingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import { hold, restore, type ResponseHolder, type Wrappers } from './held-response.js';

/** A response as it was about to leave. Header names are in lower case. */
export interface Answer {
  readonly status: number;
  readonly statusMessage?: string | undefined;
  readonly headers: OutgoingHttpHeaders;
  readonly body: Buffer;
}

/** How the held response ended: with `end`, or because its source or its writer gave up. */
export type HeldEnd = 'ended' | 'broken';

/** As node:http has it, and nobody has wrapped it. */
const END: unknown = Reflect.get(ServerResponse.prototype, 'end');
/**
 * Bytes of a body that leave in one write with the head: node:http puts both together where the body is text. Only ASCII is
 * sent so. Its bytes are the same whatever takes them for text, as adapters of serverless platforms do.
 */
const ONE_WRITE = 16_384;

type Head = Pick<Answer, 'status' | 'statusMessage' | 'headers'>;
type Callback = () => void;
type Emit = (this: ServerResponse, event: string | symbol, ...args: unknown[]) => boolean;

/**
 * Holds back everything written to a raw response until it is decided what the client gets.
 *
 * While it is held, the response looks to its writers as if it were being sent: headers are sent from the first byte,
 * and it is ended from `end` on. A client that goes away meanwhile is not noticed by the writers, because streams and
 * frameworks would stop half-way, and what the client asked for has an effect that a retry must find complete.
 */
export class ResponseRecorder implements ResponseHolder {
  readonly #chunks: Buffer[] = [];
  readonly #wrappers: Wrappers;
  readonly #emit: Emit;
  #size = 0;
  #head: Head | undefined;
  #end: HeldEnd | undefined;
  #closed: unknown[] | undefined;
  /** Marks of a closed connection that are not shown. */
  readonly #hidden: string[] = [];
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
    this.#emit = Reflect.get(raw, 'emit') as Emit;
    this.#wrappers = hold(raw, this);
    this.#hideClosing();
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
    const { status, statusMessage, headers } = this.#head ?? this.#currentHead();
    const [first] = this.#chunks;
    const body = first && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
    return { status, statusMessage, headers, body };
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
    restore(this.raw, this.#wrappers);
    for (const name of this.#hidden) Reflect.set(this.raw, name, true);
    if (this.#closed) this.raw.emit('close', ...this.#closed);
  }

  /** Sends an answer through whatever wrapped the response before it was held, such as compression. */
  send({ status, statusMessage, headers, body }: Answer): void {
    const isClientGone = this.#closed !== undefined;
    this.letGo();
    if (isClientGone) return;
    this.#setHeaders({ ...framing(status, headers, body), ...headers });
    this.raw.statusCode = status;
    // That of the held response must not stay; without one Node takes the standard one.
    this.raw.statusMessage = statusMessage ?? '';
    if (body.length === 0) this.raw.end();
    else if (this.raw.end === END && body.length <= ONE_WRITE && isAscii(body))
      this.raw.end(body.toString('latin1'), 'latin1');
    else this.raw.end(body);
  }

  // What follows is done to the held response.

  get headersSent(): boolean {
    return this.begun;
  }

  get writableEnded(): boolean {
    return this.#end !== undefined;
  }

  writeHead(status: number, rest: unknown[]): ServerResponse {
    if (this.#head) return this.raw;
    this.raw.statusCode = status;
    if (typeof rest[0] === 'string') this.raw.statusMessage = rest[0];
    for (const [name, value] of headerPairs(rest[1] ?? rest[0])) this.raw.setHeader(name, value);
    this.flushHeaders();
    return this.raw;
  }

  /** From the first byte on, changes of status and headers no longer count. */
  flushHeaders(): void {
    this.#head ??= this.#currentHead();
  }

  write(args: unknown[]): boolean {
    const callback = callbackOf(args);
    this.#keep(args);
    if (callback) process.nextTick(callback);
    return true;
  }

  endWith(args: unknown[]): ServerResponse {
    const callback = callbackOf(args);
    if (callback) this.raw.once('finish', callback);
    this.#keep(args);
    return this.#finish('ended');
  }

  destroy(): ServerResponse {
    return this.#finish('broken');
  }

  emit(event: string | symbol, args: unknown[]): boolean {
    if (this.#holding && event === 'close') {
      this.#closed = args;
      this.#hideClosing();
      return true;
    }
    if (this.#holding && event === 'pipe') this.#watch(args[0] as Readable);
    return this.#emit.call(this.raw, event, ...args);
  }

  /** Only what differs is touched, so that what stays keeps the case of its name. */
  #setHeaders(wanted: OutgoingHttpHeaders): void {
    const { raw } = this;
    const present = raw.getHeaders();
    for (const name in present) {
      if (!(name in wanted)) raw.removeHeader(name);
    }
    for (const name in wanted) {
      const value = wanted[name];
      if (value === undefined) raw.removeHeader(name);
      else if (!isSame(present[name], value)) raw.setHeader(name, value);
    }
  }

  /** node:http sets these on the response itself, just before it emits `close`. */
  #hideClosing(): void {
    for (const name of ['destroyed', '_closed']) {
      if (!Object.hasOwn(this.raw, name) || Reflect.get(this.raw, name) !== true) continue;
      this.#hidden.push(name);
      Reflect.set(this.raw, name, false);
    }
  }

  #currentHead(): Head {
    const { statusCode: status, statusMessage } = this.raw;
    return { status, statusMessage, headers: this.raw.getHeaders() };
  }

  #keep([chunk, encoding]: unknown[]): void {
    if (this.#end !== undefined) return;
    this.flushHeaders();
    const bytes = bytesOf(chunk, encoding);
    if (!bytes) return;
    this.#size += bytes.length;
    if (this.tooLarge) this.#chunks.length = 0;
    else this.#chunks.push(bytes);
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
  // Trailers need chunks, too.
  const isChunked = 'transfer-encoding' in headers || 'trailer' in headers;
  return hasNoBody || isChunked ? {} : { 'content-length': body.length };
}

function isSame(one: OutgoingHttpHeader | undefined, other: OutgoingHttpHeader): boolean {
  return one === other || (Array.isArray(one) && isDeepStrictEqual(one, other));
}

/** `write` and `end` may be called without a chunk, and without an encoding. */
function callbackOf(args: unknown[]): Callback | undefined {
  return args.find((arg): arg is Callback => typeof arg === 'function');
}

function bytesOf(chunk: unknown, encoding: unknown): Buffer | undefined {
  if (typeof chunk === 'string') {
    return Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8');
  }
  // A copy: the writer may reuse its buffer while it is held here.
  return chunk instanceof Uint8Array ? Buffer.from(chunk) : undefined;
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
