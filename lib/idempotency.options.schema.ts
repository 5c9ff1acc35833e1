import {
  ArrayUnique,
  IsArray,
  IsBoolean,
  IsIn,
  IsInstance,
  IsInt,
  IsNotEmpty,
  IsString,
  Matches,
  Max,
  Min,
  ValidateBy,
  ValidateIf,
  ValidateNested,
} from 'class-validator';
import { LONGEST_TIMEOUT_MS, parseDuration } from './core/duration.js';
import { MAX_IDENTITY_BYTES } from './core/identity.js';
import { MAX_BODY_BYTES } from './core/record.js';
import { isNeverStored } from './core/unstored-headers.js';
import { isExchangeable } from './http/replay-status.js';

/** Undefined means the default; null is an error, unlike with class-validator's own IsOptional. */
const Optional = (): PropertyDecorator => ValidateIf((_, value: unknown) => value !== undefined);

/** The same for what can be switched off by false. */
const OrFalse = (): PropertyDecorator =>
  ValidateIf((_, value: unknown) => value !== undefined && value !== false);

const check = (name: string, message: string, validate: (value: unknown) => boolean): PropertyDecorator =>
  ValidateBy({ name, validator: { validate, defaultMessage: () => message } });

const IsDuration = (longest = Number.MAX_SAFE_INTEGER): PropertyDecorator =>
  check(
    'isDuration',
    `must be a positive number of milliseconds or a string such as '30s' or '24h', at most ${longest} ms`,
    (value) => (parseDuration(value) ?? Infinity) <= longest,
  );

const IsFunction = (what: string): PropertyDecorator =>
  check('isFunction', `must be ${what}`, (value) => typeof value === 'function');

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

const IsHeaderName = (each = false): PropertyDecorator =>
  Matches(HEADER_NAME, {
    each,
    message: 'must be a header name (RFC 9110, section 5.1)',
  });

const IsIdentifier = (longest: number): PropertyDecorator =>
  check(
    'isIdentifier',
    `must be a name of 1 to ${longest} bytes, as it stands in the database, without quotes`,
    (value) =>
      typeof value === 'string' &&
      value !== '' &&
      Buffer.byteLength(value) <= longest &&
      !value.includes('\0'),
  );

/** Whether a header means something to HTTP in every response, or goes with errors. */
const isTaken = (name: string): boolean =>
  isNeverStored(name) || name.startsWith('content-') || ['retry-after', 'link', 'location'].includes(name);

const IsOwnHeader = (): PropertyDecorator =>
  check(
    'isOwnHeader',
    'must be false or a header name (RFC 9110, section 5.1), and none that HTTP or an error of this library needs, such ' +
      'as Set-Cookie, Connection, Content-Type or Retry-After',
    (value) =>
      value === false ||
      (typeof value === 'string' && HEADER_NAME.test(value) && !isTaken(value.toLowerCase())),
  );

class KeySchema {
  @Optional() @IsHeaderName() header?: string;
  @Optional()
  @check(
    'isField',
    'must be the name of a top-level field of the body, without a dot; for another place, use "key.from"',
    (value) => typeof value === 'string' && value !== '' && !value.includes('.'),
  )
  body?: string;
  @Optional() @IsFunction('a function of the request that returns the key or undefined') from?: unknown;
  @Optional() @IsInt() @Min(1) @Max(MAX_IDENTITY_BYTES.key) minLength?: number;
  @Optional() @IsInt() @Min(1) @Max(MAX_IDENTITY_BYTES.key) maxLength?: number;
  @Optional()
  @IsInstance(RegExp, { message: 'must be a regular expression' })
  @check(
    'isStateless',
    'must not have the flags g or y, which make it remember the last request',
    (value) => {
      return !(value instanceof RegExp) || !(value.global || value.sticky);
    },
  )
  pattern?: RegExp;
  @Optional() @IsBoolean() required?: boolean;
}

class FingerprintSchema {
  @Optional() @IsArray() @IsString({ each: true }) @IsNotEmpty({ each: true }) exclude?: string[];
  @Optional()
  @check(
    'isBody',
    "must be 'parsed', 'raw' or a function of the request that returns a string or bytes",
    (value) => value === 'parsed' || value === 'raw' || typeof value === 'function',
  )
  body?: unknown;
  @Optional()
  @IsArray()
  @IsHeaderName(true)
  @ArrayUnique((name) => String(name).toLowerCase())
  headers?: string[];
}

class HeadersSchema {
  @Optional()
  @IsArray()
  @IsHeaderName(true)
  @check(
    'isStorable',
    'must not name cookies, authentication or hop-by-hop headers: they are never stored',
    (value) => {
      return !Array.isArray(value) || !value.some((name) => isNeverStored(String(name).toLowerCase()));
    },
  )
  allow?: string[];
  @Optional() @IsArray() @IsHeaderName(true) @ArrayUnique() deny?: string[];
}

class ResponseSchema {
  @Optional()
  @check('isStatuses', 'must be a function of the status, or a list of statuses from 200 to 499', (value) => {
    if (!Array.isArray(value)) return typeof value === 'function';
    return (
      value.length > 0 && value.every((status) => Number.isInteger(status) && status >= 200 && status < 500)
    );
  })
  statuses?: unknown;
  @Optional() @ValidateNested() headers?: HeadersSchema;
  @Optional() @IsInt() @Min(1) @Max(MAX_BODY_BYTES) maxSize?: number;
}

