import { call, type CallResult } from './call.js';
import type { CallOptions } from './call-options.js';
import type {
  BodyOf,
  DataOf,
  EndpointDeclaration,
  IdempotencyOptions,
  QueryValues,
  SharedOptions,
} from './declaration.js';
import { DeclarationError } from './errors.js';
import type { KeyInput, KeyStrategy } from './keys.js';
import { isWrite, type HttpMethod } from './method.js';
import { parametersOf, type PathParameters, type PathValue } from './path.js';
import type { StandardSchema } from './schema.js';
import { settingsOf } from './settings.js';

/**
 * One operation of a resource: an endpoint without its address. What it leaves out it has from the client; its `path` is behind
 * that of its resource.
 */
export type Operation = {
  readonly method: HttpMethod;
  readonly path?: string;
} & Pick<
  EndpointDeclaration<HttpMethod, string, StandardSchema, StandardSchema>,
  'input' | 'output' | 'retry' | 'timeout' | 'headers'
> & { readonly idempotency?: OperationIdempotency | false };

/** A method, so that a strategy may say what it takes: it is not inferred from the `input` beside it. */
interface OperationIdempotency extends Omit<IdempotencyOptions, 'key'> {
  key?(input: KeyInput): ReturnType<KeyStrategy>;
}

/** Operations and sub-resources, by name. */
export interface Members {
  readonly [name: string]: Operation | Resource<string, Members>;
}

/** Operations that share a path. */
export interface Resource<Path extends string, Own extends Members> {
  /** Tells it from an operation. */
  readonly kind: 'resource';
  /** Behind that of the resource around it. */
  readonly path: Path;
  /** Its operations and sub-resources. */
  readonly members: Own;
}

/** What the operations of a client have in common. */
export interface ClientOptions extends SharedOptions {
  /**
   * The idempotency of every operation that writes; an operation may have its own, or `false`. Default: none.
   *
   * @example
   * ```ts
   * idempotency: {}
   * ```
   */
  readonly idempotency?: IdempotencyOptions;
}

/** What a call of an operation may say besides its arguments. */
export interface OperationOptions extends CallOptions {
  /**
   * Values of the query; undefined ones are left out, arrays are repeated. Default: none.
   *
   * @example
   * ```ts
   * await support.tickets.list({ query: { status: 'open', tag: ['billing', 'urgent'] } });
   * ```
   */
  readonly query?: QueryValues;
  /**
   * Headers of this call, on top of those declared. Default: none.
   *
   * @example
   * ```ts
   * await support.tickets.create(body, { headers: { 'X-Team': 'billing' } });
   * ```
   */
  readonly headers?: Readonly<Record<string, string>>;
}

/** A client's functions: `client.tickets.create(body, options)`. */
export type Client<Own extends Members, Prefix extends string = ''> = {
  readonly [Name in keyof Own]: Own[Name] extends Resource<infer Path, infer Inner>
    ? Client<Inner, `${Prefix}${Path}`>
    : Own[Name] extends Operation
      ? OperationCall<Own[Name], Prefix>
      : never;
};

/** First the values of the path's parameters, then the body where the operation has an `input`, then the options. */
type OperationCall<Own extends Operation, Prefix extends string> = (
  ...args: [
    ...PathValues<PathParameters<`${Prefix}${Own['path'] extends string ? Own['path'] : ''}`>>,
    ...(Own['input'] extends StandardSchema ? [body: BodyOf<Own['input']>] : []),
    options?: OperationOptions,
  ]
) => Promise<CallResult<DataOf<Own['output'] extends StandardSchema ? Own['output'] : undefined>>>;

type PathValues<Names extends readonly string[]> = { [Index in keyof Names]: PathValue };

/**
 * Groups the operations of one path, for {@link createClient}.
 *
 * @example
 * ```ts
 * resource('/tickets', {
 *   create: { method: 'POST', input: newTicket, output: ticket },
 *   update: { method: 'PATCH', path: '/:id', input: changes, output: ticket },
 *   messages: resource('/:id/messages', { create: { method: 'POST', input: newMessage, output: message } }),
 * });
 * ```
 */
export function resource<const Path extends string, const Own extends Members>(
  path: Path,
  members: Own,
): Resource<Path, Own> {
  return { kind: 'resource', path, members };
}

/**
 * Makes a client of an API from its resources: each operation a function that takes path parameters, then the body, then an
 * options bag with `idempotencyKey`.
 *
 * @throws DeclarationError as {@link endpoint} does, for any of its operations.
 *
 * @example
 * ```ts
 * const support = createClient(
 *   { baseUrl: 'https://api.example.com', auth: apiKey('X-API-Key', env('SUPPORT_API_KEY')), idempotency: {}, retry: {} },
 *   { tickets: resource('/tickets', { create: { method: 'POST', input: newTicket, output: ticket } }) },
 * );
 * await support.tickets.create({ title: 'Need help', priority: 'high' }, { idempotencyKey: 'submission_form_42' });
 * ```
 */
export function createClient<const Own extends Members>(options: ClientOptions, members: Own): Client<Own> {
  return build(options, '', members) as Client<Own>;
}

function build(options: ClientOptions, prefix: string, members: Members): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(members).map(([name, member]) => [
      name,
      isResource(member)
        ? build(options, prefix + member.path, member.members)
        : operation(options, prefix, name, member),
    ]),
  );
}

function isResource(member: Operation | Resource<string, Members>): member is Resource<string, Members> {
  return 'kind' in member;
}

function operation(
  client: ClientOptions,
  prefix: string,
  name: string,
  { path: ownPath = '', idempotency: own, ...declared }: Operation,
): (...args: unknown[]) => Promise<CallResult<unknown>> {
  const path = prefix + ownPath;
  const { idempotency: shared, ...rest } = client;
  const idempotency = own ?? (isWrite(declared.method) ? shared : false);
  const settings = settingsOf({
    ...rest,
    ...declared,
    path,
    headers: { ...client.headers, ...declared.headers },
    ...(idempotency && { idempotency }),
  });
  const names = parametersOf(path);
  const most = names.length + (declared.input ? 1 : 0);
  return async (...args) => {
    const [body, options = {}] = declared.input ? args.slice(names.length) : [undefined, args[names.length]];
    if (args.length > most + 1) throw new DeclarationError(`${name} takes ${most} arguments and options.`);
    const params = Object.fromEntries(names.map((each, index) => [each, args[index]]));
    const { query, headers, ...callOptions } = options as OperationOptions;
    const input = { params, body, ...(query && { query }), ...(headers && { headers }) };
    return call(settings, input, callOptions);
  };
}
