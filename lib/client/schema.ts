/** One complaint of a schema. */
export interface SchemaIssue {
  /** For people. */
  readonly message: string;
  /** Where in the value; absent for the value itself. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** What a schema says of a value. */
export type SchemaResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] };

/**
 * A schema of any library that follows Standard Schema (https://standardschema.dev), version 1: zod, valibot, arktype and
 * others.
 */
export interface StandardSchema<Input = unknown, Output = Input> {
  /** What Standard Schema defines. */
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** What a schema accepts. */
export type InputOf<Schema extends StandardSchema> = NonNullable<Schema['~standard']['types']>['input'];

/** What a schema makes of it. */
export type OutputOf<Schema extends StandardSchema> = NonNullable<Schema['~standard']['types']>['output'];

/**
 * A schema that gives a value a type and looks at nothing: for a server that is trusted, or without a schema library.
 *
 * @example
 * ```ts
 * output: unchecked<{ id: string; amount: number }>(),
 * ```
 */
export function unchecked<T>(): StandardSchema<T> {
  return {
    '~standard': {
      version: 1,
      vendor: 'nestjs-pg-idempotency',
      validate: (value) => ({ value: value as T }),
    },
  };
}

/** The complaints as one line: `items.0.quantity: expected number`. */
export function describeIssues(issues: readonly SchemaIssue[]): string {
  return issues
    .map(({ message, path = [] }) => {
      const where = path.map((part) => String(typeof part === 'object' ? part.key : part)).join('.');
      return where ? `${where}: ${message}` : message;
    })
    .join('; ');
}
