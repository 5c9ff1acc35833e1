import { afterEach, describe, expect, it } from '@jest/globals';
import {
  CallError,
  endpoint,
  type CallResult,
  type PendingCall,
  type StandardSchema,
} from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs } from '../../helpers/client-calls.js';
import { serverOfTest, type ReceivedRequest } from '../../helpers/client-server.js';

const server = serverOfTest(afterEach);

/** Sends a body three times, which `spoil` changes after the call and after each attempt; and once more, as it was saved. */
async function send(
  body: unknown,
  { spoil = () => undefined, input }: { spoil?: () => void; input?: StandardSchema } = {},
): Promise<ReceivedRequest> {
  await server.start([{ status: 503 }, { cut: 'before' }, {}, {}]);
  const pending: PendingCall[] = [];
  const upload = endpoint({
    method: 'POST',
    baseUrl: server.url,
    path: '/uploads',
    retry: { backoff: AT_ONCE },
    idempotency: {},
    input,
    saveKey: (call) => void pending.push(call),
    onAttempt: spoil,
  });
  const call = upload({ body });
  spoil();
  await call;
  const [{ key, input: saved }] = pending as [PendingCall];
  await upload(saved as { body: unknown }, { idempotencyKey: key });
  const [first, ...others] = server.requests;
  expect(others).toHaveLength(3);
  for (const other of others) expect(other).toEqual(first);
  return first!;
}

describe('bytes', () => {
  it.each([
    ['a Uint8Array', (bytes: Uint8Array): unknown => bytes],
    ['a Buffer', (bytes: Uint8Array): unknown => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)],
    ['a part of a larger buffer', (bytes: Uint8Array): unknown => bytes.subarray(0)],
    [
      'a DataView',
      (bytes: Uint8Array): unknown => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    ],
  ])('of %s are copied', async (_, viewOf) => {
    const bytes = new Uint8Array(8).subarray(2, 6);
    bytes.set([1, 2, 254, 255]);
    const { body, headers } = await send(viewOf(bytes), { spoil: () => void bytes.fill(0) });
    expect([...body]).toEqual([1, 2, 254, 255]);
    expect(headers['content-type']).toBe('application/octet-stream');
  });

  it('of an ArrayBuffer are copied', async () => {
    const bytes = Uint8Array.of(1, 2, 254, 255);
    const { body } = await send(bytes.buffer, { spoil: () => void bytes.fill(0) });
    expect([...body]).toEqual([1, 2, 254, 255]);
  });

  it('are sent whatever becomes of those that are saved', async () => {
    await server.start([{}]);
    const upload = endpoint({
      method: 'POST',
      baseUrl: server.url,
      path: '/uploads',
      idempotency: {},
      saveKey: ({ input }) => {
        const { buffer } = (input as { body: Uint8Array<ArrayBuffer> }).body;
        // As if they went to a worker.
        structuredClone(buffer, { transfer: [buffer] });
      },
    });
    await upload({ body: Uint8Array.of(1, 2, 3) });
    expect([...(server.requests[0]?.body ?? [])]).toEqual([1, 2, 3]);
  });

  it('of wider numbers are sent as they lie in memory', async () => {
    const { body } = await send(Uint16Array.of(1, 0xffff));
    expect(body).toEqual(Buffer.from(Uint16Array.of(1, 0xffff).buffer));
  });
});

describe('a body of the platform', () => {
  it('of a form has one boundary for all attempts', async () => {
    const form = new FormData();
    form.append('ref', 'inv_88');
    form.append('file', new Blob(['content'], { type: 'text/csv' }), 'a.csv');
    const { text, headers } = await send(form, { spoil: () => form.append('late', 'x') });
    const [, boundary = ''] =
      /^multipart\/form-data; boundary=(.+)$/.exec(headers['content-type'] ?? '') ?? [];
    expect(boundary).not.toBe('');
    expect(text.split(`--${boundary}`)).toHaveLength(4);
    expect(text).toContain('filename="a.csv"');
    expect(text).not.toContain('late');
  });

  it('of a blob has its type', async () => {
    const { text, headers } = await send(new Blob(['a,b'], { type: 'text/csv' }));
    expect({ text, type: headers['content-type'] }).toEqual({ text: 'a,b', type: 'text/csv' });
  });

  it('of a blob without a type is bytes', async () => {
    const { headers } = await send(new Blob(['a,b']));
    expect(headers['content-type']).toBe('application/octet-stream');
  });

  it('of a blob that is JSON is sent, and saved, as it is', async () => {
    const { text, headers } = await send(new Blob(['{ "a": 1.0 }'], { type: 'application/json' }));
    expect({ text, type: headers['content-type'] }).toEqual({
      text: '{ "a": 1.0 }',
      type: 'application/json',
    });
  });

  it('of search parameters is a form', async () => {
    const values = new URLSearchParams({ ref: 'a b' });
    const { text, headers } = await send(values, { spoil: () => values.append('late', 'x') });
    expect(text).toBe('ref=a+b');
    expect(headers['content-type']).toBe('application/x-www-form-urlencoded;charset=UTF-8');
  });

  it('of a stream is read once', async () => {
    let pulled = 0;
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled += 1;
        if (pulled > 3) controller.close();
        else controller.enqueue(new TextEncoder().encode(`chunk ${pulled};`));
      },
    });
    const { text } = await send(stream);
    expect(text).toBe('chunk 1;chunk 2;chunk 3;');
    expect(pulled).toBe(4);
  });
});

