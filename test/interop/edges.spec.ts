import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { EITHER, expectProtected, expectReplay, NEST11, Scene } from './scene.js';

describe.each(EITHER)('@nestjs/throttler on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('throttler', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('one effect and one replay', async () => {
    await expectProtected(scene, '/effects', { 'X-Caller': 'one' });
    expect(scene.complaints()).toEqual([]);
  });

  it('replays count, a 429 is not recorded, the rate limit’s headers are those of each exchange', async () => {
    const key = { 'Idempotency-Key': 'limited' };
    const by = (caller: string) => scene.post('/effects', 'limited', { ...key, 'X-Caller': caller });
    const original = await by('two');
    expect([original.status, original.headers['x-ratelimit-remaining']]).toEqual([201, '3']);
    for (const remaining of ['2', '1', '0']) {
      const replay = await by('two');
      expectReplay(replay, original);
      expect(replay.headers['x-ratelimit-remaining']).toBe(remaining);
    }
    const limited = await by('two');
    expect(limited.status).toBe(429);
    expect(limited.headers['retry-after']).toBeDefined();
    expectReplay(await by('three'), original);
    expect(await scene.rows('limited')).toBe(1);
  });

  it('a request that was limited leaves its key free', async () => {
    for (const name of ['a', 'b', 'c', 'd']) await scene.post('/effects', name, { 'X-Caller': 'four' });
    const key = { 'Idempotency-Key': 'limited at first' };
    expect((await scene.post('/effects', 'later', { ...key, 'X-Caller': 'four' })).status).toBe(429);
    const original = await scene.post('/effects', 'later', { ...key, 'X-Caller': 'five' });
    expect([original.status, original.headers['idempotency-replayed']]).toEqual([201, undefined]);
    expect(await scene.rows('later')).toBe(1);
  });
});

describe.each(EITHER)('@nestjs/cache-manager on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('cache', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('a controller whose GET is cached: one effect and one replay', async () => {
    await expectProtected(scene);
    const before = await scene.get('/effects');
    await scene.post('/effects', 'uncounted');
    expect(await scene.get('/effects')).toEqual(before);
    expect(scene.complaints()).toEqual([]);
  });

  it('the hazard: a cached answer in the handler’s place is refused, and the log says what to do', async () => {
    expect((await scene.post('/cached', 'cached')).status).toBe(201);
    const key = { 'Idempotency-Key': 'answered from the cache' };
    const answered = await scene.post('/cached', 'not run', key);
    expect([answered.status, answered.text]).toEqual([
      500,
      expect.stringContaining('IDEMPOTENCY_HANDLER_NOT_SEEN'),
    ]);
    const warning = await eventually(
      () => scene.complaints().find((line) => line.includes('CachedMutationController.create')) ?? false,
    );
    expect(warning).toMatch(/cache/i);
    expect(await scene.rows('not run')).toBe(0);
  });
});

describe.each(EITHER)('passport with JWT on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('jwt', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  const logIn = async (user: string): Promise<Record<string, string>> => {
    const answer = await scene.post('/tokens', user);
    return { Authorization: `Bearer ${(answer.json() as { token: string }).token}` };
  };

  it('one effect and one replay', async () => {
    await expectProtected(scene, '/effects', await logIn('alice'));
    expect(scene.complaints()).toEqual([]);
  });

  it('a refreshed token is the same client, another user is not', async () => {
    const key = { 'Idempotency-Key': 'theirs' };
    const original = await scene.post('/effects', 'refreshed', { ...key, ...(await logIn('alice')) });
    const again = await scene.post('/effects', 'refreshed', { ...key, ...(await logIn('alice')) });
    expectReplay(again, original);
    const others = await scene.post('/effects', 'refreshed', { ...key, ...(await logIn('bob')) });
    expect([others.status, others.headers['idempotency-replayed']]).toEqual([201, undefined]);
    expect(await scene.rows('refreshed')).toBe(2);
  });

  it('a request without a token is refused and leaves the key free', async () => {
    const key = { 'Idempotency-Key': randomUUID() };
    expect((await scene.post('/effects', 'nobody', key)).status).toBe(401);
    expect((await scene.post('/effects', 'nobody', { ...key, ...(await logIn('carol')) })).status).toBe(201);
    expect(await scene.rows('nobody')).toBe(1);
  });
});

/** Resolves with the log of a request that is over. */
async function logOf(scene: Scene, key: string): Promise<string> {
  const url = `/effects?request=${randomUUID()}`;
  await scene.post(url, 'logged', { 'Idempotency-Key': key });
  return eventually(() => {
    const lines = scene.output().split('\n');
    return lines.find((line) => line.includes(url) && line.includes('request completed')) ?? false;
  });
}

describe.each(NEST11)('nestjs-pino on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('pino', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('one effect and one replay', async () => {
    await expectProtected(scene);
    expect(scene.complaints()).toEqual([]);
  });

  it('with redact the key is not in the log', async () => {
    const line = JSON.parse(await logOf(scene, 'a key to be kept'));
    expect(line.req.headers['idempotency-key']).toBe('[Redacted]');
    expect(line.res.headers['idempotency-key']).toBe('[Redacted]');
    expect(scene.output()).toContain('the handler runs');
    expect(scene.output()).not.toContain('a key to be kept');
  });
});

describe.each(NEST11.slice(0, 1))('nestjs-pino without redact on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('pino', platform, { env: { REDACT: 'no' } });
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('the hazard: the key is in the log', async () => {
    expect(await logOf(scene, 'a key to be kept')).toContain('a key to be kept');
  });
});
