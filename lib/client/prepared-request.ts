import type { CallOptions } from './call-options.js';
import type { FetchInit, QueryValues } from './declaration.js';
import { CallError, SchemaError, type CallErrorCode } from './errors.js';
import { addressOf, freezeBody, isSentAsItIs, type AnyInput, type FrozenBody } from './frozen-request.js';
import { faultOfKey, type KeyStrategy } from './keys.js';
import { isWrite } from './method.js';
import { CREDENTIAL } from './redirects.js';
import type { PendingCall } from './reports.js';
import { describeIssues, type SchemaResult } from './schema.js';
import type { Settings } from './settings.js';
import { isThenable } from './thenable.js';

/** A request that is the same in all its attempts. */
export interface PreparedRequest {
  readonly url: string;
  readonly key: string | undefined;
  readonly init: Omit<FetchInit, 'signal'>;
}

/** What the caller cannot change any more. */
interface FrozenRequest {
  readonly url: string;
  readonly body: FrozenBody;
}

type Eventually<T> = T | PromiseLike<T>;

/**
 * Makes the request of a call, key and all, and has the key saved. Nothing is sent here.
 *
 * But for asynchronous schemas, streams and blobs, all that the caller gave is read before this returns, and the caller goes on:
 * what it changes afterwards changes neither bytes nor key.
 *
 * @param beforeSave - Throws for a call that is over, whose key is not to be saved.
 */
export async function prepare(
  settings: Settings,
  { params = {}, query = {}, headers: own = {}, body: given }: AnyInput,
  options: CallOptions,
  beforeSave: (key: string) => void,
): Promise<PreparedRequest> {
  const input = { params: { ...params }, query: copyOf(query), headers: { ...own }, body: given };
  const isSaved = settings.hooks.saveKey !== undefined || options.saveKey !== undefined;
  const { frozen, saved, choosing } = await after(freeze(settings, input), (frozen) => ({
    frozen,
    saved: isSaved ? savedInput(settings, input, frozen.body) : undefined,
    choosing: chooseKey(settings, input, options.idempotencyKey, frozen),
  }));
  const key = await choosing;
  const { url, body } = frozen;
  const headers = await headersOf(settings, input.headers, body.contentType, key);
  if (key !== undefined && isSaved) {
    beforeSave(key);
    await save(settings, options, { key, method: settings.method, url, input: saved });
  }
  const { method } = settings;
  const isBound = isWrite(method) || settings.auth || CREDENTIAL.test(String(Object.keys(headers)));
  const redirect = isBound ? 'manual' : 'follow';
  return { url, key, init: { method, headers, body: body.bytes, redirect } };
}

function copyOf(query: QueryValues): QueryValues {
  const entries = Object.entries(query);
  return Object.fromEntries(
    entries.map(([name, value]) => [name, Array.isArray(value) ? value.slice() : value]),
  );
}

function freeze(settings: Settings, input: AnyInput): Eventually<FrozenRequest> {
  const { method } = settings;
  const explain = (error: unknown): never => {
    if (error instanceof CallError) throw error;
    throw failure('CALL_INPUT_INVALID', `${call(settings)} cannot be sent: ${messageOf(error)}.`, error);
  };
  try {
    const url = addressOf(settings, input);
    if (input.body !== undefined && !isWrite(method)) throw new Error(`${method} has no body`);
    if (isThenable(input.body)) throw new Error('the body is a promise: await it');
    const body = after(validate(settings, input.body), freezeBody);
    const frozen = after(body, (read) => ({ url, body: read }));
    return isThenable(frozen) ? frozen.then(undefined, explain) : frozen;
  } catch (error) {
    return explain(error);
  }
}

function validate(settings: Settings, body: unknown): Eventually<unknown> {
  const finish = (result: SchemaResult<unknown>): unknown => {
    if (!result.issues) return result.value;
    const found = describeIssues(result.issues);
    const message = `the body of ${call(settings)} does not match its input schema: ${found}.`;
    throw new SchemaError('CALL_INPUT_INVALID', message, NOTHING_SENT, result.issues);
  };
  return after(settings.input?.['~standard'].validate(body) ?? { value: body }, finish);
}

