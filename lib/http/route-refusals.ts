import { RequestMethod } from '@nestjs/common';
import { IdempotencyUsageError } from '../core/errors.js';
import * as nest from './nest-metadata.js';
import { isMutatingRoute, overridesMarked } from './route-mark.js';

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
    (handler) => methodOf(handler) === RequestMethod.ALL,
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

/** @throws IdempotencyUsageError when the mark is inherited by a function which does not know of it. */
export function refuseOverride(controller: { name: string; prototype: object }, method: string): void {
  if (!overridesMarked(controller, method)) return;
  const name = `${controller.name}.${method}`;
  throw unsupported(
    name,
    'is declared below the class whose @Idempotent() it inherits, where nothing tells that it is entered. Repeat ' +
      `@Idempotent() on ${name}, or on ${controller.name}.`,
  );
}

/** A handler that is routed, but is not the one that was marked. */
export function replacedOnInstance(name: string): IdempotencyUsageError {
  return unsupported(
    name,
    'is replaced on the instance, such as by `this.create = this.create.bind(this)`, so that it would run unprotected. ' +
      'Remove the assignment: Nest calls handlers with their controller as `this`. To wrap a handler, use a decorator.',
  );
}

function unsupported(name: string, why: string): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_HANDLER_UNSUPPORTED', `${name} ${why}`);
}

function methodOf(handler: object): unknown {
  return Reflect.getMetadata(nest.METHOD, handler);
}
