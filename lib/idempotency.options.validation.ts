import { getMetadataStorage, validateSync, type ValidationError } from 'class-validator';
import { IdempotencyUsageError } from './core/errors.js';
import { ModuleOptionsSchema, NESTED_SCHEMAS, RouteOptionsSchema } from './idempotency.options.schema.js';

/** @throws IdempotencyUsageError `IDEMPOTENCY_OPTIONS_INVALID`, naming every option that is wrong and its remedy. */
export function validateModuleOptions(options: unknown): void {
  validate(options, ModuleOptionsSchema, 'IdempotencyModule.forRoot()');
}

/** The same for a route; `where` names it in the error. */
export function validateRouteOptions(options: unknown, where: string): void {
  validate(options, RouteOptionsSchema, where);
}

function validate(options: unknown, schema: new () => object, where: string): void {
  if (!isObject(options)) throw invalid(where, ['the options must be an object']);
  const errors = validateSync(instantiate(schema, options, ''), {
    whitelist: true,
    forbidNonWhitelisted: true,
    forbidUnknownValues: true,
  });
  const messages = errors.flatMap((error) => messagesOf(error, ''));
  messages.push(...lengthMessages(options));
  if (messages.length > 0) throw invalid(where, messages);
}

/** class-validator checks instances of its classes; a nested value that is no object is left to be reported. */
function instantiate(schema: new () => object, values: object, path: string): object {
  const entries = Object.entries(values).map(([name, value]: [string, unknown]) => {
    const nestedPath = path === '' ? name : `${path}.${name}`;
    const nested = NESTED_SCHEMAS[nestedPath];
    return [name, nested && isObject(value) ? instantiate(nested, value, nestedPath) : value];
  });
  return Object.assign(new schema(), Object.fromEntries(entries)) as object;
}

function messagesOf(
  { property, constraints = {}, children = [], target }: ValidationError,
  path: string,
): string[] {
  const name = path === '' ? property : `${path}.${property}`;
  const own = Object.entries(constraints).map(([constraint, message]) => {
    if (constraint === 'whitelistValidation')
      return `unknown option "${name}"; known are ${knownNames(target)}`;
    if (constraint === 'nestedValidation') return `option "${name}" must be an object`;
    return `option "${name}" ${message.replace(`${property} `, '')}`;
  });
  return [...own, ...children.flatMap((child) => messagesOf(child, name))];
}

function knownNames(target: object | undefined): string {
  if (!target) return 'none';
  const metadata = getMetadataStorage().getTargetValidationMetadatas(target.constructor, '', true, false);
  return [...new Set(metadata.map(({ propertyName }) => propertyName))].sort().join(', ');
}

function lengthMessages(options: object): string[] {
  const { key } = options as { key?: { minLength?: unknown; maxLength?: unknown } };
  if (typeof key?.minLength !== 'number' || typeof key.maxLength !== 'number') return [];
  return key.minLength > key.maxLength
    ? ['option "key.minLength" must not be greater than "key.maxLength"']
    : [];
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(where: string, messages: readonly string[]): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_OPTIONS_INVALID', `${where}: ${messages.join('; ')}.`);
}
