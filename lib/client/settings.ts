import type { Auth } from './auth.js';
import type { Backoff } from './backoff.js';
import type {
  EndpointDeclaration,
  Fetch,
  IdempotencyOptions,
  RetryOptions,
  SharedOptions,
  TimeoutOptions,
} from './declaration.js';
import { milliseconds, type Duration } from './duration.js';
import { DeclarationError } from './errors.js';
import { randomKey, type KeyRules, type KeyStrategy } from './keys.js';
import { isMethod, isWrite, type HttpMethod } from './method.js';
import { faultOfPath } from './path.js';
import type { CallHooks } from './reports.js';
import type { StandardSchema } from './schema.js';

/** A declaration with every default filled in. Times are milliseconds. */
export interface Settings {
  readonly method: HttpMethod;
  readonly baseUrl: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly auth: Auth | undefined;
  readonly input: StandardSchema | undefined;
  readonly output: StandardSchema | undefined;
  readonly retry: { readonly attempts: number; readonly on: ReadonlySet<number>; readonly backoff: Backoff };
  readonly idempotency: IdempotencySettings | undefined;
  readonly timeout: { readonly total: number; readonly perAttempt: number };
  readonly fetch: Fetch;
  readonly hooks: CallHooks;
}

/** How an endpoint's calls carry their key, and how its answers tell of it. */
export interface IdempotencySettings {
  readonly key: KeyStrategy<never>;
  readonly header: string;
  readonly rules: KeyRules;
  readonly replayedHeader: string;
  readonly createdAtHeader: string;
  readonly inProgressCode: string;
  readonly keyReusedCode: string;
}

/** Any declaration, as its values are. */
export type AnyDeclaration = Omit<
  EndpointDeclaration<HttpMethod, string, StandardSchema, StandardSchema>,
  'idempotency'
> & {
  readonly idempotency?: IdempotencyOptions<never>;
};

