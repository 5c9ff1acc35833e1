import type { Auth } from './auth.js';
import type { Duration } from './duration.js';
import type { KeyInput, KeyStrategy } from './keys.js';
import type { HttpMethod, ReadMethod } from './method.js';
import type { PathParameters, PathValue } from './path.js';
import type { CallHooks } from './reports.js';
import type { InputOf, OutputOf, StandardSchema } from './schema.js';

/** When to try again. What makes two attempts one write is `idempotency`, and is declared apart. */
export interface RetryOptions {
  /**
   * Requests sent at most, the first included. What a duplicate waits for (409, still in progress) does not count.
   * Default: 3.
   *
   * @example
   * ```ts
   * retry: { attempts: 5 }
   * ```
   */
  readonly attempts?: number;
  /**
   * Statuses after which to try again. Network failures and attempts that ran out of time are always tried again; a
   * replayed error never is. 400, 409 and 422 are final, and refused here. Default: 408, 425, 429, 500, 502, 503 and 504.
   *
   * @example
   * ```ts
   * retry: { on: [429, 503] }
   * ```
   */
  readonly on?: readonly number[];
  /**
   * The pause before the next attempt: random between 0 and `base`, doubled after each failure up to `max` (full jitter).
   * `Retry-After` is obeyed as the least pause. Default: `'expo-jitter'`, which is `{ base: '200ms', max: '10s' }`.
   *
   * @example
   * ```ts
   * retry: { backoff: { base: '1s', max: '1m' } }
   * ```
   */
  readonly backoff?: 'expo-jitter' | { readonly base?: Duration; readonly max?: Duration };
  /**
   * Allows to repeat a write (POST, PUT, PATCH, DELETE) without an idempotency key, which may do it more than once. Default:
   * false; such a declaration is refused.
   *
   * @example
   * ```ts
   * retry: { attempts: 3, unsafe: true }
   * ```
   */
  readonly unsafe?: boolean;
}

/** What makes all attempts of a call, or several calls, one write. */
export interface IdempotencyOptions<Input = KeyInput> {
  /**
   * Chooses the key of a call: `randomKey()`, `derivedKey(...)`, `bodyFingerprintKey()` or a function of your own. With the
   * default a double click is two writes; with a derived key it is one. Default: `randomKey()`.
   *
   * @example
   * ```ts
   * idempotency: { key: ({ body }) => `job_${body.jobId}` }
   * ```
   */
  readonly key?: KeyStrategy<Input>;
  /**
   * The header that carries the key. Default: `'Idempotency-Key'`.
   *
   * @example
   * ```ts
   * idempotency: { header: 'X-Request-Id' }
   * ```
   */
  readonly header?: string;
  /**
   * What the server accepts, checked before anything is sent. Default: 1 to 256 printable ASCII characters, neither space
   * at the ends nor a quotation mark at the beginning, which a server may take for the syntax of RFC 8941.
   *
   * @example
   * ```ts
   * idempotency: { rules: { minLength: 8, maxLength: 64, pattern: /^[\w-]+$/ } }
   * ```
   */
  readonly rules?: { readonly minLength?: number; readonly maxLength?: number; readonly pattern?: RegExp };
  /**
   * Names of the response headers that tell of a replay (`'true'`) and of when the original ran. Default:
   * `'Idempotency-Replayed'` and `'Idempotency-Created-At'`. Across origins a browser shows them only where the server lists
   * them in `Access-Control-Expose-Headers`.
   *
   * @example
   * ```ts
   * idempotency: { responseHeaders: { replayed: 'Idempotent-Replayed' } }
   * ```
   */
  readonly responseHeaders?: { readonly replayed?: string; readonly createdAt?: string };
  /**
   * Error codes of the server, looked for as `code`, `error.code` and `error` of a JSON body. Default: `inProgress` is
   * `IDEMPOTENCY_IN_PROGRESS`, which is waited out; `keyReused` is `IDEMPOTENCY_KEY_REUSED`.
   *
   * @example
   * ```ts
   * idempotency: { codes: { keyReused: 'E_IDEMPOTENCY_KEY_REUSED' } }
   * ```
   */
  readonly codes?: { readonly inProgress?: string; readonly keyReused?: string };
}

/** Limits in time. */
export interface TimeoutOptions {
  /**
   * For the whole call: attempts, pauses and hooks. A pause that would not end in time is not begun. Default: `'30s'`.
   *
   * @example
   * ```ts
   * timeout: { total: '2m' }
   * ```
   */
  readonly total?: Duration;
  /**
   * For one attempt, from its request to the last byte of its answer. Default: `'10s'`.
   *
   * @example
   * ```ts
   * timeout: { perAttempt: '3s' }
   * ```
   */
  readonly perAttempt?: Duration;
}

