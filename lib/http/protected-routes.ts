import { MetadataScanner, type ModulesContainer } from '@nestjs/core';
import type { IdempotentRouteOptions } from '../idempotency.options.js';
import { marksOf } from './route-mark.js';

export type Controller = abstract new (...args: never[]) => object;
export type Handler = (...args: unknown[]) => unknown;

/** A handler that is marked. */
export interface ProtectedRoute {
  readonly controller: Controller;
  /** Of the method. */
  readonly name: string;
  readonly handler: Handler;
  /** The controller's options, then its own. */
  readonly marks: IdempotentRouteOptions[];
}

/** Every marked handler of an application's controllers. */
export function* protectedRoutes(modules: ModulesContainer): Generator<ProtectedRoute> {
  for (const module of modules.values()) {
    for (const { metatype } of module.controllers.values()) {
      if (typeof metatype !== 'function') continue;
      const controller = metatype as Controller;
      for (const name of methodNames(controller)) {
        const marks = marksOf(controller, name);
        if (marks) yield { controller, name, handler: methodOf(controller.prototype as object, name), marks };
      }
    }
  }
}

export function methodNames(controller: Controller): string[] {
  return new MetadataScanner().getAllMethodNames(controller.prototype as object);
}

export function methodOf(target: object, name: string): Handler {
  return Reflect.get(target, name) as Handler;
}
