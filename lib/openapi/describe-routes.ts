import { Logger } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import { protectedRoutes, type ProtectedRoute } from '../transports/http/routes.js';
import { routeSettings } from '../http/route-settings.js';
import type { IdempotencyModuleOptions } from '../idempotency.options.js';
import { validateRouteOptions } from '../idempotency.options.validation.js';
import { describeAnswers } from './answers.js';
import type { DescribedRoute } from './described-route.js';
import { describeKey } from './key-parameter.js';
import { loadSwagger, type Swagger } from './swagger.js';

/** Routes that were described: several applications in one process may share a controller. */
const described = new WeakSet<object>();

/**
 * Where `@nestjs/swagger` is installed, tells it of the keys, errors and headers of every protected route. It reads them
 * when the application asks for its document, which is before the application is initialised.
 */
export async function describeRoutes(
  modules: ModulesContainer,
  options: IdempotencyModuleOptions,
): Promise<void> {
  const routes = [...protectedRoutes(modules)];
  if (routes.length === 0) return;
  const swagger = await loadSwagger();
  if (!swagger) return;
  for (const route of routes) {
    if (described.has(route.handler) || !isValid(route)) continue;
    described.add(route.handler);
    try {
      describe(swagger, route, options);
    } catch (error) {
      // Documentation must not keep an application from starting.
      new Logger('Idempotency').warn(
        `${route.controller.name}.${route.name} cannot be described: ${String(error)}`,
      );
    }
  }
}

/** Options that are not are refused, with the reason, when the application is initialised. */
function isValid({ marks, name }: ProtectedRoute): boolean {
  try {
    for (const mark of marks) validateRouteOptions(mark, name);
    return true;
  } catch {
    return false;
  }
}

function describe(swagger: Swagger, route: ProtectedRoute, options: IdempotencyModuleOptions): void {
  const { controller, name, handler, marks } = route;
  const apply: DescribedRoute['apply'] = (decorator) =>
    decorator(controller.prototype as object, name, { value: handler });
  const whole: DescribedRoute = { ...route, settings: routeSettings(options, marks), apply };
  describeKey(swagger, whole);
  describeAnswers(swagger, whole);
}
