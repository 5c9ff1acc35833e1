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

type Properties = readonly (readonly [name: string, descriptor: PropertyDescriptor])[];

/*
 * One set of properties for all responses: with functions of its own for each, every response would be a shape of its own to
 * V8, and everything node:http does with it slow. They are put on the response itself rather than on a prototype, because
 * an Express application that is called from a handler replaces that.
 */
const HOLDER = Symbol('holder');
const PROPERTIES = propertiesFor(HOLDER);

/** Properties that find the holder of their response in `place`. */
function propertiesFor(place: symbol): Properties {
  type Held = Readonly<Record<symbol, ResponseHolder>>;
  const holderOf = (response: Held): ResponseHolder => response[place] as ResponseHolder;
  const methods = {
    writeHead(this: Held, status: number, ...rest: unknown[]): ServerResponse {
      return holderOf(this).writeHead(status, rest);
    },
    flushHeaders(this: Held): void {
      holderOf(this).flushHeaders();
    },
    write(this: Held, ...args: unknown[]): boolean {
      return holderOf(this).write(args);
    },
    end(this: Held, ...args: unknown[]): ServerResponse {
      return holderOf(this).endWith(args);
    },
    destroy(this: Held): ServerResponse {
      return holderOf(this).destroy();
    },
    emit(this: Held, event: string | symbol, ...args: unknown[]): boolean {
      return holderOf(this).emit(event, args);
    },
  };
  const pretended = (name: 'headersSent' | 'writableEnded'): [string, PropertyDescriptor] => {
    const get = function (this: Held): boolean {
      return holderOf(this)[name];
    };
    return [name, { get, set: () => undefined, configurable: true }];
  };
  return [
    ...Object.entries(methods).map(
      ([name, value]) => [name, { value, writable: true, configurable: true }] as const,
    ),
    pretended('headersSent'),
    pretended('writableEnded'),
  ];
}

/** Has a response do what its holder says, until {@link restore}. */
export function hold(raw: ServerResponse, holder: ResponseHolder): Wrappers {
  const wrappers: Wrappers = new Map();
  // Functions of an earlier hold, which may last and may have been kept, must not find this holder in place of theirs.
  const isFirst = !Object.hasOwn(raw, HOLDER);
  const place = isFirst ? HOLDER : Symbol('further holder');
  // It stays there, so that who has kept a function of the held response writes to nobody afterwards.
  Object.defineProperty(raw, place, { value: holder, writable: true, configurable: true });
  for (const [name, held] of isFirst ? PROPERTIES : propertiesFor(place)) {
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
