import { call, type CallResult } from './call.js';
import type { CallOptions } from './call-options.js';
import type { BodyOf, DataOf, EndpointDeclaration, Params, QueryValues } from './declaration.js';
import type { AnyInput } from './frozen-request.js';
import type { HttpMethod, WriteMethod } from './method.js';
import type { PathParameters } from './path.js';
import type { StandardSchema } from './schema.js';
import { settingsOf } from './settings.js';

/** What a call is given. */
export type CallInput<
  Method extends HttpMethod,
  Path extends string,
  Input extends StandardSchema | undefined,
> = {
  /**
   * Values of the query; undefined ones are left out, arrays are repeated. Default: none.
   *
   * @example
   * ```ts
   * await list({ query: { status: 'open', tag: ['billing', 'urgent'] } });
   * ```
   */
  readonly query?: QueryValues;
  /**
   * Headers of this call, on top of those declared. Default: none.
   *
   * @example
   * ```ts
   * await charge({ headers: { 'X-Team': 'billing' }, body });
   * ```
   */
  readonly headers?: Readonly<Record<string, string>>;
} & (PathParameters<Path> extends []
  ? { readonly params?: undefined }
  : {
      /**
       * The values of the path's parameters.
       *
       * @example
       * ```ts
       * await reply({ params: { ticketId }, body });
       * ```
       */
      readonly params: Params<Path>;
    }) &
  (Method extends WriteMethod
    ? Input extends StandardSchema
      ? {
          /**
           * The body, as its schema takes it.
           *
           * @example
           * ```ts
           * await charge({ body: { amount: 4200, ref: 'inv_88' } });
           * ```
           */
          readonly body: BodyOf<Input>;
        }
      : {
          /**
           * A value for JSON, or a form, a blob, bytes or a stream. Default: no body.
           *
           * @example
           * ```ts
           * await upload({ body: new FormData(form) });
           * ```
           */
          readonly body?: unknown;
        }
    : { readonly body?: undefined });

/** The arguments of a call: the input may be left out where nothing in it is required. */
type CallArguments<Input> =
  Partial<Input> extends Input
    ? [input?: Input, options?: CallOptions]
    : [input: Input, options?: CallOptions];

/** An endpoint as a function. */
export type Endpoint<Input, Data> = (...args: CallArguments<Input>) => Promise<CallResult<Data>>;

/**
 * Declares an endpoint once, as a typed function whose retries are safe: each call has one key and one frozen request, however
 * many attempts it takes.
 *
 * A call resolves with the answer of a success and throws a {@link CallError} for everything else. What it guarantees is
 * that all its attempts are one write to a server that honours the key; across calls that is so only for the same key.
 *
 * @throws DeclarationError for a declaration that cannot work, and for a write with `retry` and without `idempotency`.
 *
 * @example
 * ```ts
 * const charge = endpoint({
 *   method: 'POST',
 *   baseUrl: 'https://api.example.com',
 *   path: '/charges',
 *   retry: { attempts: 3, on: [429, 502, 503, 504], backoff: 'expo-jitter' },
 *   idempotency: {},
 * });
 * const { data, replayed } = await charge({ body: { amount: 4200, ref: 'inv_88' } });
 * ```
 */
export function endpoint<
  const Method extends HttpMethod,
  const Path extends string,
  Input extends StandardSchema | undefined = undefined,
  Output extends StandardSchema | undefined = undefined,
>(
  declaration: EndpointDeclaration<Method, Path, Input, Output>,
): Endpoint<CallInput<Method, Path, Input>, DataOf<Output>> {
  const settings = settingsOf(declaration);
  const send = (input: AnyInput = {}, options: CallOptions = {}): Promise<CallResult<unknown>> =>
    call(settings, input, options);
  return send as Endpoint<CallInput<Method, Path, Input>, DataOf<Output>>;
}
