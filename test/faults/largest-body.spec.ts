import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import { WriterServer } from '../helpers/writers.js';

/** The largest that `response.maxSize` takes. */
const LARGEST = 255 * 1024 * 1024;

describe('the largest body that may be recorded', () => {
  let server: WriterServer;

  beforeAll(async () => {
    server = await WriterServer.start('express', {
      // So much takes its time to be read, too.
      idempotency: { response: { maxSize: LARGEST }, acquireTimeout: '2m' },
    });
  });

  afterAll(async () => server.close());

  it('is replayed to its last byte', async () => {
    const body = Buffer.alloc(LARGEST, 'all of it, ');
    const digest = (bytes: Buffer | undefined): string => createHash('sha256').update(bytes!).digest('hex');
    server.writes(({ raw }) => raw.writeHead(201).end(body));
    const first = await server.post('run', 'largest');
    expect([first?.status, digest(first?.body)]).toEqual([201, digest(body)]);
    const retry = await server.post('run', 'largest');
    expect(retry?.headers['idempotency-replayed']).toBe('true');
    expect(digest(retry?.body)).toBe(digest(body));
  });
});
