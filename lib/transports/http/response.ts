import { isAscii } from 'node:buffer';
import { STATUS_CODES, ServerResponse, type OutgoingHttpHeader, type OutgoingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import { HeldView, type Holder, type Look } from './held-view.js';
import {
  assertHints,
  assertSendable,
  bytesOf,
  headerPairs,
  trailerPairs,
  writeError,
  type Trailers,
} from './writing.js';

/** A response as it was about to leave. Header names are in lower case. */
export interface Answer {
  readonly status: number;
  /** Undefined or empty for the standard one. */
  readonly statusMessage?: string | undefined;
  readonly headers: OutgoingHttpHeaders;
  readonly trailers?: Trailers | undefined;
  readonly body: Buffer;
}

/** How a held response ended: with `end`, because its source or its writer gave up, or because it exceeds what is kept. */
export type HeldEnd = 'ended' | 'broken' | 'too-large';

type State = 'held' | HeldEnd | 'finished' | 'closed' | 'lost' | 'released' | 'delivered';

/** What a response shows in a state, and what its writers hear next. */
interface Stage {
  readonly shows: Pick<Look, 'ended' | 'finished' | 'closed'>;
  readonly next?: { readonly event: 'finish' | 'close'; readonly state: State };
}

const OPEN = { ended: false, finished: false, closed: false };
const BROKEN: Stage = { shows: OPEN, next: { event: 'close', state: 'lost' } };

/**
 * The life of a response as its writers see it while it is held: that of one that is sent. Let go, with an answer or
 * without, it is node's own again.
 */
const LIFE: Readonly<Record<State, Stage | undefined>> = {
  held: { shows: OPEN },
  ended: { shows: { ...OPEN, ended: true }, next: { event: 'finish', state: 'finished' } },
  finished: {
    shows: { ended: true, finished: true, closed: false },
    next: { event: 'close', state: 'closed' },
  },
  closed: { shows: { ended: true, finished: true, closed: true } },
  broken: BROKEN,
  'too-large': BROKEN,
  lost: { shows: { ...OPEN, closed: true } },
  released: undefined,
  delivered: undefined,
};

/** As node:http has it, and nobody has wrapped it. */
const END: unknown = Reflect.get(ServerResponse.prototype, 'end');
/**
 * Bytes of a body that leave in one write with the head: node:http puts both together where the body is text. Only ASCII is
 * sent so. Its bytes are the same whatever takes them for text, as adapters of serverless platforms do.
 */
const ONE_WRITE = 16_384;

/** With it a stream of HTTP/2 breaks off, and nobody on this side hears of an error (RFC 9113, section 7). */
const CANCEL = 0x8;

type Head = Pick<Answer, 'status' | 'statusMessage' | 'headers'>;
type Callback = (error?: Error) => void;

/**
 * Holds back everything written to a raw response until it is decided what the client gets.
 *
 * While it is held, the response looks to its writers as if it were being sent, and then as if it had been: what they wait for
 * comes, whatever is decided later. A client that goes away meanwhile is not noticed by them, because streams and
 * frameworks would stop half-way, and what the client asked for has an effect that a retry must find complete. Who listened
 * before, such as an access log, hears what really happens.
 */
export class HeldResponse implements Holder {
  #state: State = 'held';
  #end: HeldEnd | undefined;
  #head: Head | undefined;
  #answer: Answer | undefined;
  readonly #chunks: Buffer[] = [];
  #size = 0;
  /** Bytes that do not look sent yet, and those who wait for that. */
  #pending = 0;
  #callbacks: Callback[] | undefined;
  #needsDrain = false;
  /** Whether `end` came before anything else, so that node knows the length and needs no chunks. */
  #inOnePiece = false;
  #trailers: Trailers = [];
  #errored: Error | null | undefined = null;
  #sources: Readable[] | undefined;
  /** The arguments of the event by which the connection was seen to close. */
  #departed: readonly unknown[] | undefined;
  readonly #leavers = new Set<() => void>();
  readonly #view: HeldView;

  /** `onEnd` is called once, when nothing more is to be expected. */
  constructor(
    private readonly raw: ServerResponse,
    private readonly maxSize: number,
    private readonly onEnd: () => void,
  ) {
    this.#view = new HeldView(raw, this);
    this.#show();
  }

  /** Undefined while more may come. */
  get end(): HeldEnd | undefined {
    return this.#end;
  }

  /** Whether it looks as if its headers were sent, so that nobody can answer with another status any more. */
  get begun(): boolean {
    return this.#head !== undefined;
  }

  /** What was written so far, as the client would get it. */
  held(): Answer {
    if (this.#answer) return this.#answer;
    const head = this.#head ?? this.#currentHead();
    const [first] = this.#chunks;
    const body = first && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
    const answer = { ...head, trailers: this.#sentTrailers(head), body };
    if (this.#end !== undefined) this.#answer = answer;
    return answer;
  }

  /** Lets the response go without sending anything: from now on writers reach the client. */
  release(): void {
    this.#letGo('released');
  }

  /**
   * Sends an answer through whatever wrapped the response before it was held, such as compression. It never throws: an
   * answer that cannot be sent is replaced by the other, and where something of it is out already, the connection ends.
   *
   * @param own - Headers that are added, in lower case.
   * @param instead - What is sent when it cannot be; it is called then, with the reason.
   */
  deliver(answer: Answer, own: OutgoingHttpHeaders, instead: (cause: unknown) => Answer): void {
    try {
      this.#letGo('delivered');
      if (!this.#isGone) this.#send(answer, own);
    } catch (cause) {
      this.#recover(cause, instead);
    }
  }

  /** Has a function called when the client goes away, which nobody else hears of. */
  readonly onDeparture = (leave: () => void): (() => void) => {
    this.#leavers.add(leave);
    return () => void this.#leavers.delete(leave);
  };

  // What follows is done to the held response.

  get look(): Look | undefined {
    const shows = LIFE[this.#state]?.shows;
    if (!shows) return undefined;
    return {
      ...shows,
      begun: this.begun,
      destroyed: shows.closed || this.#end === 'broken' || this.#end === 'too-large',
      errored: this.#errored,
      pending: this.#pending,
      needsDrain: this.#needsDrain && !shows.ended,
    };
  }

  writeHead(status: number, rest: readonly unknown[]): ServerResponse {
    const { raw } = this;
    const { isHttp2 } = this.#view;
    if (this.#head) {
      // Node refuses it in its own words.
      if (!isHttp2) ServerResponse.prototype.writeHead.call(raw, status);
      if (this.look?.closed) return raw;
      throw writeError('ERR_HTTP2_HEADERS_SENT');
    }
    const reason = typeof rest[0] === 'string' ? rest[0] : undefined;
    if (!isHttp2) {
      assertSendable(status, reason);
      raw.statusCode = status;
    }
    if (reason !== undefined) raw.statusMessage = reason;
    for (const [name, value] of headerPairs(rest[1] ?? rest[0])) raw.setHeader(name, value);
    raw.statusCode = status;
    this.#begin();
    return raw;
  }

  /** From the first byte on, changes of status and headers no longer count. */
  flushHeaders(): void {
    // Whoever listens for the headers has wrapped the function that fixes them.
    if (!this.#head) this.raw.writeHead(this.raw.statusCode);
  }

  write(chunk: unknown, encoding: unknown, callback: unknown): boolean {
    const [coding, done] = typeof encoding === 'function' ? [undefined, encoding] : [encoding, callback];
    // Node looks at what it is given first, and HTTP/2 at whether it may be given anything.
    const first = this.#view.isHttp2 ? undefined : bytesOf(chunk, coding);
    if (this.#state !== 'held') return this.#refuse(done as Callback | undefined);
    this.flushHeaders();
    const bytes = first ?? bytesOf(chunk, coding);
    this.#checkLength(bytes.length, false);
    const goOn = this.#keep(bytes);
    (this.#callbacks ??= []).push((done as Callback | undefined) ?? (() => undefined));
    if (this.#callbacks.length === 1) setImmediate(() => this.#flush());
    return goOn;
  }

  endWith(...args: [chunk: unknown, encoding: unknown, callback: unknown]): ServerResponse {
    const callback = args.find((arg): arg is Callback => typeof arg === 'function');
    const [chunk, encoding] = args.map((arg) => (typeof arg === 'function' ? undefined : arg));
    const { isHttp2 } = this.#view;
    const hasChunk = isHttp2 ? chunk !== undefined && chunk !== null : Boolean(chunk);
    if (this.#state !== 'held') {
      this.#endAgain(hasChunk, callback);
      return this.raw;
    }
    const first = hasChunk && !isHttp2 ? bytesOf(chunk, encoding) : undefined;
    if (!this.#head) {
      this.#inOnePiece = true;
      this.flushHeaders();
    }
    const bytes = hasChunk ? (first ?? bytesOf(chunk, encoding)) : undefined;
    this.#checkLength(bytes?.length ?? 0, true);
    // The stream of HTTP/2 tells it, before the response does.
    if (callback) this.raw[isHttp2 ? 'prependOnceListener' : 'once']('finish', callback);
    if (bytes) this.#keep(bytes);
    if (this.#state === 'held') this.#finish('ended');
    return this.raw;
  }

  destroy(error?: unknown): ServerResponse | undefined {
    if (this.#state === 'held') {
      this.#errored = error as Error | undefined;
      this.#finish('broken');
    }
    return this.#view.isHttp2 ? undefined : this.raw;
  }

  emit(event: string | symbol, args: readonly unknown[]): boolean {
    const isKept =
      LIFE[this.#state] !== undefined && !this.#view.isTelling(event) && this.#keeps(event, args);
    return isKept || this.#view.emit(event, args);
  }

  announce(method: string, args: readonly unknown[]): unknown {
    const [hints] = args;
    if (method === 'createPushResponse') {
      const [, callback] = args as [unknown, Callback];
      process.nextTick(callback, writeError('ERR_HTTP2_PUSH_DISABLED'));
      return undefined;
    }
    if (method === 'writeEarlyHints') assertHints(hints);
    const callback = args.find((arg): arg is Callback => typeof arg === 'function');
    if (callback) process.nextTick(callback);
    return this.#view.isHttp2 ? !this.#head : undefined;
  }

  change(method: string, args: readonly unknown[]): unknown {
    if (method === 'addTrailers' || method === 'setTrailer') {
      const [first, value] = args;
      this.#addTrailers(trailerPairs(method === 'setTrailer' ? { [first as string]: value } : first));
      return undefined;
    }
    if (this.#head && typeof args[0] === 'string') throw writeError('ERR_HTTP2_HEADERS_SENT');
    return this.#view.call(method, args);
  }

  #begin(): void {
    if (!this.#view.isHttp2) this.raw.statusMessage ||= STATUS_CODES[this.raw.statusCode] ?? 'unknown';
    this.#head = this.#currentHead();
    this.#show();
  }

  /** Nothing that is written after the end ends the process, as it would where nobody listens for errors. */
  #endAgain(hasChunk: boolean, callback: Callback | undefined): void {
    if (this.#view.isHttp2) {
      if (callback) process.nextTick(callback);
    } else if (hasChunk) this.#refuse(callback);
    else if (callback && this.#state === 'ended') this.raw.once('finish', callback);
    else callback?.(writeError('ERR_STREAM_ALREADY_FINISHED'));
  }

  #refuse(callback: Callback | undefined): false {
    const wasEnded = this.#end === 'ended' && this.#state !== 'closed';
    const error = writeError(wasEnded ? 'ERR_STREAM_WRITE_AFTER_END' : 'ERR_STREAM_DESTROYED');
    process.nextTick(() => {
      callback?.(error);
      if (wasEnded && !this.#view.isHttp2 && this.raw.listenerCount('error') > 0)
        this.raw.emit('error', error);
    });
    return false;
  }

  #keep(bytes: Buffer): boolean {
    if (!this.#mayHaveBody()) return true;
    this.#size += bytes.length;
    if (this.#size > this.maxSize) {
      this.#chunks.length = 0;
      this.#errored = new Error(`the response exceeds ${this.maxSize} bytes`);
      this.#finish('too-large');
      return false;
    }
    if (bytes.length > 0) this.#chunks.push(bytes);
    this.#pending += bytes.length;
    this.#needsDrain ||= this.#pending > this.raw.writableHighWaterMark;
    return !this.#needsDrain;
  }

  /** A response takes no more than it can send, or sources that never pause would let nothing else run. */
  #flush(): void {
    const callbacks = this.#callbacks ?? [];
    this.#callbacks = undefined;
    this.#pending = 0;
    for (const callback of callbacks) callback();
    if (!this.#needsDrain) return;
    this.#needsDrain = false;
    if (this.#end === undefined) this.raw.emit('drain');
  }

  #finish(end: HeldEnd): void {
    this.#end = this.#state = end;
    this.#show();
    if (end === 'too-large') for (const source of this.#sources ?? []) source.destroy();
    if (end === 'ended' && !this.#view.isHttp2) this.#view.tell('prefinish');
    setImmediate(() => this.#advance());
    this.onEnd();
  }

  /** To the next state in the life that writers see, and on. */
  #advance(): void {
    const next = LIFE[this.#state]?.next;
    if (!next) return;
    this.#state = next.state;
    this.#pending = 0;
    this.#show();
    try {
      this.#view.tell(next.event);
    } finally {
      process.nextTick(() => this.#advance());
    }
  }

  #show(): void {
    const { look } = this;
    if (look) this.#view.show(look);
  }

  /** Whether an event of the connection is kept from everybody until the response is let go. */
  #keeps(event: string | symbol, args: readonly unknown[]): boolean {
    if (event === 'pipe') this.#watch(args[0] as Readable);
    if (event === 'close') {
      this.#departed = args;
      this.#show();
      for (const leave of this.#leavers) leave();
    }
    return event === 'close' || event === 'finish';
  }

  /** A source that fails or closes early leaves a body that only looks complete, whatever is written afterwards. */
  #watch(source: Readable): void {
    const onGone = (): void => {
      if (!source.readableEnded && this.#state === 'held') this.#finish('broken');
    };
    source.once('error', onGone);
    source.once('close', onGone);
    (this.#sources ??= []).push(source);
  }

  #addTrailers(trailers: Trailers): void {
    this.#trailers = [...this.#trailers, ...trailers];
  }

  /** Where node knows the length there are no chunks, and trailers are left out. */
  #sentTrailers({ headers }: Head): Trailers | undefined {
    if (this.#trailers.length === 0) return undefined;
    const hasLength = this.#inOnePiece || 'content-length' in headers;
    return this.#view.isHttp2 || isChunked(headers) || !hasLength ? this.#trailers : undefined;
  }

  #currentHead(): Head {
    const { raw } = this;
    // HTTP/2 has none, and warns of whoever looks for it.
    const statusMessage = this.#view.isHttp2 ? undefined : raw.statusMessage;
    return { status: raw.statusCode, statusMessage, headers: raw.getHeaders() };
  }

  #mayHaveBody(): boolean {
    return this.raw.req.method !== 'HEAD' && mayHaveBody(this.#head?.status ?? 200);
  }

  /** As node does where it is told to be strict. */
  #checkLength(added: number, isLast: boolean): void {
    const said = this.raw.strictContentLength && this.#head?.headers['content-length'];
    if (said === undefined || said === false || !this.#mayHaveBody()) return;
    const size = this.#size + added;
    if (isLast ? size === Number(said) : size <= Number(said)) return;
    throw writeError('ERR_HTTP_CONTENT_LENGTH_MISMATCH', size, Number(said));
  }

  #letGo(state: 'released' | 'delivered'): void {
    const isHeld = LIFE[this.#state] !== undefined;
    this.#state = state;
    if (!isHeld) return;
    if (this.#callbacks) process.nextTick(() => this.#flush());
    this.#view.giveBack(this.#departed !== undefined);
    if (this.#departed) this.raw.emit('close', ...this.#departed);
  }

  get #isGone(): boolean {
    if (this.#departed) return true;
    const { destroyed, stream } = this.raw as { destroyed?: boolean; stream?: { destroyed?: boolean } };
    return this.#view.isHttp2 ? stream?.destroyed === true : destroyed === true;
  }

  #send(answer: Answer, own: OutgoingHttpHeaders): void {
    const { raw } = this;
    // Those of the held response are there already.
    if (answer !== this.#answer) this.#setHeaders(answer.headers);
    for (const name in own) raw.setHeader(name, own[name] as OutgoingHttpHeader);
    this.#frame(answer);
    raw.statusCode = answer.status;
    // That of the held response must not stay; without one Node takes the standard one.
    if (!this.#view.isHttp2) raw.statusMessage = answer.statusMessage ?? '';
    const { body } = answer;
    if (body.length === 0) raw.end();
    else if (raw.end === END && body.length <= ONE_WRITE && isAscii(body))
      raw.end(body.toString('latin1'), 'latin1');
    else raw.end(body);
  }

  /** Said here because node:http sends chunks once a length has been removed, as it is when a placeholder's headers go. */
  #frame({ status, headers, trailers, body }: Answer): void {
    const { raw } = this;
    if (raw.req.method === 'HEAD' || !mayHaveBody(status)) return;
    if (!trailers && !isChunked(headers)) {
      if (String(raw.getHeader('content-length')) !== String(body.length))
        raw.setHeader('content-length', body.length);
      return;
    }
    raw.removeHeader('content-length');
    if (!trailers) return;
    if (!this.#view.isHttp2 && !isChunked(headers)) raw.setHeader('transfer-encoding', 'chunked');
    raw.addTrailers(this.#view.isHttp2 ? Object.fromEntries(trailers) : (trailers as [string, string][]));
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

  #recover(cause: unknown, instead: (cause: unknown) => Answer): void {
    const { raw } = this;
    try {
      const { status, headers, body } = instead(cause);
      // What threw behind the end of it has not harmed it.
      if (raw.writableEnded) return;
      if (!raw.headersSent) {
        for (const name of raw.getHeaderNames()) raw.removeHeader(name);
        // Not through what wraps the response, which has just failed.
        this.#view.call('writeHead', [status, { ...headers, 'content-length': body.length }]);
        this.#view.call('end', [body]);
        return;
      }
    } catch {
      // Nothing can be answered any more.
    }
    this.#breakOff();
  }

  /** So that the client does not take for whole what it has. */
  #breakOff(): void {
    const { stream } = this.raw as { stream?: { close(code: number): void } };
    if (this.#view.isHttp2) stream?.close(CANCEL);
    else this.raw.destroy();
  }
}

/** Of a response that nobody holds: has a function called when its client goes away. */
export function departureOf(raw: ServerResponse): (leave: () => void) => () => void {
  return (leave) => {
    const { closed, stream } = raw as { closed?: boolean; stream?: { destroyed?: boolean } };
    if (closed || stream?.destroyed) process.nextTick(leave);
    raw.once('close', leave);
    return () => raw.removeListener('close', leave);
  };
}

function mayHaveBody(status: number): boolean {
  return status >= 200 && status !== 204 && status !== 304;
}

/** Trailers are announced only where chunks are sent. */
function isChunked(headers: OutgoingHttpHeaders): boolean {
  return 'transfer-encoding' in headers || 'trailer' in headers;
}

function isSame(one: OutgoingHttpHeader | undefined, other: OutgoingHttpHeader): boolean {
  return one === other || (Array.isArray(one) && isDeepStrictEqual(one, other));
}
