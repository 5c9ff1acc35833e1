import { getMetadataStorage, validateSync, type ValidationError } from 'class-validator';
import { IdempotencyUsageError } from './core/errors.js';
import { sharedName } from './http/response-headers.js';
import {
  ModuleOptionsSchema,
  NESTED_SCHEMAS,
  RouteOptionsSchema,
  STAND_INS,
} from './idempotency.options.schema.js';

/** @throws IdempotencyUsageError `IDEMPOTENCY_OPTIONS_INVALID`, naming every option that is wrong and its remedy. */
export function validateModuleOptions(
  options: unknown,
  method: 'forRoot' | 'forRootAsync' = 'forRoot',
): void {
  validate(options, ModuleOptionsSchema, `IdempotencyModule.${method}()`);
}

/** The same for a route; `where` names it in the error. */
export function validateRouteOptions(options: unknown, where: string): void {
  validate(options, RouteOptionsSchema, where);
}

function validate(options: unknown, schema: new () => object, where: string): void {
  if (!isObject(options)) throw invalid(where, ['the options must be an object']);
  const messages: string[] = [];
  const errors = validateSync(instantiate(schema, options, '', messages), {
    whitelist: true,
    forbidNonWhitelisted: true,
    forbidUnknownValues: true,
  });
  messages.push(...errors.flatMap((error) => messagesOf(error, '')), ...combinationMessages(options));
  if (messages.length > 0) throw invalid(where, messages);
}

/**
 * class-validator checks instances of its classes. A nested value that is no plain object is complained of here and
 * left out, because class-validator would accept an array and see through a function.
 */
function instantiate(schema: new () => object, values: object, path: string, complaints: string[]): object {
  const instance: Record<string, unknown> = new schema() as Record<string, unknown>;
  for (const [name, value] of Object.entries(values) as [string, unknown][]) {
    const nestedPath = path === '' ? name : `${path}.${name}`;
    const nested = NESTED_SCHEMAS[nestedPath];
    const standIn = STAND_INS[nestedPath];
    if (!nested || value === undefined || value === standIn) instance[name] = value;
    else if (isObject(value)) instance[name] = instantiate(nested, value, nestedPath, complaints);
    else complaints.push(`option "${nestedPath}" must be an object`);
  }
  return instance;
}

function messagesOf(
  { property, constraints = {}, children = [], target }: ValidationError,
  path: string,
): string[] {
  const name = path === '' ? property : `${path}.${property}`;
  const own = Object.entries(constraints).map(([constraint, message]) => {
    if (constraint === 'whitelistValidation')
      return `unknown option "${name}"; known are ${knownNames(target)}`;
    return `option "${name}" ${withoutName(message, property)}`;
  });
  return [...own, ...children.flatMap((child) => messagesOf(child, name))];
}

/** class-validator's own messages begin with the property; ours do not. */
function withoutName(message: string, property: string): string {
  return message.startsWith(`${property} `)
    ? message.slice(property.length + 1)
    : message.replace(`each value in ${property} `, 'each value ');
}

function knownNames(target: object | undefined): string {
  if (!target) return 'none';
  const metadata = getMetadataStorage().getTargetValidationMetadatas(target.constructor, '', true, false);
  return [...new Set(metadata.map(({ propertyName }) => propertyName))].sort().join(', ');
}

/** What is wrong with options that are valid each by itself. */
function combinationMessages(options: object): string[] {
  const { key, responseHeaders } = options as Record<string, unknown>;
  return [
    ...keyMessages(isObject(key) ? key : {}),
    ...nameMessages(isObject(responseHeaders) ? responseHeaders : {}),
  ];
}

function keyMessages({ minLength, maxLength, ...key }: Record<string, unknown>): string[] {
  const messages: string[] = [];
  if (typeof minLength === 'number' && typeof maxLength === 'number' && minLength > maxLength)
    messages.push('option "key.minLength" must not be greater than "key.maxLength"');
  if ([key['header'], key['body'], key['from']].filter((source) => source !== undefined).length > 1)
    messages.push('option "key" must name one source: "header", "body" or "from"');
  return messages;
}

function nameMessages(headers: object): string[] {
  const shared = sharedName(Object.values(headers).filter((name) => typeof name === 'string'));
  return shared === undefined ? [] : [`option "responseHeaders" gives two headers the name "${shared}"`];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(where: string, messages: readonly string[]): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_OPTIONS_INVALID', `${where}: ${messages.join('; ')}.`);
}
