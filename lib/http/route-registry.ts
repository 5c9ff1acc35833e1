import { RequestMethod, type ExecutionContext } from '@nestjs/common';
import type { ApplicationConfig, ModulesContainer } from '@nestjs/core';
import { IdempotencyUsageError } from '../core/errors.js';
import type { IdempotencyModuleOptions, IdempotentRouteOptions } from '../idempotency.options.js';
import {
  endpointName,
  targetOf,
  versionNames,
  type Routing,
  type Target,
} from '../transports/http/request.js';
import {
  markedIn,
  methodNamesOf,
  methodNames,
  refuseUnsupported,
  refuseWithoutRoutes,
  unknownController,
  unknownHandler,
  type Controller,
  type Handler,
  type ProtectedRoute,
} from '../transports/http/routes.js';
import { exchangeOf, type Exchange } from './exchange.js';
import * as nest from './nest-metadata.js';
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
  readonly routing: Routing;
  /** Headers that Nest sets before any interceptor although they are the handler's own: those of `@Header()`. */
  readonly ownHeaders: readonly string[];
}

/** Checks the options of a route; throws when they are invalid. */
export type RouteOptionsCheck = (options: IdempotentRouteOptions, where: string) => void;

/** Plans by the names of a class's methods; undefined for those that are not protected. */
type Plans = ReadonlyMap<string, RoutePlan | undefined>;

const UNPROTECTED: Plans = new Map();

/** The handler that has an endpoint. */
type Owner = Pick<ProtectedRoute, 'controller' | 'name'>;

/** Knows every protected handler of an application. */
export class RouteRegistry {
  /** Of every class that has been asked for, those without a protected handler too. */
  readonly #plans = new WeakMap<Controller, Plans>();
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
    const owners = new Map<string, Owner>();
    for (const module of modules.values()) {
      const prefix = modulePath(modules, module.metatype);
      for (const { metatype } of module.controllers.values()) {
        if (typeof metatype === 'function') this.#scanController(metatype as Controller, prefix, owners);
      }
      for (const { metatype, instance } of module.providers.values()) {
        const made = (instance as object | null | undefined)?.constructor;
        for (const type of new Set([metatype, made]))
          if (typeof type === 'function' && !module.controllers.has(type))
            refuseOnProvider(type as Controller);
      }
    }
  }

  /** @throws IdempotencyUsageError for a handler that may stand for a protected one, and would run unprotected. */
  planOf(context: ExecutionContext): RoutePlan | undefined {
    const controller: Controller = context.getClass();
    const plans = this.#plans.get(controller) ?? this.#unscanned(controller);
    if (plans.size === 0) return undefined;
    const names = methodNamesOf(context.getHandler()).filter((name) => plans.has(name));
    // A marked handler has one name alone: what is also called by another is none.
    if (names.some((name) => !plans.get(name))) return undefined;
    const [name] = names;
    if (name !== undefined) return plans.get(name);
    // Of all handlers, those that are protected change something.
    const { method } = exchangeOf(context).rawRequest;
    if (method === 'GET' || method === 'HEAD' || method === 'OPTIONS') return undefined;
    throw unknownHandler(controller);
  }

  /** What a request is aimed at, or undefined when another handler has its endpoint already. */
  targetOf(plan: RoutePlan, exchange: Exchange): Target | undefined {
    const target = targetOf(exchange, plan.routing, this.config.getVersioning());
    const endpoint = plan.settings.endpoint ?? target.endpoint;
    const owner = this.#endpoints.get(endpoint) ?? plan;
    this.#endpoints.set(endpoint, owner);
    return owner === plan ? { ...target, endpoint } : undefined;
  }

  /** @throws IdempotencyUsageError for a class with marked handlers that was not there at boot. */
  #unscanned(controller: Controller): Plans {
    if (markedIn(controller).length > 0) throw unknownController(controller);
    this.#plans.set(controller, UNPROTECTED);
    return UNPROTECTED;
  }

  #scanController(controller: Controller, prefix: string, owners: Map<string, Owner>): void {
    const marked = markedIn(controller);
    const plans = new Map<string, RoutePlan | undefined>();
    if (marked.length > 0) for (const name of methodNames(controller)) plans.set(name, undefined);
    for (const route of marked) {
      const { handler, marks } = route;
      const name = `${controller.name}.${route.name}`;
      refuseUnsupported(handler, name);
      for (const mark of marks) this.check(mark, `@Idempotent() on ${name}`);
      const plan = this.#plan(route, name);
      assertConsistent(plan);
      for (const endpoint of endpointsOf(controller, handler, prefix, plan, this.config))
        reserve(owners, endpoint, route);
      plans.set(route.name, plan);
    }
    this.#plans.set(controller, plans);
    // What Nest tells of a request is the constructor that its instance names.
    this.#plans.set((controller.prototype as { constructor: Controller }).constructor, plans);
  }

  #plan({ controller, name: method, handler, marks }: ProtectedRoute, name: string): RoutePlan {
    const headers = (Reflect.getMetadata(nest.HEADERS, handler) ?? []) as { name: string }[];
    return {
      name,
      settings: routeSettings(this.options, marks),
      answeredBy: answeredBy(controller, method, handler),
      routing: {
        hosts: declaredHosts(controller),
        version: declaredVersion(controller, handler, this.config),
      },
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
  if (!provider.prototype) return;
  refuseWithoutRoutes(provider);
  for (const { name, handler } of markedIn(provider)) refuseUnsupported(handler, `${provider.name}.${name}`);
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

function declaredHosts(controller: Controller): Routing['hosts'] {
  const hosts = Reflect.getMetadata(nest.HOST, controller) as
    string | RegExp | (string | RegExp)[] | undefined;
  return hosts === undefined ? undefined : [hosts].flat();
}

function declaredVersion(
  controller: Controller,
  handler: Handler,
  config: ApplicationConfig,
): Routing['version'] {
  const declared: unknown =
    Reflect.getMetadata(nest.VERSION, handler) ?? Reflect.getMetadata(nest.VERSION, controller);
  const versioning = config.getVersioning();
  return (declared ??
    (versioning && 'defaultVersion' in versioning
      ? versioning.defaultVersion
      : undefined)) as Routing['version'];
}

/** The endpoints a handler will have, but for the global prefix, which all share. */
function endpointsOf(
  controller: Controller,
  handler: Handler,
  prefix: string,
  plan: RoutePlan,
  config: ApplicationConfig,
): string[] {
  if (plan.settings.endpoint !== undefined) return [plan.settings.endpoint];
  const method = RequestMethod[Reflect.getMetadata(nest.METHOD, handler) as RequestMethod];
  const versions = config.getVersioning() ? versionNames(plan.routing.version) : [undefined];
  const names: string[] = [];
  for (const base of pathsOf(controller)) {
    for (const path of pathsOf(handler)) {
      const template = `/${prefix}/${base}/${path}`;
      for (const version of versions) names.push(endpointName(method, template, version, plan.routing.hosts));
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

function reserve(owners: Map<string, Owner>, endpoint: string, { controller, name }: ProtectedRoute): void {
  const owner = owners.get(endpoint);
  // A class may be a controller of several modules. Two classes of one name are two.
  if (owner && (owner.controller !== controller || owner.name !== name)) {
    const [one, other] = [`${controller.name}.${name}`, `${owner.controller.name}.${owner.name}`];
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_ENDPOINT_AMBIGUOUS',
      `${one} and ${other} would share the endpoint "${endpoint}", and with it each other's keys. Give them names of ` +
        "their own: @Idempotent({ endpoint: '…' }).",
    );
  }
  owners.set(endpoint, { controller, name });
}
