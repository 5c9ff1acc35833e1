import * as nest from '../http/nest-metadata.js';
import type { RouteSettings } from '../http/route-settings.js';
import type { DescribedRoute } from './described-route.js';
import { SWAGGER_PARAMETERS, type Parameter, type Schema, type Swagger } from './swagger.js';

/** Describes where the key goes, and its rules. A key that a function finds is nothing that a caller sends by itself. */
export function describeKey(swagger: Swagger, route: DescribedRoute): void {
  const { keyRules } = route.settings;
  const { kind, name } = keyRules.source;
  if (kind === 'header') describeHeader(swagger, route, name);
  if (kind === 'body') describeField(swagger, route, name);
}

function describeHeader(swagger: Swagger, route: DescribedRoute, name: string): void {
  const known = parametersOf(route).some((parameter) => parameter.name?.toLowerCase() === name.toLowerCase());
  if (known) return;
  const { required } = route.settings.keyRules;
  const description = descriptionOf(route.settings);
  route.apply(swagger.ApiHeader({ name, required, description, schema: schemaOf(route.settings) }));
}

/** Beside the fields that the type of the body tells of. A body that was described by hand is left as it is. */
function describeField(swagger: Swagger, route: DescribedRoute, name: string): void {
  if (parametersOf(route).some((parameter) => parameter.in === 'body')) return;
  const field: Schema = { ...schemaOf(route.settings), description: descriptionOf(route.settings) };
  const key: Schema = {
    type: 'object',
    properties: { [name]: field },
    ...(route.settings.keyRules.required ? { required: [name] } : {}),
  };
  const model = bodyModel(route);
  if (model) route.apply(swagger.ApiExtraModels(model));
  route.apply(
    swagger.ApiBody({ schema: model ? { allOf: [{ $ref: swagger.getSchemaPath(model) }, key] } : key }),
  );
}

function parametersOf({ handler }: DescribedRoute): Parameter[] {
  return (Reflect.getMetadata(SWAGGER_PARAMETERS, handler) ?? []) as Parameter[];
}

function schemaOf({ keyRules: { minLength, maxLength, pattern } }: RouteSettings): Schema {
  // OpenAPI's patterns have no flags: without them, one that needs them would say something else.
  return { type: 'string', minLength, maxLength, ...(isFlagless(pattern) && { pattern: pattern.source }) };
}

/** Whether the source alone means the same. JSON Schema reads patterns as with `u`, and `d` does not change what matches. */
function isFlagless({ flags }: RegExp): boolean {
  return /^[du]*$/.test(flags);
}

function descriptionOf({ keyRules: { required, minLength, maxLength, pattern } }: RouteSettings): string {
  const form = isFlagless(pattern) ? '' : ` that match ${String(pattern)}`;
  const otherwise = required ? '' : ' Without it, nothing protects against a second execution.';
  return (
    `Marks one operation, the same on each of its retries: ${minLength} to ${maxLength} characters${form}. A repetition gets ` +
    `the recorded answer.${otherwise}`
  );
}

type Model = abstract new (...args: never[]) => unknown;

/** The class of the parameter that takes the whole body. */
function bodyModel({ controller, name }: DescribedRoute): Model | undefined {
  const args = (Reflect.getMetadata(nest.ROUTE_ARGUMENTS, controller, name) ?? {}) as Record<
    string,
    { readonly index: number; readonly data?: unknown }
  >;
  const whole = Object.entries(args).find(
    ([kind, { data }]) => Number(kind.split(':')[0]) === nest.BODY_ARGUMENT && data === undefined,
  );
  const types = (Reflect.getMetadata('design:paramtypes', controller.prototype as object, name) ??
    []) as unknown[];
  const type = whole && types[whole[1].index];
  const tellsNothing = [Object, Array, String, Number, Boolean].includes(type as ObjectConstructor);
  return typeof type === 'function' && !tellsNothing ? (type as unknown as Model) : undefined;
}
