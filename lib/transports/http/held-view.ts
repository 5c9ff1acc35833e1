import type { EventEmitter } from 'node:events';
import { OutgoingMessage, type IncomingMessage, type ServerResponse } from 'node:http';
import { StandIn } from './stand-in.js';

/** What is done to a held response is done to this instead, and what it is asked is asked of this. */
export interface Holder {
  /** Undefined once it was let go: from then on node answers for itself. */
  readonly look: Look | undefined;
  writeHead(status: number, rest: readonly unknown[]): ServerResponse;
  flushHeaders(): void;
  write(chunk: unknown, encoding: unknown, callback: unknown): boolean;
  endWith(chunk: unknown, encoding: unknown, callback: unknown): ServerResponse;
  destroy(error?: unknown): ServerResponse | undefined;
  emit(event: string | symbol, args: readonly unknown[]): boolean;
  /** An answer before the answer: 102, 103, a push of HTTP/2. */
  announce(method: string, args: readonly unknown[]): unknown;
  /** Headers of HTTP/2, which node:http refuses by itself once the head looks sent, and trailers. */
  change(method: string, args: readonly unknown[]): unknown;
}

/** What a writer sees of a held response. */
export interface Look {
  /** Whether the headers look sent. */
  readonly begun: boolean;
  readonly ended: boolean;
  /** Whether all of it looks sent. */
  readonly finished: boolean;
  readonly closed: boolean;
  readonly errored: Error | null | undefined;
  /** Bytes that do not look sent yet. */
  readonly pending: number;
  readonly needsDrain: boolean;
  readonly destroyed: boolean;
}

/** A property of a response, from its name and what it says while it is held. */
type Answers = Readonly<Record<string, (look: Look, view: HeldView) => unknown>>;

/** node:http keeps the rest in fields, which {@link HeldView} sets. */
const HTTP1: Answers = {
  writableEnded: (look) => look.ended,
  writableFinished: (look) => look.finished,
  writableLength: (look) => look.pending,
  writableNeedDrain: (look) => look.needsDrain,
  closed: (look) => look.closed,
  errored: (look) => look.errored,
};

const HTTP2: Answers = {
  headersSent: (look) => look.begun,
  _header: (look) => look.begun,
  writableEnded: (look) => look.ended,
  finished: (look) => look.ended,
  writableFinished: (look) => look.finished,
  writableLength: (look) => look.pending,
  socket: (look, { socket }) => (look.closed ? undefined : socket),
  connection: (look, { socket }) => (look.closed ? undefined : socket),
  stream: (_look, { stream }) => stream,
};
/** Of a request of HTTP/2. */
const HTTP2_REQUEST: Answers = {
  socket: (_look, { socket }) => socket,
  connection: (_look, { socket }) => socket,
  stream: (_look, { stream }) => stream,
};

type Method = (holder: Holder, args: unknown[], name: string) => unknown;

const announce: Method = (holder, args, name) => holder.announce(name, args);
const change: Method = (holder, args, name) => holder.change(name, args);
const writeHead: Method = (holder, [status, ...rest]) => holder.writeHead(status as number, rest);

/** Every method by which something would reach the client, or change what does. */
const METHODS: Readonly<Record<string, Method>> = {
  writeHead,
  flushHeaders: (holder) => holder.flushHeaders(),
  write: (holder, [chunk, encoding, callback]) => holder.write(chunk, encoding, callback),
  end: (holder, [chunk, encoding, callback]) => holder.endWith(chunk, encoding, callback),
  destroy: (holder, [error]) => holder.destroy(error),
  emit: (holder, [event, ...args]) => holder.emit(event as string, args),
  writeEarlyHints: announce,
};
const HTTP1_METHODS = { ...METHODS, writeHeader: writeHead, writeProcessing: announce, addTrailers: change };
const HTTP2_METHODS = {
  ...METHODS,
  createPushResponse: announce,
  setHeader: change,
  appendHeader: change,
  removeHeader: change,
  setTrailer: change,
  addTrailers: change,
};

/** What is put on a response finds its view there. */
type Held = Readonly<Record<symbol, HeldView>>;
type Properties = readonly (readonly [name: string, descriptor: PropertyDescriptor])[];
/** Properties that an earlier hold has left. */
type Before = ReadonlyMap<string, PropertyDescriptor>;

function method(place: symbol, name: string, act: Method): PropertyDescriptor {
  const value = function (this: Held, ...args: unknown[]): unknown {
    return act((this[place] as HeldView).holder, args, name);
  };
  return { value, writable: true, configurable: true };
}

