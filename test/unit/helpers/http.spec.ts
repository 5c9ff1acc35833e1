import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { deferred } from '../../helpers/conditions.js';
import { postJson, sendRequest, startRequest } from '../../helpers/http.js';

describe('HTTP client', () => {
  let server: Server;
  let base: string;

  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/silence') return;
      response.writeHead(
        201,
        'Made',
        [
          ['X-Twice', 'a'],
          ['X-Twice', 'b'],
          ['X-Once', 'c'],
        ].flat(),
      );
      if (request.url === '/endless') {
        response.write('half');
        return;
      }
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () =>
        response.end(
          JSON.stringify({
            method: request.method,
            headers: request.rawHeaders,
            body: Buffer.concat(chunks).toString(),
          }),
        ),
      );
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });

  it('reports a response as it came', async () => {
    const response = await sendRequest(base);
    expect(response).toMatchObject({ status: 201, statusMessage: 'Made' });
    expect(response.headers).toMatchObject({ 'x-twice': ['a', 'b'], 'x-once': 'c' });
    expect(response.rawHeaders.slice(0, 4)).toEqual(['X-Twice', 'a', 'X-Twice', 'b']);
    expect(response.body.toString()).toBe(response.text);
  });

  it('sends JSON and duplicate header lines', async () => {
    const response = await postJson(base, { a: 1 }, { 'Idempotency-Key': ['one', 'two'] });
    const echo = response.json() as { method: string; headers: string[]; body: string };
    expect(echo).toMatchObject({ method: 'POST', body: '{"a":1}' });
    expect(echo.headers.join()).toContain(
      'Idempotency-Key,one,Idempotency-Key,two,Content-Type,application/json',
    );
  });

  it('breaks off by hand, by a promise and by what arrived', async () => {
    const byHand = startRequest(`${base}/endless`);
    expect(await byHand.head).toBe(201);
    byHand.destroy();
    await expect(byHand.response).rejects.toThrow();

    const gate = deferred();
    const byPromise = startRequest(`${base}/silence`, { abortAfter: gate.promise });
    gate.resolve();
    await expect(byPromise.response).rejects.toThrow();

    const byArrival = startRequest(`${base}/endless`, { abortAfter: (received) => received >= 4 });
    await expect(byArrival.response).rejects.toThrow('Aborted by the test');
  });
});
