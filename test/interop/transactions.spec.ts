import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { EITHER, expectProtected, expectReplay, Scene } from './scene.js';

describe.each(EITHER)('nestjs-cls with its transactional plug-in, on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('cls', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it.each(['/effects', '/transactional', '/nested'])('%s: one effect and one replay', async (path) => {
    await expectProtected(scene, path);
    expect(scene.complaints()).toEqual([]);
  });

  it('what fails inside a nested transaction is undone alone', async () => {
    expect((await scene.post('/nested', 'nested')).status).toBe(201);
    expect([await scene.rows('nested'), await scene.rows('nested undone')]).toEqual([1, 0]);
  });

  it('RequiresNew is undone with the handler, what outside() wrote stays', async () => {
    const key = { 'Idempotency-Key': 'refused' };
    const original = await scene.post('/refused', 'refused', key);
    expect(original.status).toBe(402);
    expectReplay(await scene.post('/refused', 'refused', key), original);
    expect(await scene.rows('refused by RequiresNew')).toBe(0);
    expect(await scene.rows('refused outside')).toBe(1);
  });
});

const STORAGES = [
  ...EITHER.map((platform) => ({ ...platform, storage: 'ASYNC_LOCAL_STORAGE' })),
  { nest: 11, adapter: 'express', storage: 'CLS_HOOKED' } as const,
];

describe.each(STORAGES)(
  'typeorm-transactional ($storage) on Nest $nest ($adapter)',
  ({ storage, ...platform }) => {
    const scene = new Scene('typeorm-transactional', platform, { env: { STORAGE: storage } });
    beforeAll(() => scene.open());
    afterAll(() => scene.close());

    it.each(['/effects', '/transactional', '/nested'])('%s: one effect and one replay', async (path) => {
      await expectProtected(scene, path);
      expect(scene.complaints()).toEqual([]);
    });

    it('what fails inside a nested transaction is undone alone', async () => {
      expect((await scene.post('/nested', 'nested')).status).toBe(201);
      expect([await scene.rows('nested'), await scene.rows('nested undone')]).toEqual([1, 0]);
    });

    it('after a commit both hooks have run, once', async () => {
      const key = { 'Idempotency-Key': 'hooks' };
      const original = await scene.post('/hooks', 'kept', key);
      expect(original.status).toBe(201);
      expectReplay(await scene.post('/hooks', 'kept', key), original);
      await eventually(() => scene.output().includes('afterCommit kept'));
      expect(scene.output().match(/(runOnTransactionCommit|afterCommit) kept/g)).toHaveLength(2);
    });

    it('after a refusal runOnTransactionCommit has run all the same, afterCommit has not', async () => {
      const key = { 'Idempotency-Key': 'refused' };
      const original = await scene.post('/refused', 'refused', key);
      expect(original.status).toBe(402);
      expectReplay(await scene.post('/refused', 'refused', key), original);
      await eventually(() => scene.output().includes('runOnTransactionCommit refused'));
      expect(scene.output()).not.toContain('afterCommit refused');
      expect(await scene.rows('refused')).toBe(0);
    });

    it('REQUIRES_NEW is undone with the handler, what outside() wrote stays', async () => {
      expect((await scene.post('/refused', 'anew')).status).toBe(402);
      expect(await scene.rows('anew by REQUIRES_NEW')).toBe(0);
      expect(await scene.rows('anew outside')).toBe(1);
    });
  },
);
