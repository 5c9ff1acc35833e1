import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { Logger } from '@nestjs/common';
import { idempotencyError } from '../../../lib/core/errors.js';
import { ProblemWriter } from '../../../lib/http/problem-details.js';
import type { ErrorFormatter } from '../../../lib/index.js';

const ERROR = idempotencyError('IDEMPOTENCY_IN_PROGRESS');
const cyclic: { self?: object } = {};
cyclic.self = cyclic;

describe('ProblemWriter', () => {
  afterEach(() => void jest.restoreAllMocks());

  it.each<[string, ErrorFormatter]>([
    [
      'throws',
      () => {
        throw new Error('no');
      },
    ],
    ['returns nothing', (() => undefined) as unknown as ErrorFormatter],
    ['returns a body that is no object', () => ({ body: 'text' as unknown as object })],
    ['returns a body that is a list', () => ({ body: [] })],
    ['returns a body that JSON cannot hold', () => ({ body: cyclic })],
    ['returns a body with a bigint', () => ({ body: { id: 1n } })],
    ['returns a status that is none', () => ({ body: {}, status: 99 })],
    ['returns a header name that is none', () => ({ body: {}, headers: { 'a b': '1' } })],
    ['returns a header value that is none', () => ({ body: {}, headers: { a: 'x\ny' } })],
    ['sets a length of its own', () => ({ body: {}, headers: { 'Content-Length': '1' } })],
    ['sets a framing of its own', () => ({ body: {}, headers: { 'transfer-encoding': 'chunked' } })],
    ['returns a media type that is none', () => ({ body: {}, contentType: 'a\nb' })],
  ])('sends problem details, and says why once, where the formatter %s', (_what, format) => {
    const logged = jest.spyOn(Logger.prototype, 'error').mockImplementation(() => undefined);
    const writer = new ProblemWriter('https://example.com/errors', format);
    const standard = new ProblemWriter('https://example.com/errors', undefined);
    expect(writer.problem(ERROR)).toEqual(standard.problem(ERROR));
    expect(writer.answer(ERROR, {})).toEqual(standard.answer(ERROR, {}));
    expect(logged).toHaveBeenCalledTimes(1);
  });

  it('sends problem details where the formatter is asynchronous, whose failure then ends nothing', async () => {
    jest.spyOn(Logger.prototype, 'error').mockImplementation(() => undefined);
    const unhandled = jest.fn();
    process.on('unhandledRejection', unhandled);
    const format = (async () => {
      throw new Error('no');
    }) as unknown as ErrorFormatter;
    const standard = new ProblemWriter('https://example.com/errors', undefined);
    expect(new ProblemWriter('https://example.com/errors', format).problem(ERROR)).toEqual(
      standard.problem(ERROR),
    );
    // Node tells of unhandled rejections when its queue of microtasks is empty.
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('takes body, status, media type and headers from the formatter', () => {
    const format: ErrorFormatter = ({ code }) => ({
      body: { failed: code },
      status: 425,
      contentType: 'application/vnd.api+json',
      headers: { 'X-Why': 'busy' },
    });
    const { status, headers, body } = new ProblemWriter('https://example.com/errors', format).answer(
      ERROR,
      {},
    );
    expect(status).toBe(425);
    expect(headers).toMatchObject({
      'content-type': 'application/vnd.api+json; charset=utf-8',
      'retry-after': '1',
      'x-why': 'busy',
    });
    expect(JSON.parse(body.toString())).toEqual({ failed: 'IDEMPOTENCY_IN_PROGRESS' });
  });

  it('says the character set once', () => {
    const format: ErrorFormatter = () => ({ body: {}, contentType: 'application/json; charset=utf-8' });
    const { headers } = new ProblemWriter('https://example.com/errors', format).answer(ERROR, {});
    expect(headers['content-type']).toBe('application/json; charset=utf-8');
  });
});