function answer(place: symbol, name: string, of: Answers[string], before?: Before): PropertyDescriptor {
  const get = function (this: Held): unknown {
    const view = this[place] as HeldView;
    const { look } = view.holder;
    if (look) return of(look, view);
    const earlier = before?.get(name)?.get;
    return earlier ? earlier.call(this) : Reflect.get(Object.getPrototypeOf(this) as object, name, this);
  };
  return { get, set: () => undefined, configurable: true };
}

class Wire {
  readonly #names: readonly string[];
  readonly #first: Properties;

  constructor(
    readonly methods: Readonly<Record<string, Method>>,
    private readonly answers: Answers,
  ) {
    this.#names = Object.keys(answers);
    this.#first = this.#properties(VIEW);
  }

  /** Puts its properties on a response, or on the request of one. */
  cover(target: object, view: HeldView): void {
    const isFirst = !Object.hasOwn(target, VIEW);
    // Functions of an earlier hold, which may last and may have been kept, must not find this one in place of theirs.
    const place = isFirst ? VIEW : Symbol('further view');
    const properties = isFirst ? this.#first : this.#properties(place, this.#before(target));
    Object.defineProperty(target, place, { value: view });
    for (const [name, descriptor] of properties) Object.defineProperty(target, name, descriptor);
  }

  #properties(place: symbol, before?: Before): Properties {
    return [
      ...Object.entries(this.methods).map(([name, act]) => [name, method(place, name, act)] as const),
      ...Object.entries(this.answers).map(([name, of]) => [name, answer(place, name, of, before)] as const),
    ];
  }

  #before(target: object): Before {
    const own = this.#names.map((name) => [name, Object.getOwnPropertyDescriptor(target, name)] as const);
    return new Map(own.filter((entry): entry is [string, PropertyDescriptor] => entry[1] !== undefined));
  }
}

/*
 * One set of properties for all responses: with functions of its own for each, every response would be a shape of its own to
 * V8, and everything node:http does with it slow. They are put on the response itself rather than on a prototype, because
 * an Express application that is called from a handler replaces that. And they stay there: an object that loses properties
 * becomes a dictionary to V8, which costs more than all the rest of a hold.
 */
const VIEW = Symbol('view');
const WIRES = {
  http1: new Wire(HTTP1_METHODS, HTTP1),
  http2: new Wire(HTTP2_METHODS, HTTP2),
  http2Request: new Wire({}, HTTP2_REQUEST),
};

/** Whether a response is of HTTP/2, whose compatibility API has a state of its own in place of node:http's. */
export function isHttp2(raw: ServerResponse): boolean {
  return !(raw instanceof OutgoingMessage) && 'stream' in raw;
}

/** The fields that node:http keeps on a response, and that a hold changes. */
interface Fields {
  /** What was sent of the head: with it node refuses changes by itself. */
  _header: unknown;
  _closed: unknown;
  destroyed: unknown;
  socket: unknown;
}

type Listener = (this: unknown, ...args: unknown[]) => void;
/** What writers hear of a response that is sent. */
export type Told = 'prefinish' | 'finish' | 'close';

/** A raw response that does what its holder says, until it is given back. */
export class HeldView {
  readonly isHttp2: boolean;
  /** In place of the connection, which would show that the client is gone. */
  readonly socket: unknown;
  readonly stream: unknown;
  readonly #wire: Wire;
  /** What it had before it was held, its own or of those who wrapped it. */
  readonly #functions: Readonly<Record<string, unknown>>;
  readonly #fields: Fields;
  readonly #before: Fields;
  readonly #request: { readonly complete: boolean; socket: unknown } | undefined;
  readonly #connection: unknown;
  readonly #standIns: StandIn[] = [];
  /** Those who listened before. */
  readonly #outsiders: Readonly<Record<Told, readonly unknown[]>>;
  #telling: Told | undefined;

