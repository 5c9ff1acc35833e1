import { EventEmitter } from 'node:events';

/** What a connection shows that stands. Whether it is readable is as it was. */
const CONNECTED: Readonly<Record<string, unknown>> = {
  ...{ destroyed: false, closed: false, aborted: false, errored: null, readyState: 'open' },
  ...{ readableEnded: false, readableAborted: false },
  ...{ writable: true, writableEnded: false, writableFinished: false, writableAborted: false },
};
/** Events by which a client's departure would be heard. */
const PARTINGS = new Set<unknown>(['close', 'end', 'error', 'aborted']);
const LISTENING = new Set<string | symbol>([
  ...['on', 'once', 'addListener', 'prependListener', 'prependOnceListener'],
  ...['off', 'removeListener', 'listenerCount', 'listeners', 'rawListeners'],
]);
const REMOVING = new Set<string | symbol>(['off', 'removeListener']);
const PARTING = new Set<string | symbol>(['destroy', 'destroySoon', 'resetAndDestroy']);

type Connection = EventEmitter & { destroyed?: unknown; writableEnded?: unknown; aborted?: unknown };
type Member = (...args: unknown[]) => unknown;

/**
 * A connection in whose place a writer sees that the client is still there: file senders stop half-way where it is not, and
 * what the client asked for has an effect that a retry must find complete. All else is the connection's own.
 */
export class StandIn implements ProxyHandler<EventEmitter> {
  readonly proxy: EventEmitter;
  #isReleased = false;
  readonly #wasReadable: unknown;
  /** Those who want to hear of a departure. */
  #waiting: EventEmitter | undefined;

  /** `onDestroy` is called in place of what would end the connection. */
  constructor(
    private readonly connection: EventEmitter,
    private readonly onDestroy: (error: unknown) => void,
  ) {
    this.proxy = new Proxy(connection, this);
    this.#wasReadable = Reflect.get(connection, 'readable');
  }

  /** From now on it is the connection, and those who wait for its end hear it. */
  release(): void {
    this.#isReleased = true;
    for (const event of this.#waiting?.eventNames() ?? []) {
      for (const listener of this.#waiting?.rawListeners(event) ?? []) {
        const { listener: once } = listener as { listener?: (...args: unknown[]) => void };
        if (once) this.connection.once(event, once);
        else this.connection.on(event, listener as (...args: unknown[]) => void);
        if (event === 'close' && Reflect.get(this.connection, 'closed') === true)
          process.nextTick(listener, false);
      }
    }
  }

  get(connection: EventEmitter, name: string | symbol): unknown {
    if (!this.#isReleased) {
      if (typeof name === 'string' && this.#hides(connection, name)) {
        return name === 'readable' ? this.#wasReadable : CONNECTED[name];
      }
      if (LISTENING.has(name)) return this.#listening(connection, name);
      if (PARTING.has(name)) {
        return (error: unknown) => {
          // Node ends the request of a client that is gone, which is not for its writers to hear.
          if (Reflect.get(connection, 'destroyed') !== true) this.onDestroy(error);
          return this.proxy;
        };
      }
    }
    const value: unknown = Reflect.get(connection, name, connection);
    return typeof value === 'function' ? value.bind(connection) : value;
  }

  set(connection: EventEmitter, name: string | symbol, value: unknown): boolean {
    return Reflect.set(connection, name, value, connection);
  }

  /** Whether a property shows that the connection is gone, or about to be. */
  #hides(connection: EventEmitter, name: string): boolean {
    if (name !== 'readable' && !Object.hasOwn(CONNECTED, name)) return false;
    const { destroyed, writableEnded, aborted } = connection as Connection;
    return (
      (destroyed === true || writableEnded === true || aborted === true) &&
      Reflect.get(connection, name) !== undefined
    );
  }

  #listening(connection: EventEmitter, name: string | symbol): Member {
    return (event, ...rest) => {
      // One that was added before is with the connection.
      if (REMOVING.has(name) && this.#waiting)
        Reflect.apply(Reflect.get(this.#waiting, name) as Member, this.#waiting, [event, ...rest]);
      const isWaiting = PARTINGS.has(event) && !REMOVING.has(name);
      const target = isWaiting ? (this.#waiting ??= new EventEmitter()) : connection;
      const result = Reflect.apply(Reflect.get(target, name) as Member, target, [event, ...rest]);
      return result === target ? this.proxy : result;
    };
  }
}
