import { describe, expect, it } from '@jest/globals';
import { DeclarationError } from '../../../lib/client/errors.js';
import { randomKey } from '../../../lib/client/keys.js';
import { settingsOf, type AnyDeclaration, type Settings } from '../../../lib/client/settings.js';

const READS = ['GET', 'HEAD', 'OPTIONS'] as const;
const WRITES = ['POST', 'PUT', 'PATCH', 'DELETE'] as const;

/** A declaration that is in order but for what is given, whatever types say of that. */
function declare(part: object = {}): Settings {
  const declaration = { method: 'POST', baseUrl: 'https://api.example.com', path: '/charges', ...part };
  return settingsOf(declaration as AnyDeclaration);
}

function refusal(part: object): DeclarationError {
  try {
    declare(part);
  } catch (error) {
    if (error instanceof DeclarationError) return error;
    throw error;
  }
  throw new Error(`not refused: ${JSON.stringify(part)}`);
}

describe('a declaration', () => {
  it('is filled in with the documented defaults', () => {
    const settings = declare({ retry: {}, idempotency: {} });
    expect(settings).toMatchObject({
      headers: {},
      auth: undefined,
      input: undefined,
      output: undefined,
      retry: { attempts: 3, backoff: { base: 200, max: 10_000 } },
      timeout: { total: 30_000, perAttempt: 10_000 },
      hooks: {},
      idempotency: {
        header: 'Idempotency-Key',
        replayedHeader: 'Idempotency-Replayed',
        createdAtHeader: 'Idempotency-Created-At',
        inProgressCode: 'IDEMPOTENCY_IN_PROGRESS',
        keyReusedCode: 'IDEMPOTENCY_KEY_REUSED',
        rules: { minLength: 1, maxLength: 256 },
      },
    });
    expect([...settings.retry.on]).toEqual([408, 425, 429, 500, 502, 503, 504]);
  });

  it('neither retries nor has a key unless it says so', () => {
    expect(declare()).toMatchObject({ retry: { attempts: 1 }, idempotency: undefined });
  });

  it('keeps what it says', () => {
    const key = randomKey();
    const settings = declare({
      retry: { attempts: 5, on: [503], backoff: { base: '1s', max: '1m' } },
      timeout: { total: '2m', perAttempt: 500 },
      idempotency: {
        key,
        header: 'X-Request-Id',
        rules: { minLength: 8, maxLength: 64, pattern: /^\w+$/i },
        responseHeaders: { replayed: 'X-Replayed', createdAt: 'X-Created' },
        codes: { inProgress: 'BUSY', keyReused: 'REUSED' },
      },
    });
    expect(settings).toMatchObject({
      retry: { attempts: 5, on: new Set([503]), backoff: { base: 1_000, max: 60_000 } },
      timeout: { total: 120_000, perAttempt: 500 },
      idempotency: {
        key,
        header: 'X-Request-Id',
        rules: { minLength: 8, maxLength: 64, pattern: /^\w+$/i },
        replayedHeader: 'X-Replayed',
        createdAtHeader: 'X-Created',
        inProgressCode: 'BUSY',
        keyReusedCode: 'REUSED',
      },
    });
  });

  it('does not let the longest pause be shorter than the first one that was asked for', () => {
    expect(declare({ retry: { backoff: { base: '1m' } }, idempotency: {} }).retry.backoff).toEqual({
      base: 60_000,
      max: 60_000,
    });
  });

  it.each([
    ['https://api.example.com', 'https://api.example.com'],
    ['https://api.example.com/', 'https://api.example.com'],
    ['https://api.example.com/v1/', 'https://api.example.com/v1'],
    ['HTTP://API.example.com:80/v1', 'http://api.example.com/v1'],
  ])('takes %s for its address', (baseUrl, expected) => {
    expect(declare({ baseUrl }).baseUrl).toBe(expected);
  });

  it('takes an address relative to the page, where there is a page', () => {
    Object.assign(globalThis, { location: { href: 'https://shop.example.com/cart?item=1#top' } });
    try {
      expect(declare({ baseUrl: '/api' }).baseUrl).toBe('https://shop.example.com/api');
    } finally {
      Reflect.deleteProperty(globalThis, 'location');
    }
  });

  it.each(['key', 'a', '~', 'a b', "it's", 'order_7%5F1', 'x'.repeat(256)])(
    'has rules that take %j',
    (key) => {
      expect(declare({ idempotency: {} }).idempotency?.rules.pattern.test(key)).toBe(true);
    },
  );

  it.each(['', ' a', 'a ', '"a"', 'ü', 'a\n', 'a\u0000b', 'a\tb', '\u007f'])(
    'has rules that refuse %j',
    (key) => {
      expect(declare({ idempotency: {} }).idempotency?.rules.pattern.test(key)).toBe(false);
    },
  );
});

