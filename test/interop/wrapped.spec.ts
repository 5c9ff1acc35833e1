import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { EITHER, EVERYWHERE, expectProtected, Scene } from './scene.js';

const PATHS = ['/methods/above', '/methods/below', '/class-above', '/class-below', '/instance', '/bound'];

const CASES = [
  ...EVERYWHERE.map((platform) => ({ ...platform, router: 'plain', env: { WRAP_ROUTER: 'no' } })),
  ...EITHER.map((platform) => ({ ...platform, router: 'instrumented', env: { WRAP_ROUTER: 'yes' } })),
];

describe.each(CASES)(
  'wrappers that copy name and metadata, on Nest $nest ($adapter), whose router is $router',
  ({ env, router, ...platform }) => {
    const scene = new Scene('wrapped', platform, { env });
    beforeAll(() => scene.open());
    afterAll(() => scene.close());

    it.each(PATHS)('%s: one effect and one replay', async (path) => {
      await expectProtected(scene, path);
      expect(scene.complaints()).toEqual([]);
    });

    it('the wrappers are called', async () => {
      const calls = (): number => scene.output().match(/^traced /gm)?.length ?? 0;
      const before = calls();
      await scene.post('/methods/above', 'traced');
      await eventually(() => calls() - before >= (router === 'instrumented' ? 2 : 1));
    });
  },
);
