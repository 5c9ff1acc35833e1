import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { retryUntilAnswered } from '../../helpers/retrying-client.js';

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

const answer =
  (status: number, headers: Record<string, string> = {}): Listener =>
  (_request, response) =>
    void response.writeHead(status, headers).end(`answer ${status}`);
const reset: Listener = (request) => void request.socket.resetAndDestroy();
const breakOff: Listener = (_request, response) => {
  response.writeHead(201, { 'Content-Length': '100' }).write('half', () => response.destroy());
};

describe('retrying client', () => {
  let server: Server;
  let url: string;
  let script: Listener[];
  let received: { key: unknown; body: string }[];

  beforeEach(async () => {
    received = [];
    server = createServer((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        received.push({ key: request.headers['idempotency-key'], body });
        (script.length > 1 ? script.shift()! : script[0]!)(request, response);
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterEach(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  });

  it('sends the same again until it is answered', async () => {
    script = [
      reset,
      breakOff,
      answer(500),
      answer(503, { 'Retry-After': '1' }),
      answer(409, { 'Retry-After': '3600' }),
      answer(201),
    ];
    const { answer: final, attempts, failures } = await retryUntilAnswered(url, { key: 'k', body: { a: 1 } });
    expect(final).toMatchObject({ status: 201, text: 'answer 201' });
    expect(attempts).toBe(6);
    expect(failures).toEqual(['ECONNRESET', 'ECONNRESET', '500', '503', '409']);
    expect(received).toEqual(Array(6).fill({ key: 'k', body: '{"a":1}' }));
  });

  it('takes a refusal that does not ask to come back for an answer', async () => {
    script = [answer(409)];
    expect(await retryUntilAnswered(url, { key: 'k' })).toMatchObject({
      answer: { status: 409 },
      attempts: 1,
    });
  });

  it('asks each time where to go', async () => {
    script = [answer(204)];
    const urls = ['http://127.0.0.1:1', url];
    const { failures } = await retryUntilAnswered(() => urls.shift()!, { key: 'k' });
    expect(failures).toEqual(['ECONNREFUSED']);
  });

  it.each([
    ['never answers', () => undefined, /No answer for k within 200 ms: 1 times ECONNRESET/],
    ['always refuses', answer(503), /No answer for k within 200 ms: \d+ times 503/],
  ] satisfies [string, Listener, RegExp][])('fails on a server that %s', async (_what, listener, message) => {
    script = [listener];
    await expect(retryUntilAnswered(url, { key: 'k', timeoutMs: 200 })).rejects.toThrow(message);
  });
});
