import { describe, expect, it } from '@jest/globals';
import { EVERYWHERE, expectProtected, useScene } from './scene.js';

const PATHS = ['/methods/above', '/methods/below', '/class-above', '/class-below'];

describe.each(EVERYWHERE)('wrappers that copy name and metadata, on Nest $nest ($adapter)', (platform) => {
  const scene = useScene('wrapped', platform, { env: { ON_INSTANCE: 'no' } });

  it.each(PATHS)('put there by a decorator: %s', async (path) => {
    await expectProtected(scene(), path);
    expect(scene().output()).toContain('traced ');
    expect(scene().complaints()).toEqual([]);
  });
});

describe.each(EVERYWHERE)('wrappers on the instance, on Nest $nest ($adapter)', (platform) => {
  const scene = useScene('wrapped', platform);

  it.each(['/instance', '/bound'])('%s', async (path) => {
    await expectProtected(scene(), path);
    expect(scene().complaints()).toEqual([]);
  });
});

describe.each(EVERYWHERE)('wrappers that the router gets, on Nest $nest ($adapter)', (platform) => {
  const scene = useScene('wrapped', platform, { env: { WRAP_ROUTER: 'yes', ON_INSTANCE: 'no' } });

  it.each(PATHS)('%s', async (path) => {
    await expectProtected(scene(), path);
    expect(scene().output()).toContain('traced ');
    expect(scene().complaints()).toEqual([]);
  });
});
