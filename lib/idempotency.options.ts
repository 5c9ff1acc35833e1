import type {
  ExecutionContext,
  InjectionToken,
  ModuleMetadata,
  OptionalFactoryDependency,
  Type,
} from '@nestjs/common';
import type { DataSource, DataSourceOptions } from 'typeorm';
import type { Duration } from './core/duration.js';
import type { IdempotencyError } from './core/errors.js';
import type { IdempotencyObserver } from './core/events.js';
import type { OutcomeUnknownPolicy } from './core/reconcile.js';
import type { IsolationLevel } from './core/store.js';

/**
 * Says whose key a request carries: the authenticated party, as a string of at most 512 bytes that never changes.
 * It runs after the guards. A request for which it gives nothing is refused with `IDEMPOTENCY_CLIENT_UNRESOLVED`.
 * `request` is the adapter's own (Express' or Fastify's) request.
 */
export type ClientResolver<Request = never> = (
  request: Request,
  context: ExecutionContext,
) => string | undefined | Promise<string | undefined>;

/**
 * Finds the key of a request, such as a webhook's event id, or undefined where there is none. What it throws goes to the
 * application's exception filters. `request` is the adapter's own (Express' or Fastify's) request.
 */
export type KeyReader<Request = never> = (
  request: Request,
  context: ExecutionContext,
) => string | undefined | Promise<string | undefined>;

/** What a key must be like, wherever it is found. Lengths are in characters. */
export interface KeyRuleOptions {
  /** Shortest key accepted. Default: 1. */
  readonly minLength?: number;
  /** Longest key accepted, at most 1024. Default: 256. */
  readonly maxLength?: number;
  /** What a key must match, without the flags `g` and `y`. Default: printable ASCII. */
  readonly pattern?: RegExp;
  /** Whether a request without a key is refused; if not, it runs unprotected. Default: true. */
  readonly required?: boolean;
}

/**
 * Where the key is: one of the three. That of a route takes the place of that of the module, whichever it is.
 * Default: the header `Idempotency-Key`.
 */
export type KeySourceOptions =
  | {
      /** Name of the header, whose value may be bare or a quoted string (RFC 8941). */
      readonly header?: string;
      readonly body?: undefined;
      readonly from?: undefined;
    }
  | {
      readonly header?: undefined;
      /** Name of a top-level field of the parsed body; the field is no part of the fingerprint. */
      readonly body: string;
      readonly from?: undefined;
    }
  | {
      readonly header?: undefined;
      readonly body?: undefined;
      /** A function of the request. */
      readonly from: KeyReader;
    };

/** Where the key is and what it must be like. */
export type KeyOptions = KeyRuleOptions & KeySourceOptions;

/**
 * What makes a retry the same request. Method, concrete path, query and media type always count, and so do host and
 * version where requests are routed by them.
 */
export interface FingerprintOptions<Request = never> {
  /**
   * How the body counts. `'parsed'`: by value, as the application's parsers left it; of an upload, its fields and files.
   * `'raw'`: byte for byte, for clients that sign what they send; create the application with `rawBody: true` for that. A
   * function: what it returns is hashed in place of the body; for an upload it is called when upload interceptors have read
   * it. Default: `'parsed'`.
   */
  readonly body?:
    'parsed' | 'raw' | ((request: Request) => string | Uint8Array | Promise<string | Uint8Array>);
  /**
   * Body fields, and names of uploaded files' fields, that do not count, as dotted paths such as `'meta.sentAt'`. They mean
   * something to parsed bodies alone. Default: none.
   */
  readonly exclude?: readonly string[];
  /**
   * Request headers that decide which work is done, such as `'Stripe-Account'` where it names the tenant. The same key with
   * another value is answered 422. Names in any letter case. Default: none.
   */
  readonly headers?: readonly string[];
}

