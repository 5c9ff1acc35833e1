import 'reflect-metadata';
import { RequestMethod } from '@nestjs/common';
import { MetadataScanner, type ModulesContainer } from '@nestjs/core';
import { currentFrame } from '../../core/ambient.js';
import { IdempotencyUsageError } from '../../core/errors.js';
import { innermost } from '../../http/late-claim.js';
import * as nest from '../../http/nest-metadata.js';
import type { IdempotentRouteOptions } from '../../idempotency.options.js';

/*
 * Which handlers are protected. They are known by what Nest keeps of them: class, method name and metadata. Functions are
 * never compared, because tracing, generators, proxies and inheritance put others in their place.
 */

const ROUTE_OPTIONS = Symbol.for('nestjs-pg-idempotency:route-options');
/** A handler's names in its classes. Nest tells interceptors the function alone, and wrappers copy its metadata. */
const METHOD_NAMES = Symbol.for('nestjs-pg-idempotency:method-names');

export type Controller = abstract new (...args: never[]) => object;
export type Handler = (this: unknown, ...args: unknown[]) => unknown;

/** A handler that is marked. */
export interface ProtectedRoute {
  readonly controller: Controller;
  /** Of the method. */
  readonly name: string;
  readonly handler: Handler;
  /** The controller's options, then its own. */
  readonly marks: IdempotentRouteOptions[];
}

/** Methods that change something; a key on any other says nothing. */
const MUTATING = new Set([RequestMethod.POST, RequestMethod.PUT, RequestMethod.PATCH, RequestMethod.DELETE]);

/**
 * Marks a method. The options are kept for class and name, so that whatever replaces the function is marked, and on the
 * function, so that it stays marked wherever it is copied to.
 */
export function markMethod(prototype: object, name: string | symbol, options: IdempotentRouteOptions): void {
  Reflect.defineMetadata(ROUTE_OPTIONS, options, prototype, name);
  const handler: unknown = Reflect.get(prototype, name);
  if (typeof handler === 'function') Reflect.defineMetadata(ROUTE_OPTIONS, options, handler);
}

/** Marks a controller: every handler of it that changes something, and those that others add to it later. */
export function markController(controller: Controller, options: IdempotentRouteOptions): void {
  // What replaces a class, such as a Proxy, shares its prototype or inherits from it.
  Reflect.defineMetadata(ROUTE_OPTIONS, options, controller.prototype as object);
}

/** The options a handler was marked with: the controller's, then its own. Undefined when it is not marked. */
function marksOf(controller: Controller, name: string): IdempotentRouteOptions[] | undefined {
  const prototype = controller.prototype as object;
  const handler: unknown = methodOf(prototype, name);
  const own = optionsOn(prototype, name) ?? (typeof handler === 'function' ? optionsOn(handler) : undefined);
  const shared = optionsOn(prototype);
  if (own === undefined && (shared === undefined || !isCovered(handler))) return undefined;
  return [shared, own].filter((options) => options !== undefined);
}

function optionsOn(...place: [object, string?]): IdempotentRouteOptions | undefined {
  return Reflect.getMetadata(ROUTE_OPTIONS, ...(place as [object, string])) as
    IdempotentRouteOptions | undefined;
}

/** Every marked handler of an application's controllers. */
export function* protectedRoutes(modules: ModulesContainer): Generator<ProtectedRoute> {
  for (const module of modules.values()) {
    for (const { metatype } of module.controllers.values()) {
      if (typeof metatype === 'function') yield* markedIn(metatype as Controller);
    }
  }
}

/** The marked handlers of one class. */
export function markedIn(controller: Controller): ProtectedRoute[] {
  return methodNames(controller).flatMap((name) => {
    const marks = marksOf(controller, name);
    return marks
      ? [{ controller, name, handler: methodOf(controller.prototype as object, name), marks }]
      : [];
  });
}

