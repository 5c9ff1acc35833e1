import { ServerResponse } from 'node:http';
import { Http2ServerRequest, Http2ServerResponse } from 'node:http2';

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

/** Where what is put on a response finds who answers. */
interface View {
  readonly holder: Holder;
  /** In place of the connection, which would show that the client is gone. */
  readonly socket: unknown;
  readonly stream: unknown;
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
type Answers = Readonly<Record<string, (look: Look, view: View) => unknown>>;

/** node:http keeps the rest in fields, which {@link View} sets. */
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
  writableNeedDrain: (look) => look.needsDrain,
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
const HTTP1_METHODS = {
  ...METHODS,
  writeHeader: writeHead,
  writeProcessing: announce,
  writeInformation: announce,
  addTrailers: change,
};
const HTTP2_METHODS = {
  ...METHODS,
  createPushResponse: announce,
  writeInformation: announce,
  setHeader: change,
  appendHeader: change,
  removeHeader: change,
  setTrailer: change,
  addTrailers: change,
};

/** What is put on a response finds its view there. */
type Held = Readonly<Record<symbol, View>>;
type Properties = readonly (readonly [name: string, descriptor: PropertyDescriptor])[];
/** Properties that an earlier hold has left. */
type Before = ReadonlyMap<string, PropertyDescriptor>;

function method(place: symbol, name: string, act: Method): PropertyDescriptor {
  const value = function (this: Held, ...args: unknown[]): unknown {
    return act((this[place] as View).holder, args, name);
  };
  return { value, writable: true, configurable: true };
}

function answer(place: symbol, name: string, of: Answers[string], before?: Before): PropertyDescriptor {
  const get = function (this: Held): unknown {
    const view = this[place] as View;
    const { look } = view.holder;
    if (look) return of(look, view);
    const earlier = before?.get(name);
    return earlier ? earlier.get?.call(this) : Reflect.get(Object.getPrototypeOf(this) as object, name, this);
  };
  return { get, set: () => undefined, configurable: true };
}

function present<T>(prototype: object, all: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(all).filter(([name]) => name in prototype));
}

/** What is put on the responses of HTTP/1 or HTTP/2 while they are held. */
export class Wire {
  readonly methods: Readonly<Record<string, Method>>;
  private readonly answers: Answers;
  readonly #names: readonly string[];
  readonly #first: Properties;

  /** @param prototype - Of what this release of node has: what it lacks is not added. */
  constructor(prototype: object, methods: Readonly<Record<string, Method>>, answers: Answers) {
    this.methods = present(prototype, methods);
    this.answers = present(prototype, answers);
    this.#names = Object.keys(this.answers);
    this.#first = this.#properties(VIEW);
  }

  /** Puts its properties on a response, or on the request of one. */
  cover(target: object, view: View): void {
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
export const WIRES = {
  http1: new Wire(ServerResponse.prototype, HTTP1_METHODS, HTTP1),
  http2: new Wire(Http2ServerResponse.prototype, HTTP2_METHODS, HTTP2),
  http2Request: new Wire(Http2ServerRequest.prototype, {}, HTTP2_REQUEST),
};