describe('a declaration is refused', () => {
  it('with a code and a name of its own', () => {
    const error = refusal({ method: 'post' });
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({
      name: 'DeclarationError',
      code: 'CALL_DECLARATION_INVALID',
      message: 'CALL_DECLARATION_INVALID: method post is none of HTTP, in capitals.',
    });
  });

  it.each([
    [{ methode: 'POST' }, 'endpoint has no field methode; its fields are method, baseUrl,'],
    [{ body: {} }, 'endpoint has no field body'],
    [{ idempotencyKey: 'a' }, 'endpoint has no field idempotencyKey'],
    [{ retry: { attempt: 3 }, idempotency: {} }, 'retry has no field attempt; its fields are attempts, on'],
    [
      { retry: { backoff: { min: 1 } }, idempotency: {} },
      'backoff has no field min; its fields are base, max',
    ],
    [{ timeout: { perattempt: 1 } }, 'timeout has no field perattempt; its fields are total, perAttempt'],
    [{ idempotency: { headers: 'X' } }, 'idempotency has no field headers; its fields are key, header'],
    [{ idempotency: { rules: { max: 1 } } }, 'idempotency.rules has no field max;'],
    [
      { idempotency: { responseHeaders: { replay: 'X' } } },
      'idempotency.responseHeaders has no field replay;',
    ],
    [{ idempotency: { codes: { reused: 'X' } } }, 'idempotency.codes has no field reused;'],
    [{ timeout: 5_000 }, 'timeout must be an object with the fields total, perAttempt'],
    [{ timeout: '5s' }, 'timeout must be an object with the fields total, perAttempt'],
    [{ retry: 5, idempotency: {} }, 'retry must be an object with the fields attempts, on'],
    [{ idempotency: true }, 'idempotency must be an object with the fields key, header'],
    [{ idempotency: { codes: null } }, 'idempotency.codes must be an object with the fields inProgress'],
  ])('for a misspelt field: %j', (part, message) => {
    expect(refusal(part).message).toContain(message);
  });

  it.each(['', 'get', 'TRACE', 'CONNECT', 'QUERY', undefined])('for the method %j', (method) => {
    expect(refusal({ method }).message).toContain(`method ${String(method)} is none of HTTP`);
  });

  it.each([
    ['charges', 'path charges must begin with "/"'],
    ['/charges?ref=1', 'path /charges?ref=1 must have neither query nor fragment'],
    ['/:id/:id', 'path /:id/:id names a parameter twice'],
    ['/{id', 'path /{id has a parameter that is not :name or {name}'],
  ])('for the path %s', (path, message) => {
    expect(refusal({ path }).message).toContain(message);
  });

  it.each([
    ['/api', 'is no address of http: or https:'],
    ['api.example.com', 'is no address of http: or https:'],
    ['ftp://api.example.com', 'is no address of http: or https:'],
    ['', 'is no address of http: or https:'],
    [undefined, 'is no address of http: or https:'],
    ['https://user:s3cret@api.example.com', 'baseUrl has credentials: give them as auth'],
    ['https://user@api.example.com', 'baseUrl has credentials'],
    ['ftp://user:s3cret@api.example.com', 'baseUrl has credentials'],
    ['https://api.example.com?a=1', 'baseUrl must have neither query nor fragment'],
    ['https://api.example.com/v1#top', 'baseUrl must have neither query nor fragment'],
    // Nothing behind them, and yet a path put behind them would not be one.
    ['https://api.example.com/v1?', 'baseUrl must have neither query nor fragment'],
    ['https://api.example.com/v1#', 'baseUrl must have neither query nor fragment'],
  ])('for the address %j', (baseUrl, message) => {
    expect(refusal({ baseUrl }).message).toContain(message);
    expect(refusal({ baseUrl }).message).not.toContain('s3cret');
  });

  it.each(READS)('for idempotency of a %s', (method) => {
    expect(refusal({ method, idempotency: {} }).message).toContain(`${method} needs no idempotency`);
  });

  it.each(READS)('for an input schema of a %s, which has no body', (method) => {
    const input = { '~standard': { version: 1, vendor: 'test', validate: () => ({ value: 1 }) } };
    expect(refusal({ method, input }).message).toContain(`${method} has no body: leave out input`);
  });

  it.each([0, -1, 1.5, NaN, Infinity, '3', null])('for %p attempts', (attempts) => {
    expect(refusal({ retry: { attempts, unsafe: true } }).message).toContain(
      `retry.attempts is ${String(attempts)}: it must be a whole number from 1`,
    );
  });

  it.each([400, 409, 422])('for trying again after %d, which is final', (status) => {
    expect(refusal({ retry: { on: [503, status] }, idempotency: {} }).message).toContain(
      `retry.on has ${status}: the same request would get the same answer again`,
    );
  });

  it.each([200, 204, 299, 600, 0, -503, 503.5, NaN, '503'])('for trying again after %p', (status) => {
    expect(refusal({ retry: { on: [status] }, idempotency: {} }).message).toContain(
      `retry.on has ${String(status)}: error statuses are 300 to 599`,
    );
  });

  it.each(['linear', 'exponential', 100, true])('for the backoff %j', (backoff) => {
    expect(refusal({ retry: { backoff }, idempotency: {} }).message).toContain(
      "retry.backoff is neither 'expo-jitter' nor { base, max }",
    );
  });

  it.each([0, -1, 1.5, '', '30', '1d', 'soon', '25h 1m', '600h', NaN])('for the duration %j', (duration) => {
    const idempotency = {};
    const text = `is ${JSON.stringify(duration)}: it must be a whole number of milliseconds or a string such`;
    expect(refusal({ timeout: { total: duration } }).message).toContain(`timeout.total ${text}`);
    expect(refusal({ timeout: { perAttempt: duration } }).message).toContain(`timeout.perAttempt ${text}`);
    expect(refusal({ retry: { backoff: { base: duration } }, idempotency }).message).toContain(
      `retry.backoff.base ${text}`,
    );
    expect(refusal({ retry: { backoff: { max: duration } }, idempotency }).message).toContain(
      `retry.backoff.max ${text}`,
    );
  });

  it.each(['', 'Idempotency Key', 'Key:', 'Schlüssel', 'a\nb'])('for a header named %j', (name) => {
    const message = `${JSON.stringify(name)} cannot name a header`;
    expect(refusal({ idempotency: { header: name } }).message).toContain(message);
    expect(refusal({ idempotency: { responseHeaders: { replayed: name } } }).message).toContain(message);
    expect(refusal({ idempotency: { responseHeaders: { createdAt: name } } }).message).toContain(message);
  });

  it.each(['order_1', {}, null])('for the key strategy %j', (key) => {
    expect(refusal({ idempotency: { key } }).message).toContain('idempotency.key must be a function');
  });

  it.each([
    { minLength: 0 },
    { minLength: -1 },
    { minLength: 1.5 },
    { maxLength: 0 },
    { maxLength: NaN },
    { maxLength: '64' },
    { minLength: 9, maxLength: 8 },
    { minLength: 300 },
  ])('for the lengths %j', (rules) => {
    expect(refusal({ idempotency: { rules } }).message).toContain('1 ≤ minLength ≤ maxLength');
  });

  it.each([/^\w+$/g, /\w+/y, /\w+/gy])('for the pattern %p, which remembers', (pattern) => {
    expect(refusal({ idempotency: { rules: { pattern } } }).message).toContain(
      'must not have the flags g and y',
    );
  });
});

describe('retry without idempotency', () => {
  it.each(WRITES)('is refused for %s', (method) => {
    const message = `${method} with retry and without idempotency may write more than once. Add idempotency: {}; or say unsafe`;
    expect(refusal({ method, retry: {} }).message).toContain(message);
    expect(refusal({ method, retry: { attempts: 2 } }).message).toContain(message);
    expect(refusal({ method, retry: { attempts: 2, unsafe: false } }).message).toContain(message);
    expect(refusal({ method, retry: {}, idempotency: undefined }).message).toContain(message);
  });

  it.each(WRITES)('is allowed for %s that says it is unsafe, has a key, or is sent once', (method) => {
    expect(declare({ method, retry: { unsafe: true } }).retry.attempts).toBe(3);
    expect(declare({ method, retry: {}, idempotency: {} }).retry.attempts).toBe(3);
    expect(declare({ method, retry: { attempts: 1 } }).retry.attempts).toBe(1);
  });

  it.each(READS)('is allowed for %s', (method) => {
    expect(declare({ method, retry: {} }).retry.attempts).toBe(3);
  });
});