export function methodNames(controller: Controller): string[] {
  return new MetadataScanner().getAllMethodNames(controller.prototype as object);
}

function methodOf(target: object, name: string): Handler {
  return Reflect.get(target, name) as Handler;
}

/**
 * Has the classes of marked handlers note that these are entered. Called while the container is built: Nest makes its
 * routes later. The wrapper is a property of the leaf class, so that its base and the others below that stay as they are.
 */
export function guardClasses(modules: ModulesContainer): void {
  for (const module of modules.values()) {
    for (const { metatype } of module.controllers.values()) {
      if (typeof metatype === 'function')
        guard(metatype as Controller, (metatype as Controller).prototype as object);
    }
  }
}

/** The same for functions that a constructor has put on its instance, once there are instances. */
export function guardInstances(modules: ModulesContainer): void {
  for (const module of modules.values()) {
    for (const { metatype, instance: made } of module.controllers.values()) {
      const instance = made as object | undefined;
      if (typeof metatype === 'function' && instance) guard(metatype as Controller, instance);
    }
  }
}

function guard(controller: Controller, target: object): void {
  const marked = new Set(markedIn(controller).map(({ name }) => name));
  if (marked.size === 0) return;
  for (const name of methodNames(controller)) {
    const handler: unknown = Reflect.get(target, name);
    if (typeof handler !== 'function' || guards.has(handler)) continue;
    if (marked.has(name)) replace(controller, target, name, guarded(handler as Handler, name));
    // Only one that is none of these can be a handler that nothing is known of.
    else Reflect.defineMetadata(METHOD_NAMES, [...new Set([...namesNoted(handler), name])], handler);
  }
}

function replace(controller: Controller, target: object, name: string, handler: Handler): void {
  const enumerable = Object.getOwnPropertyDescriptor(target, name)?.enumerable ?? false;
  const isReplaced = Reflect.defineProperty(target, name, {
    value: handler,
    writable: true,
    configurable: true,
    enumerable,
  });
  if (!isReplaced) {
    throw unsupported(
      `${controller.name}.${name}`,
      'cannot be replaced by the library, because its object is frozen. Remove Object.freeze() from the controller.',
    );
  }
}

const guards = new WeakSet<object>();

/**
 * The handler, noting that it is entered: what it never saw, because a guard, a pipe or an upload limit refused the
 * request, is not the result of the operation.
 */
function guarded(handler: Handler, name: string): Handler {
  const guarding: Handler = function (...args) {
    currentFrame()?.enterHandler();
    return handler.apply(this, args);
  };
  Object.assign(guarding, handler);
  Object.defineProperty(guarding, 'name', { value: handler.name, configurable: true });
  Object.defineProperty(guarding, 'length', { value: handler.length, configurable: true });
  for (const key of Reflect.getMetadataKeys(handler) as unknown[]) {
    Reflect.defineMetadata(key, Reflect.getMetadata(key, handler), guarding);
  }
  Reflect.defineMetadata(METHOD_NAMES, [name], guarding);
  const others = (Reflect.getMetadata(nest.INTERCEPTORS, handler) ?? []) as unknown[];
  Reflect.defineMetadata(nest.INTERCEPTORS, [...others, innermost], guarding);
  guards.add(guarding);
  return guarding;
}

/** The names of the method that a handler is, or stands for. One that needs no protection may have several. */
export function methodNamesOf(handler: object): readonly string[] {
  const noted = namesNoted(handler);
  const { name } = handler as { name?: unknown };
  return noted.length > 0 || typeof name !== 'string' ? noted : [name.replace(/^(?:bound )+/, '')];
}

function namesNoted(handler: object): readonly string[] {
  return (Reflect.getMetadata(METHOD_NAMES, handler) ?? []) as readonly string[];
}

/** Whether a function is an HTTP handler of a method that changes something. */
function isMutatingRoute(handler: unknown): handler is Handler {
  if (typeof handler !== 'function' || !Reflect.hasMetadata(nest.PATH, handler)) return false;
  return MUTATING.has(requestMethodOf(handler) as RequestMethod);
}

