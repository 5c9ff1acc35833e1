import type { IdempotentRouteOptions } from './idempotency.options.js';
import { requireProtection } from './transports/http/module-check.js';
import { markController, markMethod, type Controller } from './transports/http/routes.js';

/**
 * Runs a handler once per (client, endpoint, key): its writes, the record and the response commit in one transaction,
 * and duplicates get the recorded response.
 *
 * On a method it protects that handler; on a controller, every POST, PUT, PATCH and DELETE handler of it. Method options
 * win over the controller's, and those over the module's, field by field. The order among other decorators does not
 * matter.
 *
 * Limits: only what goes through the module's DataSource joins the transaction; see `docs/considerations.md`. GET, HEAD,
 * OPTIONS, `@All()`, `@Sse()`, message patterns and GraphQL resolvers are refused when the application boots. Handlers that
 * a subclass inherits, adds or overrides are protected like those of the class that is marked, and so are handlers that
 * another decorator adds. An application without the module does not boot.
 *
 * @example
 * ```ts
 * @Post()
 * @Idempotent({ ttl: '7d' })
 * create(@Body() order: CreateOrder) { … }
 * ```
 */
export function Idempotent(options: IdempotentRouteOptions = {}): ClassDecorator & MethodDecorator {
  return (target: object, name?: string | symbol): void => {
    if (name === undefined) {
      markController(target as Controller, options);
      requireProtection(target);
      return;
    }
    markMethod(target, name, options);
    // On both, because a class may be replaced above, and a method may be copied to another class.
    requireProtection(target.constructor);
    requireProtection(Reflect.get(target, name) as object);
  };
}
