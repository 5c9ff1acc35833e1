import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { startApplicationProcess, type ApplicationProcess } from '../helpers/application-process.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { leaseProgram, startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow, untilLapsed } from '../helpers/leases.js';
import { createShop } from '../helpers/shop.js';

/*
 * The owner's process is stopped, as by a virtual machine that is being moved, and goes on when a successor has begun.
 */
describe.each(ADAPTERS)('an owner that was paused past its lease (%s)', (adapter) => {
  let database: TestDatabase;
  let owner: ApplicationProcess;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    owner = await startApplicationProcess(leaseProgram({ adapter, databaseUrl: database.url }));
    app = await startLeaseApplication({ adapter, database });
  });

  afterEach(async () => {
    app.reset();
    owner.resume();
    for (const place of ['handler', 'transaction', 'end']) await owner.unblock(place);
    await app.clear();
  });

  afterAll(async () => {
    await owner.kill();
    await app.close();
    await database.drop();
  });

  const send = (url: string, route: Route, key: string): Promise<HttpResponse> =>
    postJson(`${url}/${route}`, {}, { 'Idempotency-Key': key });

  const items = async (): Promise<string[]> =>
    (await database.query<{ item: string }>('SELECT item FROM orders ORDER BY id')).map(({ item }) => item);

  /** Starts a request on the owner, and stops its process at that place in the handler. */
  const pauseAt = async (
    place: 'handler' | 'transaction' | 'end',
    route: Route,
    key: string,
  ): Promise<Promise<HttpResponse>[]> => {
    await owner.block(place);
    const answer = send(owner.url, route, key);
    await owner.milestone({ handler: 'entered', transaction: 'wrote', end: 'left' }[place]);
    owner.pause();
    // In an array, because an async function would wait for the promise itself.
    return [answer];
  };

  /** Opens the place while the process still stands: the request to do so waits in its socket. */
  const resumeFrom = async (place: string): Promise<void> => {
    const opened = owner.unblock(place);
    owner.resume();
    await opened;
  };

  it('goes on where nobody has taken over', async () => {
    const [answer] = await pauseAt('handler', 'refuse', 'alone');
    await untilLapsed(database, 'alone');
    await resumeFrom('handler');
    const first = (await answer)!;
    expect(first.status).toBe(201);
    expectReplay(await send(app.url, 'refuse', 'alone'), first);
  });

  it('cannot write any more when a successor runs, and the record stays the successor’s', async () => {
    const [answer] = await pauseAt('handler', 'rerun', 'fenced');
    await untilLapsed(database, 'fenced');
    app.block('end');
    const successor = send(app.url, 'rerun', 'fenced');
    await eventually(() => app.milestones.includes('left'));
    const { owner_token: token } = (await leaseRow(database, 'fenced'))!;
    await resumeFrom('handler');
    expectProblem((await answer)!, 503, 'IDEMPOTENCY_LEASE_LOST');
    expect(await leaseRow(database, 'fenced')).toMatchObject({
      status: 'processing',
      attempt: 2,
      owner_token: token,
    });
    app.unblock('end');
    const second = await successor;
    expect(second.status).toBe(201);
    expectReplay(await send(owner.url, 'rerun', 'fenced'), second);
    expect(await items()).toEqual(['attempt 2']);
  });

  it('cannot record its answer when a successor runs, or has ended', async () => {
    for (const isOver of [false, true]) {
      const key = `unrecorded-${isOver}`;
      const [answer] = await pauseAt('end', 'rerun', key);
      await untilLapsed(database, key);
      app.milestones.length = 0;
      if (!isOver) app.block('end');
      const successor = send(app.url, 'rerun', key);
      await eventually(() => app.milestones.includes('left'));
      if (isOver) await successor;
      await resumeFrom('end');
      expectProblem((await answer)!, 503, 'IDEMPOTENCY_LEASE_LOST');
      app.unblock('end');
      const second = await successor;
      expect(second.json()).toMatchObject({ item: 'attempt 2' });
      expectReplay(await send(owner.url, 'rerun', key), second);
    }
  });

  it('has its signal aborted', async () => {
    const [answer] = await pauseAt('handler', 'rerun', 'signalled');
    await untilLapsed(database, 'signalled');
    expect((await send(app.url, 'rerun', 'signalled')).status).toBe(201);
    owner.resume();
    await owner.milestone('aborted');
    await owner.unblock('handler');
    expectProblem((await answer)!, 503, 'IDEMPOTENCY_LEASE_LOST');
    expect(await items()).toEqual(['attempt 2']);
  });

  it('keeps successors out while it stands between the fence and its COMMIT, and cannot commit after them', async () => {
    const [answer] = await pauseAt('transaction', 'brief', 'between');
    await untilLapsed(database, 'between');
    expectProblem(await send(app.url, 'brief', 'between'), 409, 'IDEMPOTENCY_IN_PROGRESS');
    // Of this database: other tests hold locks on the same server.
    const shared = await database.query(
      `SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    );
    expect(shared).toHaveLength(1);
    // Until the server ends the transaction that has been idle for the longest time a request may take.
    const second = await eventually(async () => {
      const retry = await send(app.url, 'brief', 'between');
      return retry.status === 409 ? false : retry;
    });
    expect(second.status).toBe(201);
    await resumeFrom('transaction');
    expect((await answer)!.status).toBe(503);
    expect(await items()).toEqual(['attempt 2']);
    expectReplay(await send(owner.url, 'brief', 'between'), second);
  });

  it('commits when it goes on in time, whoever would have liked to take over', async () => {
    const [answer] = await pauseAt('transaction', 'rerun', 'in-time');
    await untilLapsed(database, 'in-time');
    expectProblem(await send(app.url, 'rerun', 'in-time'), 409, 'IDEMPOTENCY_IN_PROGRESS');
    await resumeFrom('transaction');
    const first = (await answer)!;
    expect(first.status).toBe(201);
    expect(await items()).toEqual(['attempt 1']);
    expectReplay(await send(app.url, 'rerun', 'in-time'), first);
  });
});
