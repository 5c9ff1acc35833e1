import 'reflect-metadata';
import { RequestMethod } from '@nestjs/common';
import type { IdempotentRouteOptions } from '../idempotency.options.js';
import { currentFrame } from '../core/ambient.js';
import { METHOD, PATH } from './nest-metadata.js';

const ROUTE_OPTIONS = Symbol.for('nestjs-pg-idempotency:route-options');
type Method = (this: unknown, ...args: unknown[]) => unknown;

/** Methods that change something; a key on any other says nothing. */
const MUTATING = new Set([RequestMethod.POST, RequestMethod.PUT, RequestMethod.PATCH, RequestMethod.DELETE]);

/** Wrapped handlers, so that marking a controller and its method does not wrap twice. */
const wrapped = new WeakSet<Method>();

/**
 * Marks a method. The options are kept for class and name rather than on the function, so that a decorator which
 * replaces the function later cannot silently take the protection away.
 */
export function markMethod(prototype: object, name: string | symbol, options: IdempotentRouteOptions): void {
  Reflect.defineMetadata(ROUTE_OPTIONS, options, prototype, name);
}

/** Marks a controller. */
export function markController(controller: object, options: IdempotentRouteOptions): void {
  Reflect.defineMetadata(ROUTE_OPTIONS, options, controller);
}

/** The options a handler was marked with: the controller's, then its own. Undefined when it is not marked. */
export function marksOf(
  controller: { prototype: object },
  name: string,
): IdempotentRouteOptions[] | undefined {
  const own = methodMark(controller.prototype, name);
  const shared = Reflect.getMetadata(ROUTE_OPTIONS, controller) as IdempotentRouteOptions | undefined;
  const handler: unknown = Reflect.get(controller.prototype, name);
  if (own === undefined && (shared === undefined || !isMutatingRoute(handler))) return undefined;
  return [shared, own].filter((options) => options !== undefined);
}

/**
 * Whether the method belongs to a class more derived than any that is marked. Marks are inherited, but only the functions
 * that were there when a class was marked note that they are entered. Decorators above the mark are no matter: the
 * function they put in its place is of the same class, and calls ours.
 */
export function overridesMarked(controller: { prototype: object }, name: string): boolean {
  for (let type = controller; isClass(type); type = Object.getPrototypeOf(type) as typeof type) {
    if (Reflect.hasOwnMetadata(ROUTE_OPTIONS, type.prototype, name)) return false;
    if (Reflect.hasOwnMetadata(ROUTE_OPTIONS, type)) return false;
    if (Object.hasOwn(type.prototype, name)) return true;
  }
  return false;
}

/** The end of a chain of classes is Function.prototype, which has no prototype. */
function isClass(type: { prototype?: object }): boolean {
  return type.prototype !== undefined;
}

/** The options set on the method itself. */
function methodMark(prototype: object, name: string): IdempotentRouteOptions | undefined {
  return Reflect.getMetadata(ROUTE_OPTIONS, prototype, name) as IdempotentRouteOptions | undefined;
}

/** Whether a function is an HTTP handler of a method that changes something. */
export function isMutatingRoute(handler: unknown): handler is Method {
  if (typeof handler !== 'function' || !Reflect.hasMetadata(PATH, handler)) return false;
  return MUTATING.has(Reflect.getMetadata(METHOD, handler) as RequestMethod);
}

/**
 * The handler, noting that it was entered: what it never saw, because a guard, a pipe or an upload limit refused the
 * request, is not the result of the operation. Metadata of decorators below this one moves along.
 */
export function noteEntry(handler: Method): Method {
  if (wrapped.has(handler)) return handler;
  const entered: Method = function (...args) {
    currentFrame()?.enterHandler();
    return handler.apply(this, args);
  };
  Object.defineProperty(entered, 'name', { value: handler.name, configurable: true });
  Object.defineProperty(entered, 'length', { value: handler.length, configurable: true });
  for (const key of Reflect.getMetadataKeys(handler) as unknown[]) {
    Reflect.defineMetadata(key, Reflect.getMetadata(key, handler), entered);
  }
  wrapped.add(entered);
  return entered;
}
