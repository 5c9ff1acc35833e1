import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { EXPRESS, expectProtected, Scene } from './scene.js';

const HANDLERS = ['serverless-http', '@codegenie/serverless-express'].flatMap((name) =>
  ['1.0', '2.0'].map((event) => ({ name, event, headers: { 'X-Package': name, 'X-Event': event } })),
);

describe.each(EXPRESS)('handlers of API Gateway’s events on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('serverless', platform);
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  describe.each(HANDLERS)('by $name, events of version $event', ({ headers }) => {
    it.each(['/effects', '/optional'])('%s: one effect and one replay', async (path) => {
      await expectProtected(scene, path, headers);
      expect(scene.complaints()).toEqual([]);
    });

    it('a required key that is missing is refused, an optional one is not', async () => {
      const name = randomUUID();
      const post = (path: string): Promise<HttpResponse> =>
        sendRequest(scene.url + path, {
          method: 'POST',
          headers: { ...headers, 'Content-Type': 'application/json' },
          body: JSON.stringify({ name }),
        });
      const refused = await post('/effects');
      expect(refused.status).toBe(400);
      expect(refused.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REQUIRED' });
      expect((await post('/optional')).status).toBe(201);
      expect(await scene.rows(name)).toBe(1);
    });
  });
});
