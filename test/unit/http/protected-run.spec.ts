import { afterEach, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { from, NEVER } from 'rxjs';
import type { Execution } from '../../../lib/core/store.js';
import { ProtectedRun } from '../../../lib/http/protected-run.js';
import { HeldResponse } from '../../../lib/transports/http/response.js';
import { routeSettings } from '../../../lib/http/route-settings.js';
import { deferred } from '../../helpers/conditions.js';
import { sendRequest } from '../../helpers/http.js';

/** A handler that began, and an end that takes as long as the test says. */
function hangingExecution(): { execution: Execution; givenUp: Promise<void>; end: () => void } {
  const givenUp = deferred();
  const ended = deferred();
  const unexpected = (): never => {
    throw new Error('it must not be recorded');
  };
  const giveUp = async (): Promise<void> => {
    givenUp.resolve();
    await ended.promise;
  };
  const execution: Execution = {
    createdAt: new Date(),
    attempt: 1,
    handlerBegan: true,
    run: (work) => work(),
    explain: (error) => error,
    complete: unexpected,
    release: giveUp,
    giveUp,
    abandon: () => undefined,
  };
  return { execution, givenUp: givenUp.promise, end: ended.resolve };
}

describe('ProtectedRun', () => {
  let server: Server | undefined;

  afterEach(async () => {
    server?.close();
    if (server) await once(server, 'close');
    server = undefined;
  });

  it('does not send what a handler answers while maxDuration ends it', async () => {
    const { execution, givenUp, end } = hangingExecution();
    const settings = routeSettings({ client: () => 'tests', maxDuration: 20 }, []);
    let response: ServerResponse | undefined;
    server = createServer((_request, raw) => {
      response = raw;
      const held = new HeldResponse(raw, settings.maxBody, () => run.responseEnded());
      const run = new ProtectedRun({
        execution,
        held,
        isAnsweredByFramework: true,
        settings,
        baseline: {},
        keyHeader: () => ({}),
        recordedHeaders: () => ({}),
        report: () => undefined,
      });
      run.start({ handle: () => NEVER }).subscribe({ error: () => undefined });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const answer = sendRequest(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    await givenUp;
    response!.writeHead(201).end('created');
    end();
    const { status, text } = await answer;
    expect(status).toBe(503);
    expect(JSON.parse(text)).toMatchObject({ code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' });
  });

  it('leaves the response alone where the request turns out to need no protection', async () => {
    const { execution } = hangingExecution();
    const settings = routeSettings({ client: () => 'tests', maxDuration: 20 }, []);
    server = createServer((_request, raw) => {
      const held = new HeldResponse(raw, settings.maxBody, () => run.responseEnded());
      const run = new ProtectedRun({
        execution,
        held,
        isAnsweredByFramework: true,
        settings,
        baseline: {},
        keyHeader: () => ({ 'idempotency-key': 'one' }),
        recordedHeaders: () => ({}),
        report: () => undefined,
      });
      const handler = deferred<string>();
      run.startUnclaimed({ handle: () => from(handler.promise) }).subscribe((value) => raw.end(value));
      run.standAside();
      handler.resolve('unprotected');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const answer = await sendRequest(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    expect([answer.status, answer.text]).toEqual([200, 'unprotected']);
    expect(answer.headers['idempotency-key']).toBeUndefined();
  });
});
