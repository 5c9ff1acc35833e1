import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EITHER, expectReplay, Scene } from './scene.js';

const PATHS = { 'p-queue': '/queues/p-queue', bottleneck: '/queues/bottleneck', dataloader: '/loader' };

describe.each(EITHER)('queues and loaders that requests share, on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('queues', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  /** Both requests at once. The first one fails after the second one's statement has run. */
  const meet = async (path: string, name: string, query: string) => {
    const key = { 'Idempotency-Key': randomUUID() };
    const [first, second] = await Promise.all([
      scene.post(`${path}/first`, name),
      scene.post(`${path}/second${query}`, name, key),
    ]);
    expect([first.status, second.status]).toEqual([402, 201]);
    expectReplay(await scene.post(`${path}/second${query}`, name, key), second);
    expect(await scene.rows(`${name} first`)).toBe(0);
    return scene.rows(`${name} second`);
  };

  it.each(Object.entries(PATHS))(
    'the hazard: %s runs a statement in another’s transaction, and it is lost',
    async (...[, path]) => {
      expect(await meet(path, randomUUID(), '')).toBe(0);
    },
  );

  it.each(Object.entries(PATHS))('%s with AsyncResource.bind loses nothing', async (...[, path]) => {
    expect(await meet(path, randomUUID(), '?bind=yes')).toBe(1);
    expect(scene.complaints()).toEqual([]);
  });
});
