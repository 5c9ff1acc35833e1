import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EITHER, Scene } from './scene.js';

describe.each(EITHER)('boot on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('boot', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  /** What became of an application that was to boot. */
  const outcome = (name: string): string | undefined =>
    scene
      .output()
      .split('\n')
      .find((line) => line.startsWith(`${name}: `));

  it('a unit test’s direct call stays quiet without the module', () => {
    expect(scene.output()).toMatch(/^called directly\n/);
  });

  it('fails with the remedy where forRoot was forgotten', () => {
    expect(outcome('forgotten')).toMatch(/: refused to boot: .*IdempotencyModule\.forRoot/);
  });

  it.each(['request-scoped', 'durable', 'two hops away'])(
    'fails with the remedy where what forRootAsync injects is %s',
    (name) => {
      expect(outcome(name)).toMatch(/: refused to boot: .*forRootAsync.*(request|durable)/i);
    },
  );

  it('with the module it boots', () => {
    expect(outcome('complete')).toBe('complete: booted');
  });
});