  constructor(
    private readonly raw: ServerResponse,
    readonly holder: Holder,
  ) {
    this.isHttp2 = isHttp2(raw);
    this.#wire = this.isHttp2 ? WIRES.http2 : WIRES.http1;
    const functions: Record<string, unknown> = {};
    for (const name in this.#wire.methods) functions[name] = Reflect.get(raw, name);
    this.#functions = functions;
    this.#outsiders = {
      prefinish: raw.rawListeners('prefinish'),
      finish: raw.rawListeners('finish'),
      close: raw.rawListeners('close'),
    };
    const request = raw.req as IncomingMessage | undefined;
    this.#request = request;
    this.#connection = request?.socket;
    this.#fields = raw as unknown as Fields;
    const { _header, _closed, destroyed, socket } = this.#fields;
    this.#before = { _header, _closed, destroyed, socket };
    this.socket = this.#standIn(socket ?? this.#connection);
    this.stream = this.isHttp2 ? this.#standIn(Reflect.get(raw, 'stream')) : undefined;
    this.#wire.cover(raw, this);
    if (this.isHttp2 && request) WIRES.http2Request.cover(request, this);
    else this.#setSockets(this.socket);
  }

  /** Has node:http answer in accord with what is to be seen. */
  show({ begun, finished, destroyed }: Look): void {
    if (this.isHttp2) return;
    const fields = this.#fields;
    // Text, as node's own is; what it says is nobody's business.
    if (begun) fields._header ||= 'HTTP/1.1\r\n\r\n';
    if (fields.destroyed !== destroyed) fields.destroyed = destroyed;
    // Node tells a connection that closes by it, and would not say so twice.
    fields._closed = false;
    if (finished && fields.socket === this.socket) fields.socket = null;
  }

  /** Tells those who came after the response was held, and once: they do not hear what becomes of it. */
  tell(event: Told): void {
    // A response of HTTP/2 is told to be finished however it closes; one of HTTP/1 that is closed will not be any more.
    if (event === 'close' && this.isHttp2) this.tell('finish');
    if (event === 'close') this.#forget('prefinish', 'finish');
    this.#telling = event;
    try {
      this.raw.emit(event);
    } finally {
      this.#telling = undefined;
    }
  }

  isTelling(event: string | symbol): boolean {
    return event === this.#telling;
  }

  /** Node's own method, whatever wraps it. */
  call(method: string, args: readonly unknown[]): unknown {
    const own = Reflect.get(Object.getPrototypeOf(this.raw) as object, method) as Listener;
    return Reflect.apply(own, this.raw, args) as unknown;
  }

  emit(event: string | symbol, args: readonly unknown[]): boolean {
    if (event !== this.#telling) {
      return Reflect.apply(this.#functions.emit as (...args: unknown[]) => boolean, this.raw, [
        event,
        ...args,
      ]);
    }
    const insiders = this.#insiders(this.#telling);
    for (const listener of insiders) {
      this.raw.removeListener(event, listener);
      listener.apply(this.raw, [...args]);
    }
    return insiders.length > 0;
  }

  /**
   * Undoes whatever wrapped the response while it was held, too. Who has kept a function of the hold writes to nobody.
   *
   * @param isGone - Whether its connection was seen to close.
   */
  giveBack(isGone: boolean): void {
    const { raw } = this;
    for (const name in this.#functions) {
      const value = this.#functions[name];
      if (Reflect.set(raw, name, value)) continue;
      Object.defineProperty(raw, name, { value, writable: true, configurable: true });
    }
    if (!this.isHttp2) {
      const { _header, _closed, destroyed } = this.#before;
      const fields = this.#fields;
      fields._header = _header;
      fields._closed = isGone || _closed;
      fields.destroyed = isGone || destroyed;
      // One that was not assigned yet may have been meanwhile.
      if (fields.socket === this.socket || fields.socket === null) fields.socket = this.#before.socket;
      if (this.#request?.socket === this.socket && this.#request) this.#request.socket = this.#connection;
    }
    for (const standIn of this.#standIns) standIn.release();
  }

  #insiders(event: Told): Listener[] {
    const outsiders = this.#outsiders[event];
    return this.raw.rawListeners(event).filter((each) => !outsiders.includes(each)) as Listener[];
  }

  #forget(...events: readonly Told[]): void {
    for (const event of events) {
      for (const listener of this.#insiders(event)) this.raw.removeListener(event, listener);
    }
  }

  #setSockets(standIn: unknown): void {
    const { socket } = this.#before;
    if (socket) this.#fields.socket = standIn;
    // One that still arrives has to hear when its client goes.
    const request = this.#request;
    if (request?.complete && request.socket && (!socket || this.#connection === socket))
      request.socket = standIn;
  }

  #standIn(connection: unknown): unknown {
    if (typeof connection !== 'object' || connection === null || !('on' in connection)) return connection;
    const standIn = new StandIn(connection as EventEmitter, (error) => this.holder.destroy(error));
    this.#standIns.push(standIn);
    return standIn.proxy;
  }
}
