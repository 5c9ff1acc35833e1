import type { EventEmitter } from 'node:events';
import { OutgoingMessage, type IncomingMessage, type ServerResponse } from 'node:http';
import { StandIn } from './stand-in.js';
import { WIRES, type Holder, type Look, type Wire } from './wires.js';

/** Whether a response is of HTTP/2, whose compatibility API has a state of its own in place of node:http's. */
function isHttp2(raw: ServerResponse): boolean {
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

const LISTENING = ['on', 'addListener', 'once', 'off', 'removeListener'];

type Listener = (this: unknown, ...args: unknown[]) => unknown;
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
  readonly #functions: Record<string, unknown>;
  readonly #fields: Fields;
  readonly #before: Fields;
  readonly #request: { readonly complete: boolean; socket: unknown } | undefined;
  readonly #connection: unknown;
  readonly #standIns: StandIn[] = [];
  /** Those who listened before. */
  readonly #outsiders: Readonly<Record<Told, readonly unknown[]>>;
  #telling: Told | undefined;

  constructor(
    readonly raw: ServerResponse,
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
    this.#hearDrain();
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
    return Reflect.apply(own, this.raw, args);
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

  /** Who wraps a response may keep those who wait for it to drain for a stream of its own, which has nothing to send yet. */
  #hearDrain(): void {
    const { raw } = this;
    for (const name of LISTENING) {
      if (!Object.hasOwn(raw, name)) continue;
      const wrapped = Reflect.get(raw, name) as Listener;
      this.#functions[name] = wrapped;
      const value = (...args: unknown[]): unknown =>
        args[0] === 'drain' ? this.call(name, args) : Reflect.apply(wrapped, raw, args);
      Object.defineProperty(raw, name, { value, writable: true, configurable: true });
    }
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