describe('a value', () => {
  it.each([
    [{ a: [1, null, 'ü'] }, '{"a":[1,null,"ü"]}'],
    [[], '[]'],
    [null, 'null'],
    [0, '0'],
    [false, 'false'],
    ['text', '"text"'],
    ['', '""'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
  ])('%j is sent as JSON', async (value, json) => {
    const { text, headers } = await send(value);
    expect({ text, type: headers['content-type'] }).toEqual({ text: json, type: 'application/json' });
  });

  it('that is none has neither body nor type', async () => {
    const { body, headers } = await send(undefined);
    expect(body).toHaveLength(0);
    expect(headers).not.toHaveProperty('content-type');
  });

  it('is asked for its JSON once', async () => {
    let asked = 0;
    const { text } = await send({ toJSON: () => ({ asked: ++asked }) });
    expect(text).toBe('{"asked":1}');
  });

  it('is sent as its schema makes it, and saved as it was given', async () => {
    const input: StandardSchema = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: (value) => ({ value: { cents: (value as { euros: number }).euros * 100 } }),
      },
    };
    const { text } = await send({ euros: 42 }, { input });
    expect(text).toBe('{"cents":4200}');
  });
});

describe('nothing is sent', () => {
  const circular: { self?: unknown } = {};
  circular.self = circular;

  it.each([
    ['a function', (): void => undefined],
    ['a symbol', Symbol('a')],
    ['a bigint', 1n],
    ['a circle', circular],
    ['a stream that fails', new ReadableStream({ pull: () => Promise.reject(new Error('disk')) })],
    [
      'a value that refuses',
      {
        toJSON: (): never => {
          throw new Error('secret');
        },
      },
    ],
  ])('of %s, which nobody can serialise', async (_, body) => {
    await server.start([]);
    const upload = endpoint({ method: 'POST', baseUrl: server.url, path: '/uploads', idempotency: {} });
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', upload({ body }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0, key: undefined });
    expect(error.message).toMatch(/^CALL_INPUT_INVALID: POST \/uploads cannot be sent: /);
    expect(server.connections).toBe(0);
  });

  it.each([
    ['a bigint', 1n],
    ['a function', (): void => undefined],
  ])('of %s that a schema can read, where it cannot be saved', async (_, body) => {
    await server.start([]);
    const saved: unknown[] = [];
    const input: StandardSchema = {
      '~standard': { version: 1, vendor: 'test', validate: () => ({ value: 'readable' }) },
    };
    const upload = endpoint({
      method: 'POST',
      baseUrl: server.url,
      path: '/uploads',
      idempotency: {},
      input,
      saveKey: (call) => void saved.push(call),
    });
    const error = await failureAs(CallError, 'CALL_KEY_NOT_SAVED', upload({ body }));
    expect(error).toMatchObject({ effect: 'none', attempts: 0 });
    expect(saved).toEqual([]);
    expect(server.connections).toBe(0);
  });

  it('of a body that a method does not have', async () => {
    await server.start([]);
    const list = endpoint({ method: 'GET', baseUrl: server.url, path: '/uploads' }) as (
      input: object,
    ) => Promise<CallResult<unknown>>;
    const error = await failureAs(CallError, 'CALL_INPUT_INVALID', list({ body: {} }));
    expect(error.message).toBe('CALL_INPUT_INVALID: GET /uploads cannot be sent: GET has no body.');
    expect(server.connections).toBe(0);
  });
});
