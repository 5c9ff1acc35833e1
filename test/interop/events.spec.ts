import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { EITHER, expectProtected, expectReplay, Scene } from './scene.js';

const PACKAGES = [
  { name: '@nestjs/cqrs', app: 'cqrs' },
  { name: '@nestjs/event-emitter', app: 'event-emitter' },
];

const CASES = EITHER.flatMap((platform) => PACKAGES.map((each) => ({ ...platform, ...each })));

describe.each(CASES)('$name on Nest $nest ($adapter)', ({ app, ...platform }) => {
  const scene = new Scene(app, platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('one effect and one replay', async () => {
    await expectProtected(scene);
    expect(scene.complaints()).toEqual([]);
  });

  it('an event published by afterCommit is heard once, after the commit', async () => {
    const key = { 'Idempotency-Key': 'published' };
    const original = await scene.post('/effects', 'published', key);
    expectReplay(await scene.post('/effects', 'published', key), original);
    await eventually(async () => (await scene.rows('published heard')) === 1);
    // A second one would have been published before this answer.
    await scene.post('/effects', 'later');
    await eventually(async () => (await scene.rows('later heard')) === 1);
    expect(await scene.rows('published heard')).toBe(1);
    expect(scene.complaints()).toEqual([]);
  });

  it('it is not published where the handler is refused', async () => {
    expect((await scene.post('/refused', 'refused')).status).toBe(402);
    await scene.post('/effects', 'afterwards');
    await eventually(async () => (await scene.rows('afterwards heard')) === 1);
    expect([await scene.rows('refused'), await scene.rows('refused heard')]).toEqual([0, 0]);
    expect(scene.complaints()).toEqual([]);
  });

  if (app === 'event-emitter') {
    it('what listeners do is part of the transaction where emitAsync is awaited', async () => {
      await expectProtected(scene, '/awaited');
      expect((await scene.post('/awaited', 'awaited')).status).toBe(201);
      expect(await scene.rows('awaited heard')).toBe(1);
      expect(scene.complaints()).toEqual([]);
    });
  }

  it('the hazard: what listeners of an event published directly write late is refused, and logged', async () => {
    expect((await scene.post('/directly', 'direct')).status).toBe(201);
    await eventually(() => scene.output().includes('afterCommit(() => …)'));
    expect(await scene.rows('direct')).toBe(1);
    expect(await scene.rows('direct heard')).toBe(0);
    // The process lives.
    expect((await scene.post('/effects', 'still here')).status).toBe(201);
  });

  if (app === 'cqrs') {
    it('the limit: a kill between COMMIT and publish loses the event, and keeps an outbox row', async () => {
      // The answer may be on its way or not.
      await scene.post('/killed', 'killed').catch(() => undefined);
      await eventually(() => scene.ended);
      expect([await scene.rows('killed'), await scene.rows('killed in the outbox')]).toEqual([1, 1]);
      expect(await scene.rows('killed heard')).toBe(0);
    });
  }
});
