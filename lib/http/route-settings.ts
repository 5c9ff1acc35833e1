import { parseDuration } from '../core/duration.js';
import type { StoragePolicy } from '../core/disposition.js';
import type { DuplicatePolicy } from '../core/engine.js';
import type { KeySource } from '../core/errors.js';
import type { Exclusions } from '../core/fingerprint.js';
import type { KeyRules } from '../core/key.js';
import type { ClaimMode } from '../core/store.js';
import type {
  ClientResolver,
  AnswerOptions,
  FingerprintOptions,
  IdempotencyModuleOptions,
  IdempotentRouteOptions,
  KeyRuleOptions,
  ResponseOptions,
} from '../idempotency.options.js';
import { excludedMembers } from '../core/canonical.js';
import { HeaderPolicy } from './header-policy.js';
import { keyLookup, type KeyLookup } from './key-source.js';
import { DOCUMENTATION, ProblemWriter } from './problem-details.js';
import { ResponseHeaders } from './response-headers.js';

const DEFAULT_TTL = 24 * 3_600_000;
const DEFAULT_MAX_DURATION = 60_000;
const DEFAULT_LEASE = 30_000;
const DEFAULT_WAIT = 5_000;
const DEFAULT_MAX_BODY = 1024 * 1024;
const DEFAULT_ANSWERS = { inProgress: 409, reused: 422, replay: 'original' } as const;
/** Printable ASCII: what a string of RFC 8941 may contain. */
const DEFAULT_PATTERN = /^[\x20-\x7e]*$/;
/** Statuses that say “not now”: recorded, they would be replayed when the time has come. */
const NOT_NOW = new Set([408, 425, 429]);

/** What counts of a request on one route, besides what always does. */
export interface FingerprintRules {
  readonly body: NonNullable<FingerprintOptions['body']>;
  readonly exclusions: Exclusions;
  /** In lower case. */
  readonly headers: readonly string[];
}

/** A route's options with every default filled in. Times are milliseconds. */
export interface RouteSettings {
  readonly endpoint: string | undefined;
  readonly client: ClientResolver;
  readonly ttl: number;
  readonly maxDuration: number;
  readonly mode: ClaimMode;
  readonly duplicates: DuplicatePolicy;
  readonly answers: Required<AnswerOptions>;
  readonly keyLookup: KeyLookup;
  readonly keyRules: KeyRules;
  readonly fingerprint: FingerprintRules;
  readonly storage: StoragePolicy;
  readonly headers: HeaderPolicy;
  readonly responseHeaders: ResponseHeaders;
  readonly maxBody: number;
  readonly problems: ProblemWriter;
}

/** The module's options, overridden field by field by those of controller and method, in that order. */
export function routeSettings(
  module: IdempotencyModuleOptions,
  overrides: readonly IdempotentRouteOptions[],
): RouteSettings {
  const layers = [module, ...overrides];
  const own = merged(layers, (layer) => layer) as IdempotencyModuleOptions & IdempotentRouteOptions;
  const response = merged(layers, (layer) => layer.response);
  const mode = claimMode(own, storesErrors(response.statuses));
  const responseHeaders = new ResponseHeaders(layers.map((layer) => layer.responseHeaders));
  const recordable = merged(layers, (layer) => layer.response?.headers);
  return {
    endpoint: own.endpoint,
    client: own.client,
    ttl: parseDuration(own.ttl) ?? DEFAULT_TTL,
    maxDuration: parseDuration(own.maxDuration) ?? DEFAULT_MAX_DURATION,
    mode,
    duplicates: { wait: waitOf(own.whenInProgress), onOutcomeUnknown: own.onOutcomeUnknown ?? 'refuse' },
    answers: { ...DEFAULT_ANSWERS, ...merged(layers, (layer) => layer.answers) },
    ...keySettings(layers),
    storage: {
      isStored: statusFilter(response.statuses),
      storesErrors: mode.kind === 'lease' || mode.storesErrors,
    },
    headers: new HeaderPolicy(recordable, responseHeaders.names),
    responseHeaders,
    maxBody: response.maxSize ?? DEFAULT_MAX_BODY,
    problems: new ProblemWriter(module.documentation ?? DOCUMENTATION, own.errors),
  };
}

/** The narrower layer wins field by field. */
function merged<Options extends object>(
  layers: readonly IdempotentRouteOptions[],
  optionsOf: (layer: IdempotentRouteOptions) => Options | undefined,
): Options {
  return Object.assign({}, ...layers.map((layer) => defined(optionsOf(layer)))) as Options;
}

function keySettings(
  layers: readonly IdempotentRouteOptions[],
): Pick<RouteSettings, 'keyLookup' | 'keyRules' | 'fingerprint'> {
  const lookup = keyLookup(layers.map((layer) => layer.key));
  const rules = merged<KeyRuleOptions>(layers, (layer) => layer.key);
  const { required = true, minLength = 1, maxLength = 256, pattern = DEFAULT_PATTERN } = rules;
  return {
    keyLookup: lookup,
    keyRules: { source: lookup.source, required, minLength, maxLength, pattern },
    fingerprint: fingerprintRules(layers, lookup.source),
  };
}

/**
 * A key that moves between header and body leaves the request what it was. Files that come in a field of its name are no
 * key, and count.
 */
function fingerprintRules(
  layers: readonly IdempotentRouteOptions[],
  { kind, name }: KeySource,
): FingerprintRules {
  const {
    body = 'parsed',
    exclude = [],
    headers = [],
  } = merged<FingerprintOptions>(layers, (layer) => layer.fingerprint);
  const members = kind === 'body' ? [...exclude, name] : exclude;
  return {
    body,
    exclusions: {
      members: members.length > 0 ? excludedMembers(members) : undefined,
      files: new Set(exclude),
    },
    headers: headers.map((header) => header.toLowerCase()),
  };
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
