import type { IdempotencyError } from './errors.js';
import type { Identity } from './identity.js';
import type { IdempotencyRecord } from './record.js';

/** How a request of this process ended, as those who waited for it need to know. */
export type FlightEnd =
  | { readonly kind: 'recorded'; readonly record: IdempotencyRecord }
  /** Nothing is recorded: whoever comes next may try. */
  | { readonly kind: 'open' }
  /** The outcome of an earlier attempt stays unknown: everyone with the same request hears the same. */
  | { readonly kind: 'unresolved'; readonly fingerprint: Buffer; readonly error: IdempotencyError }
  /** The store could not say; it would say the same to everyone who waited. */
  | { readonly kind: 'failed'; readonly error: IdempotencyError };

/** Why waiting ended. */
export type WaitEnd =
  FlightEnd | { readonly kind: 'timeout' } | { readonly kind: 'refused' } | { readonly kind: 'shutdown' };

/** A request that runs, or wants to run, in this process. */
export interface Flight {
  /** When it began, in milliseconds of the monotonic clock. */
  readonly startedAt: number;
  /** Milliseconds after which it is over in any case. */
  readonly maxDuration: number;
  /** Tells those who wait. Only the first call counts. */
  land(end: FlightEnd): void;
}

/** Has a function called when whoever asked goes away; what it gives back undoes that. */
export type OnDeparture = (leave: () => void) => () => void;

/** A request that waits. */
export interface Waiter {
  readonly client: string;
  readonly onDeparture?: OnDeparture | undefined;
}

type Tell = (end: WaitEnd) => void;

interface OpenFlight extends Flight {
  readonly waiters: Set<Tell>;
}

/**
 * The identities that are being worked on in this process. Duplicates of them are recognised here, before a connection is
 * asked for, and wait without one.
 */
export class Flights {
  readonly #open = new Map<string, OpenFlight>();
  /** By client. */
  readonly #waiting = new Map<string, Set<Tell>>();
  #count = 0;
  #closed = false;

  /** @param maxWaiters - How many requests may wait at a time; of the client that has the most of them, one more is refused. */
  constructor(private readonly maxWaiters: number) {}

  find(identity: Identity): Flight | undefined {
    return this.#open.get(nameOf(identity));
  }

  /** Opens the flight of an identity that has none. */
  begin(identity: Identity, maxDuration: number): Flight {
    const name = nameOf(identity);
    const waiters = new Set<Tell>();
    const land = (end: FlightEnd): void => {
      if (this.#open.get(name) === flight) this.#open.delete(name);
      for (const tell of waiters) tell(end);
      waiters.clear();
    };
    const flight: OpenFlight = { startedAt: performance.now(), maxDuration, waiters, land };
    this.#open.set(name, flight);
    return flight;
  }

  /**
   * Waits so many milliseconds, at most until a flight lands, the one who asked goes away or the process shuts down; gives a
   * promise only where it does.
   *
   * Many may wait for one: each asynchronous function on the way here is a quarter of a kilobyte for every one of them.
   */
  wait({ client, onDeparture }: Waiter, milliseconds: number, flight?: Flight): WaitEnd | Promise<WaitEnd> {
    if (this.#closed) return { kind: 'shutdown' };
    if (milliseconds <= 0) return { kind: 'timeout' };
    if (this.#count >= this.maxWaiters && !this.#makeRoomFor(client)) return { kind: 'refused' };
    const waiters = (flight as OpenFlight | undefined)?.waiters;
    return new Promise<WaitEnd>((resolve) => {
      const tell: Tell = (end) => {
        clearTimeout(timer);
        stay?.();
        this.#remove(client, tell);
        waiters?.delete(tell);
        resolve(end);
      };
      const timer = setTimeout(tell, milliseconds, { kind: 'timeout' });
      this.#add(client, tell);
      waiters?.add(tell);
      const stay = onDeparture?.(() => tell({ kind: 'refused' }));
    });
  }

  /** Sends everybody away who waits, now and from now on. */
  close(): void {
    this.#closed = true;
    for (const waiters of this.#waiting.values()) {
      for (const tell of waiters) tell({ kind: 'shutdown' });
    }
  }

  /** One client cannot use up what others wait in: where there is no room, the one with the most gives up a place. */
  #makeRoomFor(client: string): boolean {
    let most: Set<Tell> = new Set();
    for (const waiters of this.#waiting.values()) if (waiters.size > most.size) most = waiters;
    const own = this.#waiting.get(client)?.size ?? 0;
    if (own + 1 >= most.size) return false;
    for (const tell of most) {
      tell({ kind: 'refused' });
      break;
    }
    return true;
  }

  #add(client: string, tell: Tell): void {
    const waiters = this.#waiting.get(client);
    if (waiters) waiters.add(tell);
    else this.#waiting.set(client, new Set([tell]));
    this.#count += 1;
  }

  #remove(client: string, tell: Tell): void {
    const waiters = this.#waiting.get(client);
    if (!waiters?.delete(tell)) return;
    this.#count -= 1;
    if (waiters.size === 0) this.#waiting.delete(client);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Resolves when no flight is open any more. */
  async landed(): Promise<void> {
    while (this.#open.size > 0) {
      const flights = [...this.#open.values()];
      await Promise.all(flights.map(({ waiters }) => new Promise((resolve) => waiters.add(resolve))));
    }
  }
}

/** Lengths tell where parts end, so that different identities cannot be spelled the same. */
function nameOf({ client, endpoint, key }: Identity): string {
  return `${client.length}:${client}${endpoint.length}:${endpoint}${key}`;
}
