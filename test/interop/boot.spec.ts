import { describe, expect, it } from '@jest/globals';
import { EITHER, refusedBoot } from './scene.js';

describe.each(EITHER)('boot on Nest $nest ($adapter)', (platform) => {
  it('fails with the remedy where forRoot was forgotten; a direct call stays quiet', async () => {
    const output = await refusedBoot('boot', platform, { env: { CASE: 'forgotten' } });
    expect(output).toMatch(/^called directly\n/);
    expect(output).toMatch(/refused to boot: .*BootController.*IdempotencyModule\.forRoot/s);
  });

  it.each(['request-scoped', 'durable', 'two hops away'])(
    'fails with the remedy where what forRootAsync injects is %s',
    async (name) => {
      const output = await refusedBoot('boot', platform, { env: { CASE: name } });
      expect(output).toMatch(/refused to boot: .*forRootAsync.*(request|durable)/is);
    },
  );
});
