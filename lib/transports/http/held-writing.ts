import { STATUS_CODES, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { isChunked, mayHaveBody, type Answer } from './delivery.js';
import { HeldView } from './held-view.js';
import { LIFE, type HeldEnd, type State } from './life.js';
import { Sources } from './sources.js';
import type { Holder, Look } from './wires.js';
import {
  assertSendable,
  bytesOf,
  headerPairs,
  leaveOut,
  trailerPairs,
  writeError,
  Written,
  type Trailers,
} from './written.js';

type Head = Pick<Answer, 'status' | 'statusMessage' | 'headers'>;
type Callback = (error?: Error) => void;

/** What the writers of a held response do, and what they see and hear of it. */
export class HeldWriting implements Holder, Look {
  #state: State = 'held';
  #end: HeldEnd | undefined;
  #head: Head | undefined;
  readonly #written: Written;
  /** Whether `end` came before anything else, so that node knows the length and needs no chunks. */
  #inOnePiece = false;
  errored: Error | null | undefined = null;
  #sources: Sources | undefined;
  /** The arguments of the event by which the connection was seen to close. */
  departed: readonly unknown[] | undefined;
  leavers: Set<() => void> | undefined;
  readonly view: HeldView;

  /** `onEnd` is called once, when nothing more is to be expected. */
  constructor(
    private readonly raw: ServerResponse,
    maxSize: number,
    private readonly onEnd: () => void,
  ) {
    this.#written = new Written(maxSize);
    this.view = new HeldView(raw, this);
    this.#show();
  }

  /** Undefined while more may come. */
  get end(): HeldEnd | undefined {
    return this.#end;
  }

  get begun(): boolean {
    return this.#head !== undefined;
  }

  /** What was written so far, as the client would get it. */
  answer(): Answer {
    const head = this.#head ?? this.#currentHead();
    return { ...head, trailers: this.#sentTrailers(head), body: this.#written.body };
  }

  /** From now on writers reach the client, and who waits hears whether it is gone. */
  letGo(state: 'released' | 'delivered'): void {
    const isHeld = LIFE[this.#state] !== undefined;
    this.#state = state;
    if (!isHeld) return;
    if (this.#written.isAwaited) process.nextTick(() => this.#flush());
    this.view.giveBack(this.departed !== undefined);
    if (!this.departed) return;
    // HTTP/2 tells both, however it ends.
    if (this.view.isHttp2) this.raw.emit('finish');
    this.raw.emit('close', ...this.departed);
  }

  /** Itself, which is asked often: an object for each answer would be most of what a hold costs. */
  get look(): Look | undefined {
    return LIFE[this.#state] && this;
  }

  get ended(): boolean {
    return LIFE[this.#state]?.shows.ended ?? false;
  }

  get finished(): boolean {
    return LIFE[this.#state]?.shows.finished ?? false;
  }

  get closed(): boolean {
    return LIFE[this.#state]?.shows.closed ?? false;
  }

  get destroyed(): boolean {
    return this.closed || this.#end === 'broken' || this.#end === 'too-large';
  }

  get pending(): number {
    return this.#written.pending;
  }

  get needsDrain(): boolean {
    return this.#written.needsDrain && !this.ended;
  }

  writeHead(status: number, rest: readonly unknown[]): ServerResponse {
    const { raw } = this;
    const { isHttp2 } = this.view;
    if (this.begun) {
      // Node refuses it in its own words.
      if (!isHttp2) ServerResponse.prototype.writeHead.call(raw, status);
      if (this.look?.closed) return raw;
      throw writeError('ERR_HTTP2_HEADERS_SENT');
    }
    const reason = typeof rest[0] === 'string' ? rest[0] : undefined;
    if (!isHttp2) {
      const statusMessage = reason ?? raw.statusMessage;
      // One that is refused must not stay for whoever answers the error.
      raw.statusMessage = '';
      assertSendable(status, statusMessage);
      raw.statusMessage = statusMessage;
      raw.statusCode = status;
    }
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
    const first = this.view.isHttp2 ? undefined : bytesOf(chunk, coding);
    if (this.#state !== 'held') return this.#refuse(done as Callback | undefined);
    this.flushHeaders();
    const bytes = first ?? bytesOf(chunk, coding);
    this.#checkLength(bytes.length, false);
    const goOn = this.#keep(bytes);
    if (this.#written.later((done as Callback | undefined) ?? (() => undefined)))
      setImmediate(() => this.#flush());
    return goOn;
  }

  endWith(...args: [chunk: unknown, encoding: unknown, callback: unknown]): ServerResponse {
    const callback = args.find((arg): arg is Callback => typeof arg === 'function');
    const [chunk, encoding] = args.map((arg) => (typeof arg === 'function' ? undefined : arg));
    const { isHttp2 } = this.view;
    const hasChunk = isHttp2 ? chunk !== undefined && chunk !== null : Boolean(chunk);
    if (this.#state !== 'held') return this.#endAgain(hasChunk, callback);
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
    if (this.#end === undefined) this.#finish('ended');
    return this.raw;
  }

  destroy(error?: unknown): ServerResponse | undefined {
    if (this.#state === 'held') {
      this.errored = error as Error | undefined;
      this.#finish('broken');
    }
    return this.view.isHttp2 ? undefined : this.raw;
  }

  emit(event: string | symbol, args: readonly unknown[]): boolean {
    const isKept = LIFE[this.#state] !== undefined && !this.view.isTelling(event) && this.#keeps(event, args);
    return isKept || this.view.emit(event, args);
  }

  announce(method: string, args: readonly unknown[]): unknown {
    leaveOut(method, args, this.begun && !this.view.isHttp2);
    if (!this.view.isHttp2) return method === 'writeInformation' ? true : undefined;
    return method === 'createPushResponse' ? undefined : !this.#head;
  }

  change(method: string, args: readonly unknown[]): unknown {
    if (method === 'addTrailers' || method === 'setTrailer') {
      const [first, value] = args;
      const added = trailerPairs(method === 'setTrailer' ? { [first as string]: value } : first);
      // Behind the end it is too late for them.
      if (this.#end === undefined) this.#written.setTrailers(added, this.view.isHttp2);
      return undefined;
    }
    if (this.#head && typeof args[0] === 'string') throw writeError('ERR_HTTP2_HEADERS_SENT');
    return this.view.call(method, args);
  }

  #begin(): void {
    if (!this.view.isHttp2) this.raw.statusMessage ||= STATUS_CODES[this.raw.statusCode] ?? 'unknown';
    this.#head = this.#currentHead();
    this.#show();
  }

  /** Nothing that is written after the end ends the process, as it would where nobody listens for errors. */
  #endAgain(hasChunk: boolean, callback: Callback | undefined): ServerResponse {
    if (this.view.isHttp2) {
      if (callback) process.nextTick(callback);
    } else if (hasChunk) this.#refuse(callback);
    else if (callback && this.#state === 'ended') this.raw.once('finish', callback);
    else callback?.(writeError('ERR_STREAM_ALREADY_FINISHED'));
    return this.raw;
  }

  #refuse(callback: Callback | undefined): false {
    const wasEnded = this.#end === 'ended' && this.#state !== 'closed';
    const error = writeError(wasEnded ? 'ERR_STREAM_WRITE_AFTER_END' : 'ERR_STREAM_DESTROYED');
    process.nextTick(() => {
      callback?.(error);
      if (wasEnded && !this.view.isHttp2 && this.raw.listenerCount('error') > 0)
        this.raw.emit('error', error);
    });
    return false;
  }

  #keep(bytes: Buffer): boolean {
    if (!this.#mayHaveBody()) return true;
    const goOn = this.#written.add(bytes, this.raw.writableHighWaterMark);
    if (!this.#written.isTooLarge) return goOn;
    this.errored = new Error('the response is larger than is kept');
    this.#finish('too-large');
    return false;
  }

  #flush(): void {
    const isAwaited = this.#written.flush();
    if (isAwaited && this.#end === undefined) this.raw.emit('drain');
  }

  #finish(end: HeldEnd): void {
    this.#end = this.#state = end;
    this.#show();
    if (end === 'too-large') this.#sources?.destroy();
    if (end === 'ended' && !this.view.isHttp2) this.view.tell('prefinish');
    setImmediate(() => this.#advance());
    this.onEnd();
  }

  /** To the next state in the life that writers see, and on. */
  #advance(): void {
    const next = LIFE[this.#state]?.next;
    if (!next) return;
    this.#state = next.state;
    this.#written.pending = 0;
    this.#show();
    try {
      this.view.tell(next.event);
    } finally {
      process.nextTick(() => this.#advance());
    }
  }

  #show(): void {
    if (this.look) this.view.show(this);
  }

  /** Whether an event of the connection is kept from everybody until the response is let go. */
  #keeps(event: string | symbol, args: readonly unknown[]): boolean {
    if (event === 'pipe') (this.#sources ??= new Sources(() => this.destroy())).add(args[0] as Readable);
    if (event === 'unpipe') this.#sources?.delete(args[0] as Readable);
    if (event === 'close') {
      this.departed = args;
      this.#show();
      for (const leave of this.leavers ?? []) leave();
    }
    return event === 'close' || event === 'finish';
  }

  /** Where node knows the length there are no chunks, and trailers are left out. */
  #sentTrailers({ headers }: Head): Trailers | undefined {
    const { trailers } = this.#written;
    if (trailers.length === 0) return undefined;
    const hasLength = this.#inOnePiece || 'content-length' in headers;
    const mayFollow =
      this.view.isHttp2 || (this.raw.useChunkedEncodingByDefault && (isChunked(headers) || !hasLength));
    return mayFollow ? trailers : undefined;
  }

  #currentHead(): Head {
    const { raw } = this;
    // HTTP/2 has none, and warns of whoever looks for it.
    const statusMessage = this.view.isHttp2 ? undefined : raw.statusMessage;
    return { status: raw.statusCode, statusMessage, headers: raw.getHeaders() };
  }

  #mayHaveBody(): boolean {
    return this.raw.req.method !== 'HEAD' && mayHaveBody(this.#head?.status ?? 200, this.view.isHttp2);
  }

  /** As node does where it is told to be strict. */
  #checkLength(added: number, isLast: boolean): void {
    const said = this.raw.strictContentLength && this.#head?.headers['content-length'];
    if (said === undefined || said === false || !this.#mayHaveBody()) return;
    this.#written.assertLength(Number(said), added, isLast);
  }
}
