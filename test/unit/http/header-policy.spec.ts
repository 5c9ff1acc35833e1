import { describe, expect, it } from '@jest/globals';
import { HeaderPolicy } from '../../../lib/http/header-policy.js';

describe('HeaderPolicy', () => {
  const policy = new HeaderPolicy();

  it.each(['content-type', 'location', 'etag', 'vary', 'link', 'cache-control', 'retry-after', 'x-custom'])(
    'records %s',
    (name) => {
      expect(policy.isRecorded(name)).toBe(true);
    },
  );

  it.each([
    ...['set-cookie', 'set-cookie2', 'authorization', 'proxy-authorization', 'www-authenticate'],
    ...['proxy-authenticate', 'authentication-info', 'connection', 'keep-alive', 'transfer-encoding'],
    ...['te', 'trailer', 'upgrade', 'content-length', 'date', 'cookie', 'proxy-authentication-info'],
    ...['x-csrf-token', 'csrf-token', 'x-xsrf-token', 'xsrf-token', 'x-auth-token', 'x-subject-token'],
    ...['x-amz-security-token', 'x-vault-token', 'private-token', 'job-token', 'x-shopify-access-token'],
    ...[
      'x-goog-api-key',
      'x-api-key',
      'api-key',
      'apikey',
      'x-access-token',
      'x-refresh-token',
      'x-id-token',
    ],
    ...['x-session-token', 'x-session-id'],
  ])('never records %s, even where it is allowed', (name) => {
    expect(policy.isRecorded(name)).toBe(false);
    expect(new HeaderPolicy({ allow: [name] }).isRecorded(name)).toBe(false);
  });

  it.each([
    ...[
      'access-control-allow-origin',
      'x-ratelimit-remaining',
      'ratelimit',
      'rate-limit-policy',
      'request-id',
    ],
    ...[
      'x-request-id',
      'x-correlation-id',
      'traceparent',
      'x-b3-traceid',
      'server-timing',
      'idempotency-key',
    ],
    ...['x-rate-limit-limit', 'x-ratelimit', 'correlation-id', 'tracestate', 'x-trace-id', 'b3'],
    ...['x-amzn-trace-id', 'x-cloud-trace-context', 'x-response-time', 'idempotency-replayed'],
  ])('records %s, which belongs to the exchange, only where it is allowed', (name) => {
    expect(policy.isRecorded(name)).toBe(false);
    expect(new HeaderPolicy({ allow: [name.toUpperCase()] }).isRecorded(name)).toBe(true);
  });

  it.each([
    ...[
      'x-upload-token',
      'token',
      'client-secret',
      'x-password',
      'x-passwd',
      'x-passphrase',
      'x-credentials',
    ],
    ...[
      'x-credential',
      'x-internal-auth',
      'x-partner-api-key',
      'x-partner-apikey',
      'x-private-key',
      'x-secret-key',
    ],
    ...['x-session', 'my-sessionid', 'x-jwt', 'x-otp'],
  ])('records %s, which sounds like a secret, only where it is allowed', (name) => {
    expect(policy.isRecorded(name)).toBe(false);
    expect(new HeaderPolicy({ allow: [name] }).isRecorded(name)).toBe(true);
  });

  it.each([
    'x-token-count',
    'x-tokenized',
    'secretary',
    'x-author',
    'x-keyword',
    'x-session-count',
    'monkey',
  ])('records %s, which only sounds a little like one', (name) => {
    expect(policy.isRecorded(name)).toBe(true);
  });

  it.each([
    ...['content-type', 'content-language', 'content-disposition', 'content-location', 'content-range'],
    ...['etag', 'last-modified', 'vary', 'location', 'link'],
  ])('records %s, which says what the answer is, also where it was there before', (name) => {
    expect(policy.recorded({ [name]: 'same' }, { [name]: 'same' })).toEqual([[name, 'same']]);
    expect(new HeaderPolicy({ deny: [name] }).recorded({ [name]: 'same' }, { [name]: 'same' })).toEqual([]);
  });

  it.each([
    'my-request-id',
    'request-id-of-the-order',
    'x-server-timing',
    'b3-of-the-order',
    'no-idempotency-key',
  ])('records %s, which only looks like one of them', (name) => {
    expect(policy.isRecorded(name)).toBe(true);
  });

  it('has neither allowances nor denials of its own', () => {
    const none = new HeaderPolicy({});
    expect(none.isRecorded('x-request-id')).toBe(false);
    expect(none.isRecorded('etag')).toBe(true);
  });

  it('lets a denial win', () => {
    const both = new HeaderPolicy({ allow: ['X-Request-Id'], deny: ['x-request-id', 'ETag'] });
    expect(both.isRecorded('x-request-id')).toBe(false);
    expect(both.isRecorded('etag')).toBe(false);
  });

  it('records what changed since take-over: set, changed, removed', () => {
    const baseline = { 'x-same': '1', 'x-changed': 'old', 'x-removed': 'gone', 'x-list': ['a'] };
    const sent = {
      'x-same': '1',
      'x-changed': 'new',
      'x-number': 7,
      'x-list': ['a', 'b'],
      'set-cookie': ['a'],
    };
    expect(new Map(policy.recorded(baseline, sent) as [string, unknown][])).toEqual(
      new Map<string, unknown>([
        ['x-changed', 'new'],
        ['x-removed', null],
        ['x-number', '7'],
        ['x-list', ['a', 'b']],
      ]),
    );
  });

  it('takes a number and its text for the same', () => {
    expect(policy.recorded({ 'x-a': 1 }, { 'x-a': '1' })).toEqual([]);
  });

  it('puts recorded headers over those of the replay’s own exchange', () => {
    const baseline = { 'x-powered-by': 'Express', 'x-removed': 'current', 'x-list': 'current' };
    const current = {
      ...baseline,
      connection: 'close',
      'content-length': '0',
      'content-type': 'text/plain',
      location: '/placeholder',
      'server-timing': 'total;dur=1',
      'set-cookie': ['visit=2'],
    };
    const recorded = [
      ['x-removed', null],
      ['x-list', ['a', 'b']],
      ['x-result', '7'],
    ] as const;
    expect(policy.replayed(baseline, current, recorded)).toEqual({
      'x-powered-by': 'Express',
      'x-list': ['a', 'b'],
      'x-result': '7',
      'server-timing': 'total;dur=1',
      'set-cookie': ['visit=2'],
    });
  });

  it('keeps nothing of a discarded response but what belongs to the exchange', () => {
    const baseline = { 'x-powered-by': 'Express' };
    const current = { ...baseline, 'set-cookie': 'session=1', location: '/7', 'x-request-id': '1' };
    expect(policy.ofTheExchange(baseline, current)).toEqual({
      'x-powered-by': 'Express',
      'x-request-id': '1',
    });
  });

  it('takes what is allowed from the record, and not from the exchange', () => {
    const allowing = new HeaderPolicy({ allow: ['x-request-id'] });
    const current = { 'x-request-id': 'current', 'x-trace-id': 'current' };
    expect(allowing.replayed({}, current, [['x-request-id', 'recorded']])).toEqual({
      'x-request-id': 'recorded',
      'x-trace-id': 'current',
    });
    expect(allowing.ofTheExchange({}, current)).toEqual({ 'x-trace-id': 'current' });
  });

  it('gives away no list of its own', () => {
    const values = ['a', 'b'];
    const { 'x-list': replayed } = policy.replayed({}, {}, [['x-list', values]]);
    expect(replayed).toEqual(values);
    expect(replayed).not.toBe(values);
  });
});