/** What is recorded of a response. */
export interface ResponseOptions {
  /**
   * Which statuses become the recorded answer: a list, or a function of the status. 500 and above never do.
   * What is not recorded is rolled back; so is, in transaction mode, whatever a handler throws where a list names only
   * statuses below 300. Default: everything below 500 but 408, 425 and 429.
   */
  readonly statuses?: readonly number[] | ((status: number) => boolean);
  /**
   * Which headers are recorded. Cookies, authentication and hop-by-hop headers never are; what else sounds like a secret
   * (`…-Token`, `…-Secret`) is only where it is allowed. A list of the route takes the place of the module's list of the
   * same name; what is denied is not recorded, even where it is allowed too.
   */
  readonly headers?: {
    /** Names that are recorded although they are left out by default, such as `x-request-id`. */
    readonly allow?: readonly string[];
    /** Names that are not recorded. */
    readonly deny?: readonly string[];
  };
  /**
   * Largest body that is recorded, in bytes, at most 267386880 (255 MiB), the largest that can be read back; a larger one
   * rolls back. Default: 1048576 (1 MiB).
   */
  readonly maxSize?: number;
}

/** An error body in the application's own format. */
export interface FormattedError {
  /** Sent as JSON. */
  readonly body: object;
  /** Default: the error's own status. */
  readonly status?: number;
  /** Default: `application/json`. */
  readonly contentType?: string;
  /** Added to the answer, beside `Retry-After` and `Link`. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Writes an error of this library in the application's own format. `error.code` tells which one it is. */
export type ErrorFormatter = (error: IdempotencyError) => FormattedError;

/** Statuses of this library's own answers, where there is a choice. */
export interface AnswerOptions {
  /** For a duplicate of a request that is still running: 409, 425 or 503. Default: 409. */
  readonly inProgress?: 409 | 425 | 503;
  /** For a key that was used for a different request: 422 or 409. Default: 422. */
  readonly reused?: 422 | 409;
  /**
   * For a replay of a success: `'original'`, or a status from 200 to 299 but 204, 205 and 206, which say how the body is
   * sent. Originals with one of these three keep it, and so do redirects and errors. Default: `'original'`.
   */
  readonly replay?: 'original' | number;
}

/**
 * Names of the response headers that tell of idempotency, or false for those that are not sent. No two may be alike, and
 * none may be one of HTTP's own such as `Content-Type`.
 */
export interface ResponseHeaderOptions {
  /** The key as it was received, where a header can carry it. Default: `Idempotency-Key`. */
  readonly key?: string | false;
  /** `true` on a replay. Default: `Idempotency-Replayed`. */
  readonly replayed?: string | false;
  /** When the original was claimed. Default: `Idempotency-Created-At`. */
  readonly createdAt?: string | false;
}

/** What can be set for the module, and again for a route, where it wins field by field. */
export interface IdempotencyRouteDefaults {
  /** Whose key it is. */
  readonly client?: ClientResolver;
  /** How long a recorded answer is replayed, from the completion of the original. Default: `'24h'`. */
  readonly ttl?: Duration;
  /** How long a handler may run before it is rolled back and its key is free again. Default: `'60s'`. */
  readonly maxDuration?: Duration;
  readonly key?: KeyOptions;
  /** What makes a retry the same request. */
  readonly fingerprint?: FingerprintOptions;
  readonly response?: ResponseOptions;
  /** The format of this library's own errors. Default: `application/problem+json` after RFC 9457. */
  readonly errors?: ErrorFormatter;
  /**
   * How handlers are protected. `'transaction'`: its writes, the record and the response commit together. `'lease'`, for
   * handlers that call the outside world or run long: the claim is committed first, and held while the handler runs; see
   * `docs/modes.md`. Default: `'transaction'`.
   */
  readonly mode?: 'transaction' | 'lease';
  /**
   * In lease mode, how long a claim holds without being extended, at least one second. Its owner extends it three times as
   * often; when the owner dies, a retry is answered after that time. Default: `'30s'`.
   */
  readonly lease?: Duration;
  /**
   * In lease mode, what happens to a request whose earlier attempt began and has an unknown outcome: it is refused with
   * `IDEMPOTENCY_OUTCOME_UNRESOLVED`, it runs again, or a function finds out. Default: `'refuse'`.
   */
  readonly onOutcomeUnknown?: OutcomeUnknownPolicy;
  /**
   * What happens to a duplicate of a request that is still running: it waits for the answer at most so long, or is refused
   * at once with `IDEMPOTENCY_IN_PROGRESS`. Who waits holds no connection. Default: `{ wait: '5s' }`.
   */
  readonly whenInProgress?: 'reject' | { readonly wait: Duration };
  /** Statuses of this library's own answers. */
  readonly answers?: AnswerOptions;
  /** Response headers that tell of idempotency: their names, or false for none at all. Default: all three. */
  readonly responseHeaders?: false | ResponseHeaderOptions;
  /**
   * Isolation of the handler's transaction, in transaction mode. Default: the DataSource's `isolationLevel`, else what
   * `default_transaction_isolation` was when the application booted.
   */
  readonly isolation?: IsolationLevel;
}

/** Options of `@Idempotent()`: the module's, for one route, and its name. */
export interface IdempotentRouteOptions extends IdempotencyRouteDefaults {
  /**
   * Name of the endpoint, in place of method, route template and version. A name keeps keys valid when the path
   * changes between releases. At most 512 bytes.
   */
  readonly endpoint?: string;
}

/** When expired records are deleted. */
export interface PurgeOptions {
  /** Time between two runs, give or take a tenth. Default: `'10m'`. */
  readonly interval?: Duration;
  /** Records deleted by one statement, before a rest four times as long, at most five seconds. Default: 1000. */
  readonly batchSize?: number;
}

/** Options of the module. All but `client` have defaults; every one is checked when the application boots. */
export interface IdempotencyModuleOptions extends IdempotencyRouteDefaults {
  readonly client: ClientResolver;
  /**
   * How long a request may wait for a connection of the pool, and again for the answer to its claim, before it is answered
   * 503. Default: `'5s'`.
   */
  readonly acquireTimeout?: Duration;
  /**
   * How many duplicates may wait at a time in this process. When all places are taken, the client that has the most of them
   * gives one up, or is refused one more, so that no client can use up what others wait in. Default: 2000.
   */
  readonly maxWaiters?: number;
  /** Hears of everything that happens. Default: nobody. */
  readonly observer?: IdempotencyObserver;
  /** Where the errors are documented: `type` and `Link` of an error point there. */
  readonly documentation?: string;
  /** Name of the table. Default: `idempotency_records`. */
  readonly table?: string;
  /**
   * Schema of the table. Default: the DataSource's `schema`, else the one in which the `search_path` finds the table when the
   * application boots.
   */
  readonly schema?: string;
  /**
   * The DataSource whose transaction handlers join: the name of one registered with `@nestjs/typeorm`, a DataSource, or
   * options for a connection pool of the module's own, which is opened and closed with the application and which
   * handlers do not see. Default: the application's default DataSource.
   */
  readonly dataSource?: string | DataSource | DataSourceOptions;
  /** Deletion of expired records by a timer in this process, or false. Default: on. */
  readonly purge?: false | PurgeOptions;
  /**
   * Accepts a database with `synchronous_commit = off`, where a crash of the server can lose an answer that was sent,
   * so that its retry runs again. Default: false, which refuses to boot on it.
   */
  readonly allowAsynchronousCommit?: boolean;
  /**
   * False: no statement is prepared by name. Otherwise the library's own hot statements are, in sessions with nothing between
   * client and server: where a pooler stands in between, another process of the server answers than the one that greeted the
   * client, and nothing is prepared. Each session of the server takes up to 400 kB more for it. Default: true.
   */
  readonly preparedStatements?: boolean;
}

/** Makes the module's options, for `forRootAsync({ useClass | useExisting })`. */
export interface IdempotencyOptionsFactory {
  createIdempotencyOptions(): IdempotencyModuleOptions | Promise<IdempotencyModuleOptions>;
}

/** Options of `forRootAsync`: exactly one of the three `use…`. */
export interface IdempotencyModuleAsyncOptions extends Pick<ModuleMetadata, 'imports'> {
  readonly inject?: (InjectionToken | OptionalFactoryDependency)[];
  readonly useFactory?: (...args: never[]) => IdempotencyModuleOptions | Promise<IdempotencyModuleOptions>;
  readonly useClass?: Type<IdempotencyOptionsFactory>;
  readonly useExisting?: Type<IdempotencyOptionsFactory>;
}
