import { idempotencyError, IdempotencyFailure, IdempotencyUsageError, keyError } from '../core/errors.js';
import { NotCanonicalError } from '../core/canonical.js';
import type { DuplicatePolicy } from '../core/engine.js';
import { fingerprint, type FingerprintBody } from '../core/fingerprint.js';
import { isStorableText, MAX_IDENTITY_BYTES, type Identity } from '../core/identity.js';
import type { Claim } from '../core/store.js';
import { routeSettings } from '../http/route-settings.js';
import type {
  IdempotencyModuleOptions,
  IdempotencyRouteDefaults,
  IdempotentRouteOptions,
  ResponseOptions,
} from '../idempotency.options.js';
import { validateRouteOptions } from '../idempotency.options.validation.js';

/** Options of a route that a task can set as well; where it does not, the module's hold. */
const TASK_OPTIONS = [
  'isolation',
  'lease',
  'maxDuration',
  'mode',
  'onOutcomeUnknown',
  'response',
  'ttl',
  'whenInProgress',
] as const satisfies readonly (keyof IdempotencyRouteDefaults)[];

/** An operation that is to happen once, and what makes it the same when it comes again. */
export interface IdempotentTask extends Identity, Pick<IdempotencyRouteDefaults, TaskOption> {
  /** Whose key it is: the producer, the tenant, the provider of a webhook. At most 512 bytes. */
  readonly client: string;
  /** What is done, such as the consumer's name. At most 512 bytes. */
  readonly endpoint: string;
  /** What marks one operation on each of its deliveries: a message's or an event's id. At most 1024 bytes. */
  readonly key: string;
  /**
   * What the operation is asked to do, as JSON or bytes: the same key with another payload is refused with
   * `IDEMPOTENCY_KEY_REUSED`. The order of members does not count. Default: nothing is compared.
   */
  readonly payload?: unknown;
  /** `maxSize`: the largest value that is recorded, in bytes of JSON. */
  readonly response?: Pick<ResponseOptions, 'maxSize'>;
}

type TaskOption = Exclude<(typeof TASK_OPTIONS)[number], 'response'>;

/** A task that was read and checked. Times are milliseconds. */
export interface PreparedTask {
  readonly claim: Claim;
  readonly duplicates: DuplicatePolicy;
  readonly maxSize: number;
}

/**
 * Reads a task.
 *
 * @throws IdempotencyFailure when its client or key cannot be used.
 * @throws IdempotencyUsageError `IDEMPOTENCY_ARGUMENT_INVALID` or `IDEMPOTENCY_OPTIONS_INVALID`.
 */
export function prepareTask(module: IdempotencyModuleOptions, task: IdempotentTask): PreparedTask {
  const { client, endpoint, key, payload, ...options } = task;
  checkOptions(options);
  const identity = checkedIdentity({ client, endpoint, key });
  const { ttl, maxDuration, mode, duplicates, maxBody } = routeSettings(module, [options]);
  // What work throws is never the answer, so that there is nothing to go back to before it is stored.
  const claimed = mode.kind === 'transaction' ? { ...mode, storesErrors: false } : mode;
  const claim: Claim = { identity, fingerprint: fingerprintOf(payload), ttl, maxDuration, mode: claimed };
  return { claim, duplicates, maxSize: maxBody };
}

function checkOptions(options: IdempotentRouteOptions): void {
  const where = 'IdempotencyService.run()';
  validateRouteOptions(options, where);
  const known: readonly string[] = TASK_OPTIONS;
  const { response = {} } = options;
  const names = [
    ...Object.keys(options).filter((name) => !known.includes(name)),
    ...Object.keys(response)
      .map((name) => `response.${name}`)
      .filter((name) => name !== 'response.maxSize'),
  ];
  if (names.length === 0) return;
  throw new IdempotencyUsageError(
    'IDEMPOTENCY_OPTIONS_INVALID',
    `${where}: option "${names.join('", "')}" belongs to HTTP; known are ${known.join(', ')} (of which maxSize).`,
  );
}

/** The key's rules in the module's options are those of a header, so that only what the table can hold is asked for. */
function checkedIdentity(identity: Identity): Identity {
  const { client, endpoint, key } = identity;
  if (!isName(client, MAX_IDENTITY_BYTES.client)) {
    const detail = `"client" must be a string of 1 to ${MAX_IDENTITY_BYTES.client} bytes: whose key it is.`;
    throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_CLIENT_UNRESOLVED', { detail }));
  }
  if (!isName(endpoint, MAX_IDENTITY_BYTES.endpoint))
    throw invalid(`"endpoint" must be a string of 1 to ${MAX_IDENTITY_BYTES.endpoint} bytes: what is done`);
  checkKey(key);
  return identity;
}

function checkKey(key: unknown): void {
  const longest = MAX_IDENTITY_BYTES.key;
  const source = { kind: 'from', name: 'idempotency key' } as const;
  const facts = { source, minLength: 1, maxLength: longest };
  const refuse = (...args: [Parameters<typeof keyError>[0], string]): never => {
    throw new IdempotencyFailure(keyError(...args, facts));
  };
  if (typeof key !== 'string' || key === '')
    refuse('IDEMPOTENCY_KEY_REQUIRED', '"key" must be a string: what marks this operation on each delivery.');
  else if (Buffer.byteLength(key) > longest)
    refuse('IDEMPOTENCY_KEY_TOO_LONG', `"key" must be at most ${longest} bytes.`);
  else if (!isStorableText(key, longest))
    refuse('IDEMPOTENCY_KEY_MALFORMED', '"key" must not contain NUL or a lone surrogate.');
}

function isName(value: unknown, maxBytes: number): boolean {
  return typeof value === 'string' && value !== '' && isStorableText(value, maxBytes);
}

/** No HTTP method is written like this, so that a record of a route is never taken for one of a run, nor the other way round. */
const METHOD = 'run';

function fingerprintOf(payload: unknown): Buffer {
  try {
    return fingerprint({ method: METHOD, path: '', query: '', mediaType: '', body: bodyOf(payload) });
  } catch (error) {
    if (!(error instanceof NotCanonicalError)) throw error;
    throw invalid(`"payload" must be a value that can be compared, bytes or absent: ${error.message}`, error);
  }
}

function bodyOf(payload: unknown): FingerprintBody {
  if (payload === undefined) return { kind: 'empty' };
  return payload instanceof Uint8Array
    ? { kind: 'bytes', bytes: payload }
    : { kind: 'parsed', value: payload };
}

function invalid(what: string, cause?: unknown): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_ARGUMENT_INVALID', `${what}.`, { cause });
}
