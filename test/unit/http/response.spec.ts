import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createServer, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import type { Answer } from '../../../lib/transports/http/delivery.js';
import { HeldResponse } from '../../../lib/transports/http/response.js';
import { sendRequest, type HttpResponse } from '../../helpers/http.js';

/** What the handler of the server does with its response. */
let respond: (response: ServerResponse) => void;
let server: Server;
let url: string;

beforeEach(async () => {
  server = createServer({ rejectNonStandardBodyWrites: true }, (_request, response) => respond(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});

afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
});

const deliver = (recorder: HeldResponse, answer: Answer): void =>
  recorder.deliver(answer, {}, (cause) => {
    throw cause;
  });

/** Records what `write` writes, then sends it on; resolves with what the client got. */
async function relayed(
  write: (response: ServerResponse, recorder: HeldResponse) => void,
): Promise<HttpResponse> {
  respond = (response) => {
    const recorder = new HeldResponse(response, 1_000, () => deliver(recorder, recorder.held()));
    write(response, recorder);
  };
  return sendRequest(url);
}

describe('a recorded response', () => {
  it.each<[string, unknown[]]>([
    ['an object', [202, { 'X-One': '1', 'X-Many': ['a', 'b'] }]],
    ['an object after a reason', [202, 'Fine', { 'X-One': 1, 'X-Many': ['a', 'b'] }]],
    ['an object after no reason', [202, undefined, { 'X-One': '1', 'X-Many': ['a', 'b'] }]],
    ['names and values in turn', [202, ['X-One', '1', 'X-Many', 'a', 'X-Many', 'b']]],
    ['names and values in turn after a reason', [202, 'Fine', ['X-One', '1', 'X-Many', 'a', 'X-Many', 'b']]],
    ['names and lists of values', [202, ['X-One', 1, 'X-Many', ['a', 'b']]]],
    ['names in different cases', [202, ['X-One', '1', 'X-Many', 'a', 'x-many', 'b']]],
    [
      'pairs',
      [
        202,
        [
          ['X-One', '1'],
          ['X-Many', 'a'],
          ['X-Many', 'b'],
        ],
      ],
    ],
  ])('has the headers given to writeHead as %s', async (_form, args) => {
    const answer = await relayed((response) => {
      Reflect.apply(response.writeHead, response, args);
      response.end('body');
    });
    expect(answer.status).toBe(202);
    expect(answer.headers).toMatchObject({ 'x-one': '1', 'x-many': ['a', 'b'], 'content-length': '4' });
    expect(answer.text).toBe('body');
    expect(answer.statusMessage).toBe(typeof args[1] === 'string' ? args[1] : 'Accepted');
  });

  it('has one value for a header that was given one, however it was given', async () => {
    let held: unknown;
    await relayed((response, recorder) => {
      response.writeHead(202, ['X-One', '1']);
      held = recorder.held().headers;
      response.end();
    });
    expect(held).toEqual({ 'x-one': '1' });
  });

  it('keeps a reason phrase', async () => {
    const answer = await relayed((response) => response.writeHead(202, 'Fine').end());
    expect(answer.statusMessage).toBe('Fine');
  });

  it('has everything written to it, in every encoding, with callbacks called', async () => {
    const called: string[] = [];
    const answer = await relayed((response) => {
      const reused = Buffer.from('one,');
      response.write(reused, () => called.push('write'));
      reused.fill('x');
      response.write('dHdvLA==', 'base64');
      response.write(new Uint8Array([0xff, 0x2c]));
      response.end('ü', 'latin1', () => called.push('end'));
    });
    expect(answer.body.toString('latin1')).toBe('one,two,\u00ff,\u00fc');
    expect(called).toEqual(['write', 'end']);
  });

  it('looks sent: first its headers, then all of it', async () => {
    const seen: [boolean, boolean][] = [];
    const look = ({ headersSent, writableEnded }: ServerResponse): number =>
      seen.push([headersSent, writableEnded]);
    await relayed((response) => {
      look(response);
      response.write('a');
      look(response);
      response.end();
    });
    respond = (response) => {
      const recorder = new HeldResponse(response, 1_000, () => undefined);
      response.end();
      look(response);
      deliver(recorder, recorder.held());
    };
    await sendRequest(url);
    expect(seen).toEqual([
      [false, false],
      [true, false],
      [true, true],
    ]);
  });

  it('does not change after its first byte or its end', async () => {
    respond = (response) => {
      const recorder = new HeldResponse(response, 1_000, () => undefined);
      response.setHeader('X-Early', 'kept');
      response.flushHeaders();
      const refused = expect.objectContaining({ code: 'ERR_HTTP_HEADERS_SENT' });
      expect(() => response.writeHead(500, 'Late', { 'X-Late': 'refused' })).toThrow(refused);
      expect(() => response.setHeader('X-Late', 'refused')).toThrow(refused);
      response.statusCode = 500;
      response.end('first');
      response.write('second');
      response.end('third');
      deliver(recorder, recorder.held());
    };
    const answer = await sendRequest(url);
    expect([answer.status, answer.text]).toEqual([200, 'first']);
    expect(answer.headers['x-early']).toBe('kept');
    expect(answer.headers['x-late']).toBeUndefined();
  });

  it('tells when it is too large, and keeps none of it', async () => {
    const ends: unknown[] = [];
    const record = (length: number): Promise<HttpResponse> => {
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => {
          ends.push([recorder.end, recorder.held().body.length]);
          deliver(recorder, recorder.held());
        });
        response.write(Buffer.alloc(length));
        response.end();
      };
      return sendRequest(url);
    };
    await record(1_000);
    await record(1_001);
    expect(ends).toEqual([
      ['ended', 1_000],
      ['too-large', 0],
    ]);
  });

  it('is broken when its source fails, and when it is destroyed', async () => {
    const ends: unknown[] = [];
    const record = async (write: (response: ServerResponse) => void): Promise<void> => {
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => {
          ends.push(recorder.end);
          deliver(recorder, { status: 500, headers: {}, body: Buffer.alloc(0) });
        });
        write(response);
      };
      expect((await sendRequest(url)).status).toBe(500);
    };
    await record((response) => response.destroy());
    await record((response) => {
      const source = new Readable({ read: () => undefined });
      source.on('error', () => undefined);
      source.pipe(response);
      source.push('some');
      source.destroy(new Error('the source failed'));
    });
    expect(ends).toEqual(['broken', 'broken']);
  });

  it.each([
    [204, undefined],
    [304, undefined],
    [200, '0'],
  ])('is framed by a length where its status allows it: %j', async (status, length) => {
    const answer = await relayed((response) => {
      response.setHeader('Content-Length', '7');
      response.removeHeader('Content-Length');
      response.statusCode = status;
      response.end();
    });
    expect(answer.status).toBe(status);
    expect(answer.headers['content-length']).toBe(length);
    expect(answer.headers['transfer-encoding']).toBeUndefined();
  });

  it.each(['headers', null, undefined, 7])('has no headers given to writeHead as %j', async (headers) => {
    const answer = await relayed((response) => {
      Reflect.apply(response.writeHead, response, [202, headers]);
      response.end();
    });
    expect(answer.status).toBe(202);
    expect(Object.keys(answer.headers).sort()).toEqual(['connection', 'content-length', 'date']);
  });

  it('keeps what was written, and the status before, where nothing was', async () => {
    let held: unknown;
    const answer = await relayed((response, recorder) => {
      response.statusCode = 202;
      response.setHeader('X-Early', '1');
      held = recorder.held();
      expect(recorder.begun).toBe(false);
      response.write('');
      expect(recorder.begun).toBe(true);
      response.statusCode = 500;
      response.end('body');
    });
    expect(held).toMatchObject({ status: 202, headers: { 'x-early': '1' }, body: Buffer.alloc(0) });
    expect([answer.status, answer.headers['x-early'], answer.text]).toEqual([202, '1', 'body']);
  });

  it('is written to as a stream would be: it says go on, and is itself what end gives back', async () => {
    const answers: unknown[] = [];
    const answer = await relayed((response) => {
      answers.push(response.write('a'), response.end() === response);
      answers.push(response.end() === response, response.destroy() === response);
    });
    expect(answers).toEqual([true, true, true, true]);
    expect(answer.status).toBe(200);
  });

  it('passes on what else is emitted on it', async () => {
    const heard: unknown[] = [];
    await relayed((response) => {
      response.on('drain', () => heard.push('drain'));
      heard.push(response.emit('drain'), response.emit('unheard of'));
      response.end();
    });
    expect(heard).toEqual(['drain', true, false]);
  });

  it('ends once, with the first end', async () => {
    const ends: unknown[] = [];
    respond = (response) => {
      const recorder = new HeldResponse(response, 1_000, () => ends.push(recorder.end));
      expect(recorder.end).toBeUndefined();
      response.end('a');
      response.destroy();
      response.end('b');
      deliver(recorder, recorder.held());
    };
    expect((await sendRequest(url)).text).toBe('a');
    expect(ends).toEqual(['ended']);
  });

  it('lets what wraps it afterwards have its way, and restores what was there before', async () => {
    const seen: string[] = [];
    respond = (response) => {
      const before = response.write.bind(response);
      response.write = before;
      const recorder = new HeldResponse(response, 1_000, () => deliver(recorder, recorder.held()));
      const { end } = response;
      response.end = ((...args: unknown[]) => {
        seen.push('wrapped');
        return Reflect.apply(end, response, args);
      }) as typeof response.end;
      response.end('a');
      expect(response.write).toBe(before);
      expect(Object.keys(response)).not.toContain('end');
      expect(Object.hasOwn(response, 'headersSent')).toBe(false);
    };
    expect((await sendRequest(url)).text).toBe('a');
    expect(seen).toEqual(['wrapped']);
  });

  it('stays held where its prototype is replaced, as an Express application does that is called from a handler', async () => {
    respond = (response) => {
      const recorder = new HeldResponse(response, 1_000, () => undefined);
      Object.setPrototypeOf(response, Object.create(Object.getPrototypeOf(response) as object) as object);
      response.end('held');
      expect([response.headersSent, response.writableEnded]).toEqual([true, true]);
      deliver(recorder, { status: 200, headers: {}, body: Buffer.from('sent') });
    };
    expect((await sendRequest(url)).text).toBe('sent');
  });

  it('hears nothing of who has kept one of its functions', async () => {
    respond = (response) => {
      const recorder = new HeldResponse(response, 1_000, () => deliver(recorder, recorder.held()));
      const kept = response.end.bind(response);
      response.end('first');
      kept('second');
    };
    expect((await sendRequest(url)).text).toBe('first');
  });

  describe('of bytes of every value', () => {
    const received = async (): Promise<Buffer> => Buffer.from(await (await fetch(url)).arrayBuffer());
    const allBytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const send = (response: ServerResponse, body: Buffer): void => {
      const recorder = new HeldResponse(response, Infinity, () => undefined);
      deliver(recorder, { status: 200, headers: {}, body });
    };

    it.each([
      // Only what is the same bytes in every encoding is handed on as text, which node:http joins to the head.
      ['ASCII in one piece', Buffer.from('{"a":1}'), 1],
      ['any other bytes as they are', allBytes, 2],
    ])('leaves in one write with its head: %s', async (_what, body, count) => {
      let writes = 0;
      const pieces: unknown[] = [];
      respond = (response) => {
        const socket = response.socket as unknown as Record<
          '_write' | '_writev',
          (...args: unknown[]) => void
        >;
        for (const method of ['_write', '_writev'] as const) {
          const write = socket[method].bind(socket);
          socket[method] = (...args) => {
            writes += 1;
            pieces.push(
              ...(method === '_writev'
                ? (args[0] as { chunk: string }[]).map(({ chunk }) => chunk)
                : [args[0]]),
            );
            write(...args);
          };
        }
        send(response, body);
      };
      expect(await received()).toEqual(body);
      expect(writes).toBe(1);
      // node:http ends with an empty piece.
      expect(pieces.filter((piece) => piece !== '')).toHaveLength(count);
    });

    it('arrives also where it is large', async () => {
      const large = Buffer.concat(Array.from({ length: 100 }, () => allBytes));
      respond = (response) => send(response, large);
      expect(await received()).toEqual(large);
    });

    it('is handed as bytes to what had wrapped the response', async () => {
      const chunks: unknown[] = [];
      respond = (response) => {
        const end = response.end.bind(response) as (...args: unknown[]) => ServerResponse;
        response.end = (...args: unknown[]) => {
          chunks.push(args);
          return end(...args);
        };
        send(response, allBytes);
      };
      expect(await received()).toEqual(allBytes);
      expect(chunks).toEqual([[allBytes]]);
    });
  });

  it('keeps the functions of an earlier hold from writing to a later one', async () => {
    respond = (response) => {
      const earlier = new HeldResponse(response, 1_000, () => undefined);
      const kept = response.end.bind(response);
      earlier.release();
      const later = new HeldResponse(response, 1_000, () => deliver(later, later.held()));
      kept('kept');
      response.end('later');
    };
    expect((await sendRequest(url)).text).toBe('later');
  });

  it('can be held once more meanwhile, as a protected handler does that another one calls', async () => {
    const seen: string[] = [];
    respond = (response) => {
      const outer = new HeldResponse(response, 1_000, () => deliver(outer, outer.held()));
      const { emit } = response;
      response.emit = function (this: ServerResponse, event: string, ...args: unknown[]): boolean {
        seen.push(event);
        return Reflect.apply(emit, this, [event, ...args]);
      } as typeof response.emit;
      const inner = new HeldResponse(response, 1_000, () => {
        seen.push(`held by both: ${outer.end ?? 'open'}`);
        deliver(inner, { ...inner.held(), status: 201 });
      });
      response.once('asked', () => seen.push('heard'));
      response.emit('asked');
      response.end('once');
    };
    const answer = await sendRequest(url);
    expect([answer.status, answer.text]).toEqual([201, 'once']);
    expect(seen.slice(0, 3)).toEqual(['asked', 'heard', 'held by both: open']);
  });

  it('tells those who came after it was held, once, and the others when it is sent', async () => {
    const told: string[] = [];
    respond = (response) => {
      response.once('finish', () => told.push('observer'));
      const recorder = new HeldResponse(response, 1_000, () => undefined);
      response.on('finish', function (this: unknown) {
        told.push(this === response ? 'writer' : 'a stranger');
      });
      response.once('close', () => {
        told.push('closed');
        deliver(recorder, recorder.held());
      });
      response.end();
    };
    await sendRequest(url);
    expect(told).toEqual(['writer', 'closed', 'observer']);
  });

  describe('with a source', () => {
    const pipeInto = (response: ServerResponse): Readable => {
      const source = new Readable({ read: () => undefined });
      source.on('error', () => undefined).pipe(response);
      source.push('some');
      return source;
    };

    it.each<[string, (source: Readable) => void, string]>([
      ['broken when that closes early', (source) => source.destroy(), 'broken'],
      ['ended when that ends', (source) => source.push(null), 'ended'],
    ])('is %s', async (_what, finish, expected) => {
      const ends: unknown[] = [];
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => {
          ends.push(recorder.end);
          deliver(recorder, { status: 200, headers: {}, body: Buffer.alloc(0) });
        });
        finish(pipeInto(response));
      };
      await sendRequest(url);
      expect(ends).toEqual([expected]);
    });

    it('is broken when that fails without closing', async () => {
      const ends: unknown[] = [];
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => {
          ends.push(recorder.end);
          deliver(recorder, { status: 500, headers: {}, body: Buffer.alloc(0) });
        });
        const source = new Readable({ read: () => undefined, emitClose: false });
        source.on('error', () => undefined).pipe(response);
        source.destroy(new Error('the source failed'));
      };
      await sendRequest(url);
      expect(ends).toEqual(['broken']);
    });

    it('does not end any more once it was let go', async () => {
      const ends: unknown[] = [];
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => ends.push(recorder.end));
        const source = pipeInto(response);
        source.once('close', () => response.end('its own'));
        recorder.release();
        source.unpipe(response).destroy();
      };
      expect((await sendRequest(url)).text).toBe('its own');
      expect(ends).toEqual([]);
    });
  });

  describe('whose client goes away', () => {
    /** Resolves when the server has noticed, with the response and what has become of it. */
    const abandoned = async (
      held: (response: ServerResponse, closes: unknown[]) => HeldResponse,
    ): Promise<{ response: ServerResponse; recorder: HeldResponse; closes: unknown[] }> => {
      const closes: unknown[] = [];
      let socket: Socket | null = null;
      const responding = new Promise<{ response: ServerResponse; recorder: HeldResponse }>((resolve) => {
        respond = (response) => {
          socket = response.socket;
          resolve({ response, recorder: held(response, closes) });
        };
      });
      const client = request(url).on('error', () => undefined);
      client.end();
      const { response, recorder } = await responding;
      response.req.on('error', () => undefined);
      const closed = new Promise((resolve) => (socket as Socket).once('close', resolve));
      client.destroy();
      await closed;
      await new Promise(setImmediate);
      return { response, recorder, closes };
    };

    const hold = (response: ServerResponse, closes: unknown[]): HeldResponse => {
      const recorder = new HeldResponse(response, 1_000, () => undefined);
      response.on('close', () => closes.push('close'));
      return recorder;
    };

    it('is not noticed by its writers until it is let go', async () => {
      const { response, recorder, closes } = await abandoned(hold);
      expect([response.destroyed, response.closed, closes]).toEqual([false, false, []]);
      response.end('all of it');
      expect(recorder.held().body.toString()).toBe('all of it');
      recorder.release();
      expect([response.destroyed, response.closed, closes]).toEqual([true, true, ['close']]);
      recorder.release();
      expect(closes).toEqual(['close']);
    });

    it('is told to have gone also to who asks later', async () => {
      const { recorder } = await abandoned(hold);
      await new Promise<void>((resolve) => recorder.onDeparture(resolve));
    });

    it('is sent nothing', async () => {
      const { response, recorder, closes } = await abandoned(hold);
      response.end('all of it');
      deliver(recorder, recorder.held());
      expect([response.headersSent, response.writableEnded, closes]).toEqual([false, false, ['close']]);
    });
  });

  describe('that something else is sent for', () => {
    it('loses its reason', async () => {
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => undefined);
        response.writeHead(202, 'Fine').end('held');
        deliver(recorder, { status: 503, headers: {}, body: Buffer.from('sent') });
      };
      const answer = await sendRequest(url);
      expect([answer.status, answer.statusMessage]).toEqual([503, 'Service Unavailable']);
    });

    it('keeps the case of names that stay', async () => {
      const answer = await relayed((response) => {
        response.setHeader('X-CamelCase', '1');
        response.end();
      });
      expect(answer.rawHeaders).toContain('X-CamelCase');
    });

    it('keeps the case of lists that are the same', async () => {
      respond = (response) => {
        response.setHeader('X-Same', ['a', 'b']);
        response.setHeader('X-Longer', ['a']);
        const recorder = new HeldResponse(response, 1_000, () => undefined);
        deliver(recorder, {
          status: 200,
          headers: { 'x-same': ['a', 'b'], 'x-longer': ['a', 'b'] },
          body: Buffer.from(''),
        });
      };
      const { rawHeaders, headers } = await sendRequest(url);
      expect(rawHeaders).toEqual(expect.arrayContaining(['X-Same', 'x-longer']));
      expect(headers).toMatchObject({ 'x-same': ['a', 'b'], 'x-longer': ['a', 'b'] });
    });

    it('loses its headers and gets those of the other', async () => {
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => undefined);
        response.setHeader('X-Held', '1');
        response.setHeader('X-Same', '1');
        response.setHeader('X-Undefined', '1');
        response.end('held');
        const headers = {
          'x-same': '1',
          'x-new': ['a', 'b'],
          'x-absent': undefined,
          'x-undefined': undefined,
        };
        deliver(recorder, { status: 503, statusMessage: 'Later', headers, body: Buffer.from('sent') });
      };
      const answer = await sendRequest(url);
      expect([answer.status, answer.statusMessage, answer.text]).toEqual([503, 'Later', 'sent']);
      expect(answer.headers).toMatchObject({ 'x-same': '1', 'x-new': ['a', 'b'], 'content-length': '4' });
      expect(answer.headers).not.toHaveProperty('x-held');
      expect(answer.headers).not.toHaveProperty('x-absent');
      expect(answer.headers).not.toHaveProperty('x-undefined');
    });

    it('has chunks where trailers follow', async () => {
      const answer = await relayed((response) => {
        response.setHeader('Trailer', 'X-Sum');
        response.write('sent');
        response.addTrailers({ 'X-Sum': '7' });
        response.end();
      });
      expect(answer.text).toBe('sent');
      expect(answer.headers).toMatchObject({ trailer: 'X-Sum', 'transfer-encoding': 'chunked' });
      expect(answer.headers).not.toHaveProperty('content-length');
    });

    it('is framed as its headers say', async () => {
      respond = (response) => {
        const recorder = new HeldResponse(response, 1_000, () => undefined);
        response.end();
        deliver(recorder, {
          status: 200,
          headers: { 'transfer-encoding': 'chunked' },
          body: Buffer.from('sent'),
        });
      };
      const answer = await sendRequest(url);
      expect(answer.text).toBe('sent');
      expect(answer.headers).toMatchObject({ 'transfer-encoding': 'chunked' });
      expect(answer.headers).not.toHaveProperty('content-length');
    });
  });
});
