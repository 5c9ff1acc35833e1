import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { startSample, type RunningSample } from '../e2e/sample.fixture.js';
import { withClient } from '../helpers/admin.js';
import { ADAPTERS } from '../helpers/application.js';
import type { TypeScriptProcess } from '../helpers/child-process.js';
import {
  makeDurably,
  readPending,
  startDurableCharge,
  type DurableCharge,
  type DurableResult,
} from '../helpers/client-process.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { startLossyHttp, type LossyHttp, type Mishap } from '../helpers/lossy-http.js';

describe.each(ADAPTERS)('a caller that is killed between sending and answer, on %s', (adapter) => {
  let sample: RunningSample;
  let directory: string;
  let gateway: LossyHttp;
  let mishap: Mishap | undefined;
  let requests: number;
  let body: DurableCharge['body'];
  let file: string;
  const processes: TypeScriptProcess[] = [];

  beforeAll(async () => {
    sample = await startSample(adapter);
    directory = await mkdtemp(join(tmpdir(), 'client-killed-'));
  });

  beforeEach(async () => {
    mishap = undefined;
    requests = 0;
    const ref = `inv_${randomUUID()}`;
    body = { amount: 4200, ref };
    file = join(directory, `${ref}.json`);
    gateway = await startLossyHttp(sample.url, () => {
      requests++;
      return mishap;
    });
  });

  afterEach(async () => {
    await Promise.all(processes.splice(0).map((each) => each.kill()));
    await gateway.close();
  });

  afterAll(async () => {
    await rm(directory, { recursive: true });
    await sample.close();
  });

  /** Resolves when the key of the charge is on the disk. */
  const start = async (
    options: Partial<DurableCharge> = {},
    stopBeforeSending = false,
  ): Promise<TypeScriptProcess> => {
    const caller = startDurableCharge({ baseUrl: gateway.url, file, body, ...options }, stopBeforeSending);
    processes.push(caller);
    expect(await caller.nextLine()).toBe('saved');
    return caller;
  };

  /** Whoever goes on finds what the first process has left, and has no other input. */
  const UNUSED = { amount: 1, ref: 'unused' };
  const resume = (): Promise<TypeScriptProcess> => start({ body: UNUSED });

  const resultOf = async (caller: TypeScriptProcess): Promise<DurableResult> =>
    JSON.parse(await caller.nextLine()) as DurableResult;

  const charges = (): Promise<{ id: string }[]> =>
    sample.database.query('SELECT id FROM charges WHERE ref = $1', [body.ref]);

  /** One charge, of what the first process was asked for, under the key that it has left; and whoever goes on again gets it too. */
  const expectOne = async (result: DurableResult, replayed: boolean): Promise<void> => {
    const left = readPending(file);
    expect(left?.input.body).toEqual(body);
    expect(result).toMatchObject({ key: left?.key, replayed, data: { ...body, status: 'succeeded' } });
    const again = await makeDurably({ baseUrl: sample.url, file, body: UNUSED });
    expect(again).toMatchObject({ key: left?.key, replayed: true, data: result.data });
    expect(await charges()).toEqual([{ id: result.data.id }]);
    expect(await sample.database.query('SELECT FROM charges WHERE ref = $1', [UNUSED.ref])).toEqual([]);
  };

  it('before anything is sent: the next process charges', async () => {
    const caller = await start({}, true);
    await caller.kill();
    expect(requests).toBe(0);
    expect(await charges()).toEqual([]);
    await expectOne(await resultOf(await resume()), false);
    expect(requests).toBe(1);
  }, 600_000);

  it('when the charge is made, and its answer on the way: the next process gets it', async () => {
    mishap = 'answer-late';
    const caller = await start();
    await eventually(async () => (await charges()).length === 1);
    await caller.kill();
    await gateway.settled();
    mishap = undefined;
    await expectOne(await resultOf(await resume()), true);
    expect(requests).toBe(2);
  }, 600_000);

  it('while the charge is being made: the next process waits for it', async () => {
    const [locked, gate] = [deferred(), deferred()];
    const locking = withClient(sample.database.directUrl, async (client) => {
      await client.query('BEGIN');
      await client.query('LOCK TABLE charges IN EXCLUSIVE MODE');
      locked.resolve();
      await gate.promise;
      await client.query('COMMIT');
    });
    await locked.promise;
    try {
      // Not through the gateway: the application sees the connection break.
      const caller = await start({ baseUrl: sample.url });
      await eventually(async () => {
        const blocked = await sample.database.query(
          `SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO "charges"%'`,
        );
        return blocked.length === 1;
      });
      await caller.kill();
      const next = await resume();
      await eventually(() => requests === 1);
      gate.resolve();
      await expectOne(await resultOf(next), true);
    } finally {
      gate.resolve();
      await locking;
    }
  }, 600_000);
});
