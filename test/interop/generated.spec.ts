import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EITHER, EVERYWHERE, expectProtected, expectReplay, NEST11, Scene } from './scene.js';

// Of @Idempotent(), @Controller() and the generator, from the bottom up.
const ORDERS = ['ICG', 'IGC', 'CIG', 'CGI', 'GIC', 'GCI'];

describe.each(EVERYWHERE)('a class decorator that adds handlers, on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('generated', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it.each(ORDERS)('is protected in the order %s', async (order) => {
    await expectProtected(scene, `/${order}`);
  });

  it('a mixin is protected', async () => {
    await expectProtected(scene, '/mixin');
  });

  it('nothing is logged', () => {
    expect(scene.complaints()).toEqual([]);
  });
});

describe.each(EITHER)('@dataui/crud on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('crud', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it.each(ORDERS)('its handler is protected in the order %s', async (order) => {
    await expectProtected(scene, `/${order}`);
  });

  it('its validation refuses without using the key up', async () => {
    const key = { 'Idempotency-Key': 'corrected' };
    const refused = await scene.post('/ICG', 7, key);
    expect(refused.status).toBe(400);
    expect((await scene.post('/ICG', 'corrected', key)).status).toBe(201);
    expect(await scene.rows('corrected')).toBe(1);
  });

  it('nothing is logged', () => {
    expect(scene.complaints()).toEqual([]);
  });
});

describe.each(EITHER)('@dataui/crud with @Override() on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('crud', platform, { env: { CASE: 'overridden' } });
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it.each(['/overridden', '/overridden/bulk'])('%s is protected', async (path) => {
    await expectProtected(scene, path);
    expect(scene.complaints()).toEqual([]);
  });
});

describe.each(NEST11)('@ts-rest/nest on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('ts-rest', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it.each(['/above', '/below', '/older'])('%s: one effect and one replay', async (path) => {
    await expectProtected(scene, path);
    expect(scene.complaints()).toEqual([]);
  });

  it('a refusal that is returned commits what was written before, and is replayed', async () => {
    const key = { 'Idempotency-Key': 'refused by the handler' };
    const original = await scene.post('/refusal', 'refused', key);
    expect(original.status).toBe(402);
    expectReplay(await scene.post('/refusal', 'refused', key), original);
    expect(await scene.rows('refused')).toBe(1);
  });
});