const RETRIED = [408, 425, 429, 500, 502, 503, 504];
const FINAL = [400, 409, 422];
const BACKOFF: Backoff = { base: 200, max: 10_000 };
/** Printable ASCII; no space at the ends, where HTTP drops it, and no quotation mark first, as RFC 8941 strings have. */
const KEY_PATTERN = /^[!#-~]([ -~]*[!-~])?$/;
const HEADER_NAME = /^[!#$%&'*+.^_`|~\w-]+$/;

const FIELDS = {
  endpoint: 'method baseUrl path headers auth input output retry idempotency timeout fetch saveKey onAttempt',
  retry: 'attempts on backoff unsafe',
  backoff: 'base max',
  timeout: 'total perAttempt',
  idempotency: 'key header rules responseHeaders codes',
  'idempotency.rules': 'minLength maxLength pattern',
  'idempotency.responseHeaders': 'replayed createdAt',
  'idempotency.codes': 'inProgress keyReused',
} as const;

/**
 * Checks a declaration and fills in what it leaves out.
 *
 * @throws DeclarationError
 */
export function settingsOf(declaration: AnyDeclaration): Settings {
  refuseUnknown('endpoint', declaration);
  const { method, baseUrl, path, headers = {}, auth, input, output, saveKey, onAttempt } = declaration;
  if (!isMethod(method)) throw new DeclarationError(`method ${String(method)} is none of HTTP, in capitals.`);
  const fault = faultOfPath(path);
  if (fault) throw new DeclarationError(`path ${path} ${fault}.`);
  if (!isWrite(method) && declaration.idempotency) {
    throw new DeclarationError(`${method} needs no idempotency: leave it out.`);
  }
  if (!isWrite(method) && input) throw new DeclarationError(`${method} has no body: leave out input.`);
  refuseUnsafe(method, declaration);
  return {
    method,
    baseUrl: baseUrlOf(baseUrl),
    path,
    headers,
    auth,
    input,
    output,
    retry: retryOf(declaration.retry),
    idempotency: declaration.idempotency && idempotencyOf(declaration.idempotency),
    timeout: timeoutOf(declaration.timeout),
    // Looked up at the time of the call, so that what patches it later counts.
    fetch: declaration.fetch ?? ((url, init) => fetch(url, init)),
    hooks: { ...(saveKey && { saveKey }), ...(onAttempt && { onAttempt }) },
  };
}

function refuseUnsafe(method: HttpMethod, { retry, idempotency }: AnyDeclaration): void {
  const isRepeated = retry !== undefined && (retry.attempts ?? 3) > 1;
  if (!isRepeated || idempotency || retry.unsafe || !isWrite(method)) return;
  throw new DeclarationError(
    `${method} with retry and without idempotency may write more than once. Add idempotency: {}; or say unsafe: true in retry, ` +
      'where writing it twice does no harm.',
  );
}

function baseUrlOf(baseUrl: SharedOptions['baseUrl']): string {
  const { location } = globalThis as { location?: { href: string } };
  const url = URL.canParse(baseUrl, location?.href) ? new URL(baseUrl, location?.href) : undefined;
  // Before the address is quoted.
  if (url?.username || url?.password)
    throw new DeclarationError('baseUrl has credentials: give them as auth.');
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new DeclarationError(`baseUrl ${baseUrl} is no address of http: or https:.`);
  }
  // Not url.search and url.hash, which are empty where only their sign is there.
  if (/[?#]/.test(url.href)) throw new DeclarationError('baseUrl must have neither query nor fragment.');
  return url.href.replace(/\/+$/, '');
}

function retryOf(options: RetryOptions | undefined): Settings['retry'] {
  if (!options) return { attempts: 1, on: new Set(), backoff: BACKOFF };
  refuseUnknown('retry', options);
  const { attempts = 3, on = RETRIED, backoff = 'expo-jitter' } = options;
  if (!Number.isInteger(attempts) || attempts < 1) {
    throw new DeclarationError(`retry.attempts is ${attempts}: it must be a whole number from 1.`);
  }
  for (const status of on) {
    if (FINAL.includes(status)) {
      throw new DeclarationError(`retry.on has ${status}: the same request would get the same answer again.`);
    }
    if (!Number.isInteger(status) || status < 300 || status > 599) {
      throw new DeclarationError(`retry.on has ${status}: error statuses are 300 to 599.`);
    }
  }
  return { attempts, on: new Set(on), backoff: backoffOf(backoff) };
}

function backoffOf(backoff: Exclude<RetryOptions['backoff'], undefined>): Backoff {
  if (backoff === 'expo-jitter') return BACKOFF;
  if (typeof backoff !== 'object') {
    throw new DeclarationError(`retry.backoff is neither 'expo-jitter' nor { base, max }.`);
  }
  refuseUnknown('backoff', backoff);
  const base = durationOf('retry.backoff.base', backoff.base ?? BACKOFF.base);
  return { base, max: durationOf('retry.backoff.max', backoff.max ?? Math.max(base, BACKOFF.max)) };
}

function timeoutOf(options: TimeoutOptions = {}): Settings['timeout'] {
  refuseUnknown('timeout', options);
  return {
    total: durationOf('timeout.total', options.total ?? '30s'),
    perAttempt: durationOf('timeout.perAttempt', options.perAttempt ?? '10s'),
  };
}

function idempotencyOf(options: IdempotencyOptions<never>): IdempotencySettings {
  refuseUnknown('idempotency', options);
  const {
    key = randomKey(),
    header = 'Idempotency-Key',
    rules = {},
    responseHeaders = {},
    codes = {},
  } = options;
  refuseUnknown('idempotency.rules', rules);
  refuseUnknown('idempotency.responseHeaders', responseHeaders);
  refuseUnknown('idempotency.codes', codes);
  if (typeof key !== 'function') throw new DeclarationError('idempotency.key must be a function.');
  const { replayed = 'Idempotency-Replayed', createdAt = 'Idempotency-Created-At' } = responseHeaders;
  for (const name of [header, replayed, createdAt]) {
    if (!HEADER_NAME.test(name)) throw new DeclarationError(`${JSON.stringify(name)} cannot name a header.`);
  }
  return {
    key,
    header,
    rules: rulesOf(rules),
    replayedHeader: replayed,
    createdAtHeader: createdAt,
    inProgressCode: codes.inProgress ?? 'IDEMPOTENCY_IN_PROGRESS',
    keyReusedCode: codes.keyReused ?? 'IDEMPOTENCY_KEY_REUSED',
  };
}

function rulesOf({ minLength = 1, maxLength = 256, pattern = KEY_PATTERN }: Partial<KeyRules>): KeyRules {
  const areWhole = [minLength, maxLength].every(Number.isInteger);
  if (!areWhole || minLength < 1 || maxLength < minLength) {
    throw new DeclarationError('idempotency.rules: lengths are whole numbers, 1 ≤ minLength ≤ maxLength.');
  }
  // Such a pattern remembers where it last matched, and refuses every second key.
  if (pattern.global || pattern.sticky) {
    throw new DeclarationError('idempotency.rules.pattern must not have the flags g and y.');
  }
  return { minLength, maxLength, pattern };
}

function durationOf(name: string, value: Duration): number {
  const result = milliseconds(value);
  if (result !== undefined) return result;
  throw new DeclarationError(
    `${name} is ${JSON.stringify(value)}: it must be a whole number of milliseconds or a string such as '30s'.`,
  );
}

/** What would be ignored is a misspelt name more often than not. */
function refuseUnknown(where: keyof typeof FIELDS, options: unknown): void {
  const known = FIELDS[where].split(' ');
  // Such as `timeout: 5_000`, which has no fields, and would mean the defaults.
  if (typeof options !== 'object' || options === null)
    throw new DeclarationError(`${where} must be an object with the fields ${known.join(', ')}.`);
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new DeclarationError(`${where} has no field ${unknown}; its fields are ${known.join(', ')}.`);
}
