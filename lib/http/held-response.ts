import type { ServerResponse } from 'node:http';

/** What is done to a held response is done to this instead. */
export interface ResponseHolder {
  readonly headersSent: boolean;
  readonly writableEnded: boolean;
  writeHead(status: number, rest: unknown[]): ServerResponse;
  flushHeaders(): void;
  write(args: unknown[]): boolean;
  endWith(args: unknown[]): ServerResponse;
  destroy(): ServerResponse;
  emit(event: string | symbol, args: unknown[]): boolean;
}

/** What wrapped a response before it was held, by name. */
export type Wrappers = Map<string, PropertyDescriptor>;

const HOLDER = Symbol('holder');

interface Held {
  readonly [HOLDER]: ResponseHolder;
}

/*
 * One set of properties for all responses: with functions of its own for each, every response would be a shape of its own to
 * V8, and everything node:http does with it slow. They are put on the response itself rather than on a prototype, because
 * an Express application that is called from a handler replaces that.
 */
const METHODS = {
  writeHead(this: Held, status: number, ...rest: unknown[]): ServerResponse {
    return this[HOLDER].writeHead(status, rest);
  },
  flushHeaders(this: Held): void {
    this[HOLDER].flushHeaders();
  },
  write(this: Held, ...args: unknown[]): boolean {
    return this[HOLDER].write(args);
  },
  end(this: Held, ...args: unknown[]): ServerResponse {
    return this[HOLDER].endWith(args);
  },
  destroy(this: Held): ServerResponse {
    return this[HOLDER].destroy();
  },
  emit(this: Held, event: string | symbol, ...args: unknown[]): boolean {
    return this[HOLDER].emit(event, args);
  },
};

const PROPERTIES: readonly (readonly [name: string, descriptor: PropertyDescriptor])[] = [
  ...Object.entries(METHODS).map(
    ([name, value]) => [name, { value, writable: true, configurable: true }] as const,
  ),
  pretended('headersSent'),
  pretended('writableEnded'),
];

function pretended(name: 'headersSent' | 'writableEnded'): [string, PropertyDescriptor] {
  const get = function (this: Held): boolean {
    return this[HOLDER][name];
  };
  return [name, { get, set: () => undefined, configurable: true }];
}

/** Has a response do what its holder says, until {@link restore}. */
export function hold(raw: ServerResponse, holder: ResponseHolder): Wrappers {
  const wrappers: Wrappers = new Map();
  // It stays there, so that who has kept a function of the held response writes to nobody afterwards.
  Object.defineProperty(raw, HOLDER, { value: holder, writable: true, configurable: true });
  for (const [name, held] of PROPERTIES) {
    const wrapper = Object.getOwnPropertyDescriptor(raw, name);
    if (wrapper) wrappers.set(name, wrapper);
    Object.defineProperty(raw, name, held);
  }
  return wrappers;
}

/** Gives a response back what it was before, whatever wrapped it while it was held. */
export function restore(raw: ServerResponse, wrappers: Wrappers): void {
  for (const [name] of PROPERTIES) {
    const wrapper = wrappers.get(name);
    if (wrapper) Object.defineProperty(raw, name, wrapper);
    else Reflect.deleteProperty(raw, name);
  }
}
