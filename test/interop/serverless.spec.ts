import { describe, expect, it } from '@jest/globals';
import { sendRequest } from '../helpers/http.js';
import { EXPRESS, expectProtected, useScene } from './scene.js';

const PACKAGES = ['serverless-http', '@codegenie/serverless-express'];

const CASES = EXPRESS.flatMap((platform) =>
  PACKAGES.flatMap((name) => ['1.0', '2.0'].map((event) => ({ ...platform, name, event }))),
);

describe.each(CASES)('$name, events of version $event, on Nest $nest', ({ name, event, ...platform }) => {
  const scene = useScene('serverless', platform, { env: { PACKAGE: name, EVENT: event } });

  it.each(['/effects', '/optional'])('%s: one effect and one replay', async (path) => {
    await expectProtected(scene(), path);
    expect(scene().complaints()).toEqual([]);
  });

  it('a required key that is missing is refused, an optional one is not', async () => {
    const options = {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{"name":"keyless"}',
    };
    const refused = await sendRequest(`${scene().url}/effects`, options);
    expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('IDEMPOTENCY_KEY_MISSING')]);
    expect((await sendRequest(`${scene().url}/optional`, options)).status).toBe(201);
    expect(await scene().rows('keyless')).toBe(1);
  });
});
