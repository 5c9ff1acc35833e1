import type { IdempotentRouteOptions } from './idempotency.options.js';
import { isMutatingRoute, markController, markMethod, noteEntry } from './http/route-mark.js';

type Handler = (this: unknown, ...args: unknown[]) => unknown;

/**
 * Runs a handler once per (client, endpoint, key): its writes, the record and the response commit in one transaction,
 * and duplicates get the recorded response.
 *
 * On a method it protects that handler; on a controller, every POST, PUT, PATCH and DELETE handler of it. Method options
 * win over the controller's, and those over the module's, field by field. The order among other decorators does not
 * matter.
 *
 * Limits: only what goes through the module's DataSource joins the transaction; see `docs/considerations.md`. GET, HEAD,
 * OPTIONS, `@All()`, `@Sse()`, message patterns and GraphQL resolvers are refused when the application boots, and so are
 * handlers that a subclass adds or overrides without repeating the decorator, on them or on the subclass.
 *
 * @example
 * ```ts
 * @Post()
 * @Idempotent({ ttl: '7d' })
 * create(@Body() order: CreateOrder) { … }
 * ```
 */
export function Idempotent(options: IdempotentRouteOptions = {}): ClassDecorator & MethodDecorator {
  return (target: object, name?: string | symbol, descriptor?: PropertyDescriptor): void => {
    if (name === undefined || descriptor === undefined) {
      protectController(target as new () => object, options);
    } else {
      markMethod(target, name, options);
      descriptor.value = noteEntry(descriptor.value as Handler);
    }
  };
}

/** Handlers may be inherited, so the whole chain counts; the base class itself is left as it is. */
function protectController(controller: new () => object, options: IdempotentRouteOptions): void {
  markController(controller, options);
  const prototype = controller.prototype as object;
  for (const name of methodNames(prototype)) {
    const handler: unknown = Reflect.get(prototype, name);
    if (!isMutatingRoute(handler)) continue;
    Object.defineProperty(prototype, name, { value: noteEntry(handler), writable: true, configurable: true });
  }
}

function methodNames(prototype: object): string[] {
  const names = new Set<string>();
  for (let level: object | null = prototype; level && level !== Object.prototype; level = parentOf(level)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      if (name !== 'constructor' && typeof value === 'function') names.add(name);
    }
  }
  return [...names];
}

function parentOf(level: object): object | null {
  return Object.getPrototypeOf(level) as object | null;
}
