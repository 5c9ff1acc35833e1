import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import {
  holdWallets,
  NO_TRACES,
  ORDER,
  ORDERS,
  resetRewards,
  RewardsClient,
  startRewards,
  traces,
  type HeldWallets,
  type RunningRewards,
} from './rewards.fixture.js';

const ONE_ORDER = { orders: 1, payouts: 0, balance: '9500.00', records: 1 };

function isReplay({ headers }: HttpResponse): boolean {
  return headers['idempotency-replayed'] === 'true';
}

/** Of simultaneous duplicates one ran, and the others got its answer or were told to come back. */
function expectOneRun(responses: readonly HttpResponse[]): void {
  const created = responses.filter(({ status }) => status === 201);
  expect(created.filter((response) => !isReplay(response))).toHaveLength(1);
  expect(new Set(created.map(({ text }) => text)).size).toBe(1);
  for (const { status, headers } of responses.filter((response) => !created.includes(response))) {
    expect(status).toBe(409);
    expect(Number(headers['retry-after'])).toBeGreaterThan(0);
  }
}

describe.each(['express', 'fastify'] as const)(
  'dangers that the rewards contract names, on %s',
  (adapter) => {
    let database: TestDatabase;
    let rewards: RunningRewards;
    let client: RewardsClient;
    let key: string;
    let wallets: HeldWallets | undefined;
    let child: TypeScriptProcess | undefined;

    beforeAll(async () => {
      database = await createEmptyDatabase();
      rewards = await startRewards(adapter, database.url);
      client = rewards.client;
    });

    beforeEach(async () => {
      await resetRewards(database);
      key = `key-${randomUUID()}`;
    });

    afterEach(async () => {
      await child?.kill();
      await wallets?.release();
      child = wallets = undefined;
    });

    afterAll(async () => {
      await rewards.app.close();
      await database.drop();
    });

    /** Retries as the contract's clients do, but also after a 409. */
    async function retryUntilCreated(): Promise<HttpResponse> {
      return eventually(async () => {
        const response = await client.post(ORDERS, ORDER, key);
        return response.status === 201 && response;
      });
    }

    it('retry after a network timeout: the original takes effect once, and the retry gets its answer', async () => {
      wallets = await holdWallets(database);
      const original = client.startPost(ORDERS, ORDER, key);
      await wallets.awaited();
      original.destroy();
      await expect(original.response).rejects.toThrow();

      // Sent while the original still runs: it waits for the result instead of being refused.
      const arrived = once(rewards.app.getHttpServer() as Server, 'request');
      const retry = client.startPost(ORDERS, ORDER, key);
      await arrived;
      await wallets.release();
      const retried = await retry.response;
      expect(retried.status).toBe(201);
      expect(isReplay(retried)).toBe(true);
      expect((await client.get(ORDERS)).json()).toEqual([retried.json()]);
      expect(await traces(database)).toEqual(ONE_ORDER);
    });

    it('double click: one order', async () => {
      const responses = await Promise.all([client.post(ORDERS, ORDER, key), client.post(ORDERS, ORDER, key)]);
      expectOneRun(responses);
      expect(await traces(database)).toEqual(ONE_ORDER);
      expect(isReplay(await client.post(ORDERS, ORDER, key))).toBe(true);
    });

    it('a load balancer that sends the request twice, to two instances: one order', async () => {
      const second = await startRewards(adapter, database.url);
      try {
        const responses = await Promise.all([
          client.post(ORDERS, ORDER, key),
          second.client.post(ORDERS, ORDER, key),
        ]);
        expectOneRun(responses);
        expect(await traces(database)).toEqual(ONE_ORDER);
        expect(isReplay(await second.client.post(ORDERS, ORDER, key))).toBe(true);
      } finally {
        await second.app.close();
      }
    });

    it('crash during processing: nothing took effect, and the retry runs normally', async () => {
      child = runTypeScript(
        `import { createSampleApp } from './sample-app/create-sample-app.ts';
       const app = await createSampleApp(${JSON.stringify({ databaseUrl: database.url, adapter })});
       await app.listen(0, '127.0.0.1');
       console.log(await app.getUrl());`,
      );
      const doomed = new RewardsClient(await child.nextLine());
      wallets = await holdWallets(database);
      const original = doomed.startPost(ORDERS, ORDER, key);
      await wallets.awaited();
      await child.kill('SIGKILL');
      await expect(original.response).rejects.toThrow();
      await wallets.release();

      const retried = await retryUntilCreated();
      expect(isReplay(retried)).toBe(false);
      expect(await traces(database)).toEqual(ONE_ORDER);
      expect((await client.get(ORDERS)).json()).toEqual([retried.json()]);
    });

    it('another body under the key of a request that is still running: 409, and 422 once it is done', async () => {
      wallets = await holdWallets(database);
      const original = client.startPost(ORDERS, ORDER, key);
      await wallets.awaited();
      expect((await client.post(ORDERS, { ...ORDER, quantity: 1 }, key)).status).toBe(409);
      expect(await traces(database)).toEqual(NO_TRACES);
      await wallets.release();
      expect((await original.response).status).toBe(201);
      expect((await client.post(ORDERS, { ...ORDER, quantity: 1 }, key)).status).toBe(422);
      expect(await traces(database)).toEqual(ONE_ORDER);
    });
  },
);
