import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { INestApplication } from '@nestjs/common';
import { createSampleApp } from '../../sample-app/create-sample-app.js';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

/** What a worker that has done its job tells the queue. */
const ACKNOWLEDGEMENT = /UPDATE pgboss\.job[^]*state = 'completed'/;

describe('a worker that is killed between effect and acknowledgement', () => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let worker: TypeScriptProcess | undefined;
  let survivor: INestApplication | undefined;

  beforeAll(async () => {
    database = await createEmptyDatabase();
    proxy = await startDatabaseProxy(database.url);
  });

  afterEach(async () => {
    await worker?.kill();
    await survivor?.close();
  });

  afterAll(async () => {
    await proxy.close();
    await database.drop();
  });

  it('has charged once, although its job is delivered again', async () => {
    const died = deferred();
    const ref = `inv_${randomUUID()}`;
    const charges = (): Promise<unknown[]> => database.query('SELECT FROM charges WHERE ref = $1', [ref]);
    const acknowledged = proxy.onClientData(async (chunk) => {
      if (!ACKNOWLEDGEMENT.test(chunk.toString('latin1'))) return 'forward';
      acknowledged();
      await worker?.kill();
      died.resolve();
      return 'cut-before';
    });
    worker = runTypeScript(`
      import { createSampleApp } from './sample-app/create-sample-app.ts';
      const databaseUrl = ${JSON.stringify(proxy.url(database.url))};
      const app = await createSampleApp({ databaseUrl, adapter: 'express' });
      await app.listen(0, '127.0.0.1');
      console.log(await app.getUrl());
    `);
    const answer = await postJson(`${await worker.nextLine()}/jobs/charges`, { amount: 4200, ref });
    const { job } = answer.json() as { job: string };
    await died.promise;
    expect(await charges()).toHaveLength(1);
    expect(await database.query('SELECT state FROM pgboss.job WHERE id = $1', [job])).toEqual([
      { state: 'active' },
    ]);

    survivor = await createSampleApp({ databaseUrl: database.url, adapter: 'express' });
    await survivor.init();
    const [row] = await eventually(
      async () => {
        const rows = await database.query<{ state: string; retry_count: number; output: unknown }>(
          'SELECT state, retry_count FROM pgboss.job WHERE id = $1',
          [job],
        );
        return rows[0]?.state === 'completed' && rows;
      },
      { timeoutMs: 60_000 },
    );
    expect(row).toEqual({ state: 'completed', retry_count: 1 });
    expect(await charges()).toHaveLength(1);
  }, 600_000);
});
