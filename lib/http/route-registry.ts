import { RequestMethod, type ExecutionContext } from '@nestjs/common';
import type { ApplicationConfig, ModulesContainer } from '@nestjs/core';
import { IdempotencyUsageError } from '../core/errors.js';
import type { IdempotencyModuleOptions, IdempotentRouteOptions } from '../idempotency.options.js';
import {
  anonymousTemplate,
  endpointName,
  versionNames,
  versionOf,
  type DeclaredVersion,
} from './endpoint.js';
import type { Exchange } from './exchange.js';
import * as nest from './nest-metadata.js';
import { methodNames, methodOf, type Controller, type Handler } from './protected-routes.js';
import { refuseOverride, refuseUnsupported, replacedOnInstance } from './route-refusals.js';
import { marksOf } from './route-mark.js';
import { sharedName } from './response-headers.js';
import { routeSettings, type RouteSettings } from './route-settings.js';

/** How the framework answers for a handler, which decides how a replay is triggered. */
type AnsweredBy = 'framework' | 'handler' | 'view';

/** A protected handler. */
export interface RoutePlan {
  /** Controller and method, for messages. */
  readonly name: string;
  readonly settings: RouteSettings;
  readonly answeredBy: AnsweredBy;
  readonly version: DeclaredVersion;
  /** Headers that Nest sets before any interceptor although they are the handler's own: those of `@Header()`. */
  readonly ownHeaders: readonly string[];
}

/** Checks the options of a route; throws when they are invalid. */
export type RouteOptionsCheck = (options: IdempotentRouteOptions, where: string) => void;

/** Knows every protected handler of an application. */
export class RouteRegistry {
  /** Every method of a controller that has a protected one. */
  readonly #plans = new WeakMap<Controller, Map<Handler, RoutePlan | undefined>>();
  readonly #endpoints = new Map<string, RoutePlan>();

  constructor(
    private readonly options: IdempotencyModuleOptions,
    private readonly config: ApplicationConfig,
    private readonly check: RouteOptionsCheck,
  ) {}

  /**
   * Finds the protected handlers.
   *
   * @throws IdempotencyUsageError for handlers that cannot be protected, and for two that would share an endpoint.
   */
  scan(modules: ModulesContainer): void {
    const routes = new Map<string, string>();
    for (const module of modules.values()) {
      const prefix = modulePath(modules, module.metatype);
      for (const { metatype, instance } of module.controllers.values()) {
        if (typeof metatype !== 'function') continue;
        this.#scanController(metatype as Controller, instance, prefix, routes);
      }
      for (const { metatype } of module.providers.values()) {
        if (typeof metatype === 'function' && !module.controllers.has(metatype))
          refuseOnProvider(metatype as Controller);
      }
    }
  }

  /** @throws IdempotencyUsageError for a handler that may stand for a protected one, and would run unprotected. */
  planOf(context: ExecutionContext): RoutePlan | undefined {
    const controller: Controller = context.getClass();
    const handler = context.getHandler() as Handler;
    const plans = this.#plans.get(controller);
    if (!plans || plans.has(handler)) return plans?.get(handler);
    // An instance made for this request has functions that were not there at boot; bound ones still tell their names.
    const name = handler.name.replace(/^(?:bound )+/, '');
    const method = methodOf(controller.prototype as object, name);
    if (plans.has(method) && !plans.get(method)) return undefined;
    throw replacedOnInstance(`${controller.name}.${name || '(anonymous)'}`);
  }

  /** The endpoint of a request, or undefined when another handler has it already. */
  endpointOf(plan: RoutePlan, exchange: Exchange): string | undefined {
    const version = versionOf(exchange, plan.version, this.config.getVersioning());
    const endpoint =
      plan.settings.endpoint ?? endpointName(exchange.rawRequest.method ?? '', exchange.template, version);
    const owner = this.#endpoints.get(endpoint) ?? plan;
    this.#endpoints.set(endpoint, owner);
    return owner === plan ? endpoint : undefined;
  }

