import { parseDuration } from '../core/duration.js';
import type { StoragePolicy } from '../core/disposition.js';
import type { KeyRules } from '../core/key.js';
import type { IsolationLevel } from '../core/store.js';
import type {
  ClientResolver,
  FingerprintOptions,
  IdempotencyModuleOptions,
  IdempotentRouteOptions,
  ResponseOptions,
} from '../idempotency.options.js';
import { HeaderPolicy } from './header-policy.js';
import { DOCUMENTATION, ProblemWriter } from './problem-details.js';

const DEFAULT_TTL = 24 * 3_600_000;
const DEFAULT_MAX_DURATION = 60_000;
const DEFAULT_MAX_BODY = 1024 * 1024;
/** Printable ASCII: what a string of RFC 8941 may contain. */
const DEFAULT_PATTERN = /^[\x20-\x7e]*$/;
/** Statuses that say “not now”: recorded, they would be replayed when the time has come. */
const NOT_NOW = new Set([408, 425, 429]);

/** A route's options with every default filled in. Times are milliseconds. */
export interface RouteSettings {
  readonly endpoint: string | undefined;
  readonly client: ClientResolver;
  readonly ttl: number;
  readonly maxDuration: number;
  readonly isolation: IsolationLevel | undefined;
  readonly keyHeader: string;
  readonly keyRules: KeyRules;
  readonly fingerprint: FingerprintOptions;
  readonly storage: StoragePolicy;
  /** Whether an error can become the recorded answer. */
  readonly storesErrors: boolean;
  readonly headers: HeaderPolicy;
  readonly maxBody: number;
  readonly problems: ProblemWriter;
}

/** The module's options, overridden field by field by those of controller and method, in that order. */
export function routeSettings(
  module: IdempotencyModuleOptions,
  overrides: readonly IdempotentRouteOptions[],
): RouteSettings {
  const layers = [module, ...overrides];
  const key = Object.assign({}, ...layers.map((layer) => defined(layer.key))) as NonNullable<
    IdempotentRouteOptions['key']
  >;
  const fingerprint = Object.assign(
    {},
    ...layers.map((layer) => defined(layer.fingerprint)),
  ) as FingerprintOptions;
  const response = Object.assign({}, ...layers.map((layer) => defined(layer.response))) as ResponseOptions;
  const own = Object.assign({}, ...layers.map((layer) => defined(layer))) as IdempotencyModuleOptions &
    IdempotentRouteOptions;
  const keyHeader = key.header ?? 'Idempotency-Key';
  return {
    endpoint: own.endpoint,
    client: own.client,
    ttl: parseDuration(own.ttl) ?? DEFAULT_TTL,
    maxDuration: parseDuration(own.maxDuration) ?? DEFAULT_MAX_DURATION,
    isolation: own.isolation,
    keyHeader,
    keyRules: {
      source: keyHeader,
      required: key.required ?? true,
      minLength: key.minLength ?? 1,
      maxLength: key.maxLength ?? 256,
      pattern: key.pattern ?? DEFAULT_PATTERN,
    },
    fingerprint,
    ...storage(response.statuses),
    headers: new HeaderPolicy(response.headers),
    maxBody: response.maxSize ?? DEFAULT_MAX_BODY,
    problems: new ProblemWriter(module.documentation ?? DOCUMENTATION, own.errors),
  };
}

function storage(statuses: ResponseOptions['statuses']): Pick<RouteSettings, 'storage' | 'storesErrors'> {
  if (statuses === undefined)
    return { storage: { isStored: (status) => !NOT_NOW.has(status) }, storesErrors: true };
  if (typeof statuses === 'function') return { storage: { isStored: statuses }, storesErrors: true };
  const stored = new Set(statuses);
  const storesErrors = statuses.some((status) => status >= 300);
  return { storage: { isStored: (status) => stored.has(status) }, storesErrors };
}

/** Options set to undefined do not override. */
function defined(options: object = {}): object {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