async function chooseKey(
  settings: Settings,
  { params, query, body }: AnyInput,
  given: string | undefined,
  { url, body: { bytes, contentType } }: FrozenRequest,
): Promise<string | undefined> {
  const { idempotency, method } = settings;
  if (!idempotency) {
    if (given === undefined) return undefined;
    throw failure('CALL_KEY_INVALID', `${call(settings)} has no idempotency, and would not send the key.`);
  }
  const request = { method, url, contentType, bytes };
  let key: unknown = given;
  try {
    key ??= await (idempotency.key as KeyStrategy)({ params, query, body, request });
  } catch (error) {
    throw failure('CALL_KEY_INVALID', `${call(settings)} got no key: ${messageOf(error)}.`, error);
  }
  const fault = faultOfKey(key, idempotency.rules);
  if (fault) throw failure('CALL_KEY_INVALID', `the key of ${call(settings)} ${fault}.`);
  return key as string;
}

/** In lower case, so that each is there once; who comes later has precedence. */
async function headersOf(
  settings: Settings,
  own: Readonly<Record<string, string>>,
  contentType: string | undefined,
  key: string | undefined,
): Promise<Record<string, string>> {
  const layers = [
    { accept: 'application/json' },
    contentType === undefined ? {} : { 'content-type': contentType },
    settings.headers,
    own,
    await credentials(settings, key),
    key === undefined ? {} : { [settings.idempotency?.header ?? '']: key },
  ];
  const headers = Object.assign({}, ...layers.map(inLowerCase)) as Record<string, string>;
  try {
    new Headers(headers);
  } catch {
    // What the platform says of it quotes the value, which may be a secret.
    const names = Object.keys(headers).join(', ');
    throw failure(
      'CALL_INPUT_INVALID',
      `HTTP does not allow a header of ${call(settings)}, one of ${names}.`,
      undefined,
      key,
    );
  }
  return headers;
}

async function credentials(
  settings: Settings,
  key: string | undefined,
): Promise<Readonly<Record<string, string>>> {
  try {
    return (await settings.auth?.()) ?? {};
  } catch (error) {
    throw failure(
      'CALL_AUTH_UNAVAILABLE',
      `${call(settings)} has no credentials: ${messageOf(error)}.`,
      error,
      key,
    );
  }
}

function inLowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

async function save(settings: Settings, options: CallOptions, pending: PendingCall): Promise<void> {
  try {
    await settings.hooks.saveKey?.(pending);
    await options.saveKey?.(pending);
  } catch (error) {
    const message = `the key of ${call(settings)} could not be saved, and nothing was sent: ${messageOf(error)}.`;
    throw failure('CALL_KEY_NOT_SAVED', message, error, pending.key);
  }
}

/**
 * The input as whoever saves it would read it back, and taken now. What was no value becomes bytes, which do not tell their media
 * type: a header does.
 */
function savedInput(settings: Settings, input: AnyInput, { contentType, bytes }: FrozenBody): AnyInput {
  const { body, headers } = input;
  if (body === undefined) return input;
  if (!isSentAsItIs(body)) {
    // Without a schema that changes it, what is sent is what was given, and was asked for its JSON already.
    const json = settings.input ? jsonOf(settings, body) : new TextDecoder().decode(bytes);
    return { ...input, body: JSON.parse(json) as unknown };
  }
  const type = inLowerCase(settings.headers)['content-type'] ?? contentType ?? '';
  return { ...input, headers: { 'content-type': type, ...headers }, body: bytes?.slice() };
}

function jsonOf(settings: Settings, body: unknown): string {
  try {
    const json = JSON.stringify(body) as string | undefined;
    if (json !== undefined) return json;
    throw new TypeError(`JSON cannot hold a ${typeof body}`);
  } catch (error) {
    const message = `the input of ${call(settings)} cannot be saved, and nothing was sent: ${messageOf(error)}.`;
    throw failure('CALL_KEY_NOT_SAVED', message, error);
  }
}

function after<A, B>(value: Eventually<A>, next: (value: A) => Eventually<B>): Eventually<B> {
  return isThenable(value) ? Promise.resolve(value).then(next) : next(value);
}

const NOTHING_SENT = { effect: 'none', key: undefined, attempts: 0 } as const;

function failure(code: CallErrorCode, message: string, cause?: unknown, key?: string): CallError {
  return new CallError(code, message, { ...NOTHING_SENT, key, cause });
}

function call({ method, path }: Settings): string {
  return `${method} ${path}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
