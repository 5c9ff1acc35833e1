import { parseDuration } from '../core/duration.js';
import type { StoragePolicy } from '../core/disposition.js';
import type { DuplicatePolicy } from '../core/engine.js';
import type { KeyRules } from '../core/key.js';
import type { ClaimMode } from '../core/store.js';
import type {
  ClientResolver,
  FingerprintOptions,
  IdempotencyModuleOptions,
  IdempotentRouteOptions,
  KeyOptions,
  ResponseOptions,
} from '../idempotency.options.js';
import { HeaderPolicy } from './header-policy.js';
import { DOCUMENTATION, ProblemWriter } from './problem-details.js';

const DEFAULT_TTL = 24 * 3_600_000;
const DEFAULT_MAX_DURATION = 60_000;
const DEFAULT_LEASE = 30_000;
const DEFAULT_WAIT = 5_000;
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
  readonly mode: ClaimMode;
  readonly duplicates: DuplicatePolicy;
  readonly inProgressStatus: 409 | 425 | 503;
  readonly keyHeader: string;
  readonly keyRules: KeyRules;
  readonly fingerprint: 'raw' | FingerprintOptions;
  readonly storage: StoragePolicy;
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
  const merged = <Options extends object>(
    optionsOf: (layer: IdempotentRouteOptions) => Options | undefined,
  ): Options => Object.assign({}, ...layers.map((layer) => defined(optionsOf(layer)))) as Options;
  const own = merged((layer) => layer) as IdempotencyModuleOptions & IdempotentRouteOptions;
  const key = merged((layer) => layer.key);
  const response = merged((layer) => layer.response);
  const mode = claimMode(own, storesErrors(response.statuses));
  const keyHeader = key.header ?? 'Idempotency-Key';
  return {
    endpoint: own.endpoint,
    client: own.client,
    ttl: parseDuration(own.ttl) ?? DEFAULT_TTL,
    maxDuration: parseDuration(own.maxDuration) ?? DEFAULT_MAX_DURATION,
    mode,
    duplicates: { wait: waitOf(own.whenInProgress), onOutcomeUnknown: own.onOutcomeUnknown ?? 'refuse' },
    inProgressStatus: merged((layer) => layer.answers).inProgress ?? 409,
    keyHeader,
    keyRules: keyRules(key, keyHeader),
    fingerprint: fingerprintOptions(layers),
    storage: {
      isStored: statusFilter(response.statuses),
      storesErrors: mode.kind === 'lease' || mode.storesErrors,
    },
    headers: new HeaderPolicy(merged((layer) => layer.response?.headers)),
    maxBody: response.maxSize ?? DEFAULT_MAX_BODY,
    problems: new ProblemWriter(module.documentation ?? DOCUMENTATION, own.errors),
  };
}

/** Bytes and values are not compared in one: where a layer says `'raw'`, what wider ones say does not count, and vice versa. */
function fingerprintOptions(layers: readonly IdempotentRouteOptions[]): RouteSettings['fingerprint'] {
  return layers.reduce<RouteSettings['fingerprint']>((wider, { fingerprint: own }) => {
    if (own === undefined || own === 'raw') return own ?? wider;
    return wider === 'raw' ? own : { ...wider, ...defined(own) };
  }, {});
}

function keyRules(key: KeyOptions, source: string): KeyRules {
  const { required = true, minLength = 1, maxLength = 256, pattern = DEFAULT_PATTERN } = key;
  return { source, required, minLength, maxLength, pattern };
}

function claimMode({ mode, lease, isolation }: IdempotentRouteOptions, storesErrors: boolean): ClaimMode {
  return mode === 'lease'
    ? { kind: 'lease', lease: parseDuration(lease) ?? DEFAULT_LEASE }
    : { kind: 'transaction', isolation, storesErrors };
}

function waitOf(whenInProgress: IdempotentRouteOptions['whenInProgress']): number {
  return whenInProgress === 'reject' ? 0 : (parseDuration(whenInProgress?.wait) ?? DEFAULT_WAIT);
}

function statusFilter(statuses: ResponseOptions['statuses']): (status: number) => boolean {
  if (statuses === undefined) return (status) => !NOT_NOW.has(status);
  if (typeof statuses === 'function') return statuses;
  const stored = new Set(statuses);
  return (status) => stored.has(status);
}

function storesErrors(statuses: ResponseOptions['statuses']): boolean {
  return typeof statuses !== 'object' || statuses.some((status) => status >= 300);
}

/** Options set to undefined do not override. */
function defined(options: object = {}): object {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