/** What the mark of a controller covers: with what it refuses where it cannot protect. */
function isCovered(handler: unknown): boolean {
  return (
    isMutatingRoute(handler) ||
    (typeof handler === 'function' && requestMethodOf(handler) === RequestMethod.ALL)
  );
}

/** Why a handler cannot be protected, and what to do instead. First match counts. */
const REFUSALS: readonly [applies: (handler: object) => boolean, why: string][] = [
  [
    (handler) => Reflect.hasMetadata(nest.GRAPHQL_RESOLVER, handler),
    'is a GraphQL resolver, whose response is composed of many resolvers and cannot be replayed. Put the mutation behind ' +
      'an HTTP endpoint.',
  ],
  [
    (handler) =>
      Reflect.hasMetadata(nest.MESSAGE_PATTERN, handler) ||
      Reflect.hasMetadata(nest.GATEWAY_MESSAGE, handler),
    'handles messages, not HTTP requests. Move the decorator to an HTTP handler, or call IdempotencyService.run() in it.',
  ],
  [
    (handler) => Reflect.hasMetadata(nest.SSE, handler),
    'is an @Sse() handler, whose stream has no end to be recorded. Start the work with an idempotent POST, and let the ' +
      'stream only report on it.',
  ],
  [
    (handler) => !Reflect.hasMetadata(nest.PATH, handler),
    'is not an HTTP handler of a controller. Move the decorator to the method with @Post(), @Put(), @Patch() or @Delete().',
  ],
  [
    (handler) => requestMethodOf(handler) === RequestMethod.ALL,
    'answers every method with @All(). Give the methods that change something handlers of their own.',
  ],
  [
    (handler) => !isMutatingRoute(handler),
    'handles a method that needs no idempotency key, since it changes nothing. Remove the decorator, or make it a @Post(), ' +
      '@Put(), @Patch() or @Delete().',
  ],
];

/** @throws IdempotencyUsageError `IDEMPOTENCY_HANDLER_UNSUPPORTED` with the remedy. */
export function refuseUnsupported(handler: object, name: string): void {
  const refusal = REFUSALS.find(([applies]) => applies(handler));
  if (refusal) throw unsupported(name, refusal[1]);
}

/** @throws IdempotencyUsageError for a class that is marked, and is none of an HTTP controller. */
export function refuseWithoutRoutes(type: Controller): void {
  const isMarked = Reflect.hasOwnMetadata(ROUTE_OPTIONS, type.prototype as object);
  const isRouted = (name: string): boolean =>
    Reflect.hasMetadata(nest.PATH, methodOf(type.prototype as object, name));
  if (!isMarked || methodNames(type).some(isRouted)) return;
  throw unsupported(
    type.name,
    'is marked with @Idempotent(), and has no HTTP handlers. Move the decorator to a controller, or call ' +
      'IdempotencyService.run().',
  );
}

/** A function that may stand for a marked handler, and of which nothing is known. */
export function unknownHandler(controller: Controller): IdempotencyUsageError {
  return unsupported(
    `A handler of ${controller.name}`,
    'is a function that tells neither its name nor the metadata of the method that it stands for, so that it could run ' +
      'unprotected. Have what wraps it copy both, as tracing does, or wrap it by a method decorator.',
  );
}

/** A controller that was added when the handlers had been looked for. */
export function unknownController(controller: Controller): IdempotencyUsageError {
  return unsupported(
    controller.name,
    'has handlers with @Idempotent(), and was added after the application was initialised. Import its module at boot.',
  );
}

function unsupported(name: string, why: string): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_HANDLER_UNSUPPORTED', `${name} ${why}`);
}

function requestMethodOf(handler: object): unknown {
  return Reflect.getMetadata(nest.METHOD, handler);
}
