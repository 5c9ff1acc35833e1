import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { ArgumentsHost, ExceptionFilter } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { ADAPTERS, Application } from '../helpers/application.js';
import { postJson } from '../helpers/http.js';

/** Tells every failure as a success, as some applications do with an envelope of their own. */
class EnvelopeFilter implements ExceptionFilter {
  catch(error: Error, host: ArgumentsHost): void {
    const response = host.switchToHttp().getResponse<{
      status(code: number): { send(body: unknown): void };
    }>();
    response.status(200).send({ ok: false, error: error.message });
  }
}

describe.each(ADAPTERS)('errors that a filter answers with 200 (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      routes: { successes: { response: { statuses: [200, 201] } } },
      configure: (app) => void app.useGlobalFilters(new EnvelopeFilter()),
    });
  });

  afterAll(() => app.close());

  it('have a message that tells the code and what to do', async () => {
    const { status, text } = await postJson(`${app.url}/run`, {});
    expect([status, text]).toEqual([
      200,
      expect.stringContaining('IDEMPOTENCY_KEY_REQUIRED: Include a unique key'),
    ]);
  });

  it.each([
    ['run', 'are recorded', 1, 'refused at first'],
    ['successes', 'are not recorded where no status of an error is, and leave the key free', 0, 'paid'],
  ])('on the route %s %s', async (route, _what, records, retried) => {
    await app.clear();
    const first = await app.run(
      async ({ orders }) => {
        await orders.save({ item: 'paid', price: 10 });
        throw new Error('refused at first');
      },
      { key: 'one', route },
    );
    expect([first.status, first.json()]).toEqual([200, { ok: false, error: 'refused at first' }]);
    await app.idle();
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records });
    const retry = await app.run(() => 'paid', { key: 'one', route });
    expect(retry.text).toContain(retried);
  });
});

describe.each(ADAPTERS)('errors that a serializer of the application writes (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      configure: (nest) => {
        if (adapter === 'express') nest.getHttpAdapter().getInstance().set('json spaces', 2);
        else {
          const fastify = (nest as NestFastifyApplication).getHttpAdapter().getInstance();
          fastify.setReplySerializer((payload) => JSON.stringify(payload, null, 2));
        }
      },
    });
  });

  afterAll(() => app.close());

  it('are problem details all the same', async () => {
    const missing = await postJson(`${app.url}/run`, {});
    await app.send('run', 'taken');
    const reused = await app.send('run', 'taken', { item: 'another' });
    for (const answer of [missing, reused]) {
      expect(answer.text).toContain('\n  "code"');
      expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
    }
  });
});