/** What endpoints of one API have in common. */
export interface SharedOptions extends CallHooks {
  /**
   * Where the API is. In browsers it may be relative to the page, such as `'/api'`. Credentials belong in `auth`.
   *
   * @example
   * ```ts
   * baseUrl: 'https://api.example.com/v1'
   * ```
   */
  readonly baseUrl: string;
  /**
   * When to try again. Default: never.
   *
   * @example
   * ```ts
   * retry: { attempts: 3, on: [429, 502, 503, 504], backoff: 'expo-jitter' }
   * ```
   */
  readonly retry?: RetryOptions;
  /**
   * Limits in time. Default: 30 seconds in all, 10 for each attempt.
   *
   * @example
   * ```ts
   * timeout: { total: '30s', perAttempt: '10s' }
   * ```
   */
  readonly timeout?: TimeoutOptions;
  /**
   * Authenticates each call, at the time of the call: `bearer(...)`, `apiKey(...)` or a function that returns headers.
   * Default: none.
   *
   * @example
   * ```ts
   * auth: bearer(env('API_TOKEN'))
   * ```
   */
  readonly auth?: Auth;
  /**
   * Headers of every request. Default: none but those of the body, `Accept` and the key.
   *
   * @example
   * ```ts
   * headers: { 'X-Api-Version': '2026-01-01' }
   * ```
   */
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * Sends the requests; anything with the signature of `fetch` that does not retry by itself. Default: the platform's `fetch`.
   *
   * @example
   * ```ts
   * fetch: (url, init) => fetch(url, { ...init, credentials: 'include' })
   * ```
   */
  readonly fetch?: Fetch;
}

/** As much of the platform's `fetch` as the client uses. */
export type Fetch = (url: string, init: FetchInit) => Promise<Response>;

/** What the client hands to `fetch`. */
export interface FetchInit {
  /** In capitals. */
  readonly method: HttpMethod;
  /** With names in lower case: those of the declaration and the call, credentials and the key. */
  readonly headers: Record<string, string>;
  /** Optional as in the platform's `RequestInit`, which takes no undefined under `exactOptionalPropertyTypes`. */
  readonly body?: Uint8Array<ArrayBuffer>;
  /**
   * Writes are not redirected: after a 301 or 302 a POST would go on as a GET, whose success says nothing of the write.
   * Reads with credentials are followed by the client itself, which does not take them to another origin.
   */
  readonly redirect: 'follow' | 'manual';
  /** Aborted when the attempt's time is up, the call is aborted, or its answer has been read. */
  readonly signal: AbortSignal;
}

/** Values of a query; undefined ones are left out, arrays are repeated. */
export type QueryValues = Readonly<
  Record<string, string | number | boolean | undefined | readonly (string | number | boolean)[]>
>;

/** One endpoint of an API. */
export interface EndpointDeclaration<
  Method extends HttpMethod,
  Path extends string,
  Input extends StandardSchema | undefined,
  Output extends StandardSchema | undefined,
> extends SharedOptions {
  /**
   * The HTTP method, in capitals.
   *
   * @example
   * ```ts
   * method: 'POST'
   * ```
   */
  readonly method: Method;
  /**
   * The path behind `baseUrl`, with parameters as Nest writes them (`:id`) or as OpenAPI does (`{id}`). Calls give their
   * values as `params`, typed by these names.
   *
   * @example
   * ```ts
   * path: '/tickets/:ticketId/messages'
   * ```
   */
  readonly path: Path;
  /**
   * A Standard Schema (zod, valibot, arktype) for the body. It types the calls, and the body is validated before anything is
   * sent; what the schema makes of it is what is sent. Default: any value that JSON can hold, unchecked.
   *
   * @example
   * ```ts
   * input: z.object({ amount: z.number().int(), ref: z.string() })
   * ```
   */
  readonly input?: Input;
  /**
   * A Standard Schema for the body of a success. It types `data`. Default: `unknown`, unchecked. A body that does not match
   * throws `CALL_OUTPUT_INVALID`, whose `effect` is `'done'`.
   *
   * @example
   * ```ts
   * output: z.object({ id: z.string(), status: z.literal('succeeded') })
   * ```
   */
  readonly output?: Output;
  /**
   * One key for all attempts of a call, so that they are one write. `{}` sends a random UUID for each call. Default: no
   * key; then a write cannot have `retry`. Not for GET, HEAD and OPTIONS, which need none.
   *
   * @example
   * ```ts
   * idempotency: { key: derivedKey(({ body }) => ['charge', body.ref]) }
   * ```
   */
  readonly idempotency?: Method extends ReadMethod
    ? never
    : IdempotencyOptions<KeyInput<Params<Path>, QueryValues, BodyOf<Input>>>;
}

/** The values of a path's parameters, by name. */
export type Params<Path extends string> = { readonly [Name in PathParameters<Path>[number]]: PathValue };

/** What a call gives as body. */
export type BodyOf<Input extends StandardSchema | undefined> = Input extends StandardSchema
  ? InputOf<Input>
  : unknown;

/** What a call gets as data. */
export type DataOf<Output extends StandardSchema | undefined> = Output extends StandardSchema
  ? OutputOf<Output>
  : unknown;
