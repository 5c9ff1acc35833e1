import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { ResponseRecorder } from '../../../lib/http/response-recorder.js';
import { sendRequest, type HttpResponse } from '../../helpers/http.js';

/** What the handler of the server does with its response. */
let respond: (response: ServerResponse) => void;
let server: Server;
let url: string;

beforeEach(async () => {
  server = createServer((_request, response) => respond(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});

afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
});

/** Records what `write` writes, then sends it on; resolves with what the client got. */
async function relayed(
  write: (response: ServerResponse, recorder: ResponseRecorder) => void,
): Promise<HttpResponse> {
  respond = (response) => {
    const recorder = new ResponseRecorder(response, 1_000, () => recorder.send(recorder.held()));
    write(response, recorder);
  };
  return sendRequest(url);
}

describe('a recorded response', () => {
  it.each<[string, unknown[]]>([
    ['an object', [202, { 'X-One': '1', 'X-Many': ['a', 'b'], 'X-Absent': undefined }]],
    ['an object after a reason', [202, 'Fine', { 'X-One': 1, 'X-Many': ['a', 'b'] }]],
    ['names and values in turn', [202, ['X-One', '1', 'X-Many', 'a', 'X-Many', 'b']]],
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
      const recorder = new ResponseRecorder(response, 1_000, () => undefined);
      response.end();
      look(response);
      recorder.send(recorder.held());
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
      const recorder = new ResponseRecorder(response, 1_000, () => undefined);
      response.setHeader('X-Early', 'kept');
      response.flushHeaders();
      response.writeHead(500, { 'X-Late': 'ignored' });
      response.end('first');
      response.write('second');
      response.end('third');
      recorder.send(recorder.held());
    };
    const answer = await sendRequest(url);
    expect([answer.status, answer.text]).toEqual([200, 'first']);
    expect(answer.headers['x-early']).toBe('kept');
    expect(answer.headers['x-late']).toBeUndefined();
  });

  it('tells when it is too large, and keeps none of it', async () => {
    const sizes: [boolean, number][] = [];
    const record = (length: number): Promise<HttpResponse> =>
      relayed((response, recorder) => {
        response.write(Buffer.alloc(length));
        sizes.push([recorder.tooLarge, recorder.held().body.length]);
        response.end();
      });
    await record(1_000);
    await record(1_001);
    expect(sizes).toEqual([
      [false, 1_000],
      [true, 0],
    ]);
  });

  it('is broken when its source fails, and when it is destroyed', async () => {
    const ends: unknown[] = [];
    const record = async (write: (response: ServerResponse) => void): Promise<void> => {
      respond = (response) => {
        const recorder = new ResponseRecorder(response, 1_000, () => {
          ends.push(recorder.end);
          recorder.send({ status: 500, headers: {}, body: Buffer.alloc(0) });
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
});