class AnswersSchema {
  @Optional() @IsIn([409, 425, 503]) inProgress?: number;
  @Optional() @IsIn([422, 409]) reused?: number;
  @Optional()
  @check(
    'isReplay',
    "must be 'original' or a status from 200 to 299 but 204, 205 and 206, which say how the body is sent",
    (value) => value === 'original' || isExchangeable(value),
  )
  replay?: unknown;
}

class ResponseHeadersSchema {
  @Optional() @IsOwnHeader() key?: unknown;
  @Optional() @IsOwnHeader() replayed?: unknown;
  @Optional() @IsOwnHeader() createdAt?: unknown;
}

class PurgeSchema {
  @Optional() @IsDuration(Math.floor(LONGEST_TIMEOUT_MS / 2)) interval?: unknown;
  @Optional() @IsInt() @Min(1) @Max(100_000) batchSize?: number;
}

/** Shared by module and route. */
class RouteDefaultsSchema {
  @Optional() @IsDuration() ttl?: unknown;
  @Optional() @IsDuration(LONGEST_TIMEOUT_MS) maxDuration?: unknown;
  @Optional() @ValidateNested() key?: KeySchema;
  @Optional() @ValidateNested() fingerprint?: FingerprintSchema;
  @Optional() @ValidateNested() response?: ResponseSchema;
  @Optional() @IsFunction('a function of the error that returns { body }') errors?: unknown;
  @Optional() @IsIn(['transaction', 'lease']) mode?: string;
  @Optional()
  @check('isLease', "must be at least one second and at most a day, such as '30s'", (value) => {
    const lease = parseDuration(value) ?? 0;
    return lease >= 1_000 && lease <= 86_400_000;
  })
  lease?: unknown;
  @Optional()
  @check('isPolicy', "must be 'refuse', 'rerun' or a function that finds out", (value) => {
    return value === 'refuse' || value === 'rerun' || typeof value === 'function';
  })
  onOutcomeUnknown?: unknown;
  @Optional()
  @check('isWait', "must be 'reject' or { wait: '5s' }", (value) => {
    if (typeof value !== 'object' || value === null) return value === 'reject';
    const { wait, ...others } = value as { wait?: unknown };
    return Object.keys(others).length === 0 && (parseDuration(wait) ?? Infinity) <= LONGEST_TIMEOUT_MS;
  })
  whenInProgress?: unknown;
  @Optional() @ValidateNested() answers?: AnswersSchema;
  @OrFalse() @ValidateNested() responseHeaders?: ResponseHeadersSchema | false;
  @Optional() @IsIn(['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE']) isolation?: string;
}

/** What `@Idempotent()` takes. */
export class RouteOptionsSchema extends RouteDefaultsSchema {
  @Optional()
  @IsFunction('a function of the request, such as clientFromUser((user: User) => user.id)')
  client?: unknown;
  @Optional()
  @check('isEndpoint', `must be a name of 1 to ${MAX_IDENTITY_BYTES.endpoint} bytes`, (value) => {
    return (
      typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= MAX_IDENTITY_BYTES.endpoint
    );
  })
  endpoint?: string;
}

/** What `forRoot()` takes. */
export class ModuleOptionsSchema extends RouteDefaultsSchema {
  @IsFunction(
    "set: say whose key a request carries, with clientFromUser((user: User) => user.id), clientFromHeader('X-API-Key'), " +
      "sharedClient('everybody') or a function of your own",
  )
  client: unknown;
  @Optional() @IsDuration(LONGEST_TIMEOUT_MS) acquireTimeout?: unknown;
  @Optional() @IsInt() @Min(0) @Max(1_000_000) maxWaiters?: number;
  @Optional()
  @check('isObserver', 'must be an object with a method observe(event)', (value) => {
    return typeof (value as { observe?: unknown } | null)?.observe === 'function';
  })
  observer?: unknown;
  @Optional()
  @check('isUrl', 'must be an absolute URL without a fragment', (value) => {
    return typeof value === 'string' && URL.canParse(value) && !value.includes('#');
  })
  documentation?: string;
  @Optional() @IsIdentifier(51) table?: string;
  @Optional() @IsIdentifier(63) schema?: string;
  @Optional()
  @check('isDataSource', 'must be the name of a DataSource, a DataSource, or options for one', (value) => {
    return (typeof value === 'string' && value !== '') || (typeof value === 'object' && value !== null);
  })
  dataSource?: unknown;
  @OrFalse() @ValidateNested() purge?: PurgeSchema | false;
  @Optional() @IsBoolean() allowAsynchronousCommit?: boolean;
  @Optional() @IsBoolean() preparedStatements?: boolean;
}

/** What may stand in place of nested options. */
export const STAND_INS: Readonly<Record<string, unknown>> = {
  purge: false,
  responseHeaders: false,
};

/** Which schema stands behind a nested option, so that plain objects can be checked without class-transformer. */
export const NESTED_SCHEMAS: Readonly<Record<string, new () => object>> = {
  key: KeySchema,
  fingerprint: FingerprintSchema,
  response: ResponseSchema,
  'response.headers': HeadersSchema,
  answers: AnswersSchema,
  responseHeaders: ResponseHeadersSchema,
  purge: PurgeSchema,
};
