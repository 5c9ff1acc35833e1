import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import type { IncomingMessage } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EVERYWHERE, expectReplay, Scene } from './scene.js';

interface HostAnswer {
  readonly status: number | undefined;
  readonly text: string;
  readonly replayed: string | string[] | undefined;
}

/** The helpers for requests say themselves which host they go to. */
async function postTo(
  scene: Scene,
  host: string,
  path: string,
  name: string,
  key: string,
): Promise<HostAnswer> {
  const message = await new Promise<IncomingMessage>((resolve, reject) => {
    request(scene.url + path, {
      method: 'POST',
      agent: false,
      headers: { Host: host, 'Content-Type': 'application/json', 'Idempotency-Key': key },
    })
      .once('response', resolve)
      .once('error', reject)
      .end(JSON.stringify({ name }));
  });
  return {
    status: message.statusCode,
    text: await text(message),
    replayed: message.headers['idempotency-replayed'],
  };
}

describe.each(EVERYWHERE)('what Nest routes by, on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('routed', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('the same key and body for another version is another request', async () => {
    const key = { 'Idempotency-Key': 'one key' };
    const first = await scene.post('/versions', 'versioned', { ...key, 'X-Version': '1' });
    expect(first.status).toBe(201);
    const other = await scene.post('/versions', 'versioned', { ...key, 'X-Version': '2' });
    expect([other.status, other.text]).toEqual([422, expect.stringContaining('IDEMPOTENCY_KEY_REUSED')]);
    expectReplay(await scene.post('/versions', 'versioned', { ...key, 'X-Version': '1' }), first);
    expect(await scene.rows('versioned')).toBe(1);
    expect(scene.complaints()).toEqual([]);
  });

  if (platform.adapter === 'express') {
    it('the same key and body for another tenant’s host is another request', async () => {
      const first = await postTo(scene, 'acme.example.com', '/tenants', 'order', 'one key');
      expect(first).toMatchObject({ status: 201, text: expect.stringContaining('order of acme') });
      const other = await postTo(scene, 'umbrella.example.com', '/tenants', 'order', 'one key');
      expect(other).toMatchObject({ status: 422, text: expect.stringContaining('IDEMPOTENCY_KEY_REUSED') });
      const again = await postTo(scene, 'acme.example.com', '/tenants', 'order', 'one key');
      expect(again).toEqual({ ...first, replayed: 'true' });
      expect(await scene.rows('order of acme')).toBe(1);
      expect(await scene.rows('order of umbrella')).toBe(0);
    });

    it('one path on two hosts is two endpoints', async () => {
      const one = await postTo(scene, 'one.example.org', '/shared', 'shared', 'their key');
      const two = await postTo(scene, 'two.example.org', '/shared', 'shared', 'their key');
      expect([one.status, two.status, two.replayed]).toEqual([201, 201, undefined]);
      expect(await scene.rows('shared')).toBe(2);
    });
  }
});