  #scanController(
    controller: Controller,
    instance: object | undefined,
    prefix: string,
    routes: Map<string, string>,
  ): void {
    const plans = this.#plans.get(controller) ?? new Map<Handler, RoutePlan | undefined>();
    const prototype = controller.prototype as object;
    const names = methodNames(controller);
    for (const target of instance ? [prototype, instance] : [prototype]) {
      for (const name of names) plans.set(methodOf(target, name), undefined);
    }
    for (const methodName of names) {
      const marks = marksOf(controller, methodName);
      if (!marks) continue;
      const name = `${controller.name}.${methodName}`;
      const handler = methodOf(prototype, methodName);
      refuseUnsupported(handler, name);
      refuseOverride(controller, methodName);
      if (instance && methodOf(instance, methodName) !== handler) throw replacedOnInstance(name);
      for (const mark of marks) this.check(mark, `@Idempotent() on ${name}`);
      const plan = this.#plan(controller, methodName, name, marks);
      assertConsistent(plan);
      for (const route of routeNames(controller, handler, prefix, plan, this.config))
        reserve(routes, route, name);
      this.#plans.set(controller, plans.set(handler, plan));
    }
  }

  #plan(controller: Controller, method: string, name: string, marks: IdempotentRouteOptions[]): RoutePlan {
    const handler = methodOf(controller.prototype as object, method);
    const headers = (Reflect.getMetadata(nest.HEADERS, handler) ?? []) as { name: string }[];
    return {
      name,
      settings: routeSettings(this.options, marks),
      answeredBy: answeredBy(controller, method, handler),
      version: declaredVersion(controller, handler, this.config),
      ownHeaders: headers.map((header) => header.name.toLowerCase()),
    };
  }
}

/** Each option is valid by itself, but some come from the module and some from the route. */
function assertConsistent({ name, settings: { keyRules, responseHeaders } }: RoutePlan): void {
  const shared = sharedName(responseHeaders.names);
  const complaint =
    keyRules.minLength > keyRules.maxLength
      ? `"key.minLength" must not be greater than "key.maxLength", which is ${keyRules.maxLength}`
      : shared && `"responseHeaders" gives two headers the name "${shared}"`;
  if (!complaint) return;
  throw new IdempotencyUsageError(
    'IDEMPOTENCY_OPTIONS_INVALID',
    `@Idempotent() on ${name}: option ${complaint}.`,
  );
}

function refuseOnProvider(provider: Controller): void {
  for (const method of provider.prototype ? methodNames(provider) : []) {
    if (!marksOf(provider, method)) continue;
    const handler = methodOf(provider.prototype as object, method);
    refuseUnsupported(handler, `${provider.name}.${method}`);
  }
}

/** As Nest's router decides it: a handler that takes the response answers itself, unless it says passthrough. */
function answeredBy(controller: Controller, method: string, handler: Handler): AnsweredBy {
  if (Reflect.hasMetadata(nest.RENDER, handler)) return 'view';
  const args = (Reflect.getMetadata(nest.ROUTE_ARGUMENTS, controller, method) ?? {}) as Record<
    string,
    unknown
  >;
  const kinds = Object.keys(args).map((argument) => Number(argument.split(':')[0]));
  const takesResponse = kinds.includes(nest.RESPONSE_ARGUMENT) || kinds.includes(nest.NEXT_ARGUMENT);
  const passesThrough = Reflect.getMetadata(nest.RESPONSE_PASSTHROUGH, controller, method) === true;
  return takesResponse && !passesThrough ? 'handler' : 'framework';
}

function declaredVersion(
  controller: Controller,
  handler: Handler,
  config: ApplicationConfig,
): DeclaredVersion {
  const declared: unknown =
    Reflect.getMetadata(nest.VERSION, handler) ?? Reflect.getMetadata(nest.VERSION, controller);
  const versioning = config.getVersioning();
  return (declared ??
    (versioning && 'defaultVersion' in versioning ? versioning.defaultVersion : undefined)) as
    DeclaredVersion | undefined;
}

/** The endpoints a handler will have, but for the global prefix, which all share. */
function routeNames(
  controller: Controller,
  handler: Handler,
  prefix: string,
  plan: RoutePlan,
  config: ApplicationConfig,
): string[] {
  if (plan.settings.endpoint !== undefined) return [plan.settings.endpoint];
  const method = RequestMethod[Reflect.getMetadata(nest.METHOD, handler) as RequestMethod];
  const versions = config.getVersioning() ? versionNames(plan.version) : [undefined];
  const names: string[] = [];
  for (const base of pathsOf(controller)) {
    for (const path of pathsOf(handler)) {
      const template = anonymousTemplate(`/${prefix}/${base}/${path}`);
      for (const version of versions) names.push(endpointName(method, template, version));
    }
  }
  return [...new Set(names)];
}

function pathsOf(target: object): string[] {
  return [(Reflect.getMetadata(nest.PATH, target) ?? '') as string | string[]].flat();
}

function modulePath(modules: ModulesContainer, module: object): string {
  const own = (Reflect.getMetadata(nest.MODULE_PATH + modules.applicationId, module) ??
    Reflect.getMetadata(nest.MODULE_PATH, module)) as string | undefined;
  return own ?? '';
}

function reserve(routes: Map<string, string>, route: string, name: string): void {
  const other = routes.get(route);
  if (other !== undefined && other !== name) {
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_ENDPOINT_AMBIGUOUS',
      `${name} and ${other} would share the endpoint "${route}", and with it each other's keys. Give them names of ` +
        "their own: @Idempotent({ endpoint: '…' }).",
    );
  }
  routes.set(route, name);
}
