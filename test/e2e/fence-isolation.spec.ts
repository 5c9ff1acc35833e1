import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { ONE_ADAPTER, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication } from '../helpers/lease-application.js';
import { expectProblem, expectReplay, leaseRow } from '../helpers/leases.js';
import { createShop, resetShop } from '../helpers/shop.js';

/** Any number that nobody else locks. */
const GATE = 4_242;
const POOL_SIZE = 4;

/** Has every session of the application's pool run a statement, and stay. */
async function inEverySession(app: Application, statement: string): Promise<void> {
  const pool = poolOf(app.dataSource);
  const clients = await Promise.all(Array.from({ length: POOL_SIZE }, () => pool.connect()));
  for (const client of clients) await client.query(statement);
  for (const client of clients) client.release();
}

async function withNewSessions(app: Application, setting: string): Promise<void> {
  await app.database.query(`ALTER DATABASE "${app.database.name}" SET ${setting}`);
  const pool = poolOf(app.dataSource);
  const clients = await Promise.all(Array.from({ length: POOL_SIZE }, () => pool.connect()));
  for (const client of clients) client.release(true);
}

/** How the isolation of a session may change when the application has already looked. */
const CHANGES: Readonly<Record<string, (app: Application, level: string) => Promise<void>>> = {
  'set for the database': (app, level) => withNewSessions(app, `default_transaction_isolation = '${level}'`),
  'left in the sessions': (app, level) =>
    inEverySession(app, `SET default_transaction_isolation = '${level}'`),
  'left in the sessions, as their characteristics': (app, level) =>
    inEverySession(app, `SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL ${level}`),
};

const CASES = ['read committed', 'repeatable read', 'serializable'].flatMap((level) =>
  Object.keys(CHANGES).map((change) => [level, change] as const),
);

describe.each(ONE_ADAPTER)('a fence whose isolation changes after boot (%s)', (adapter) => {
  let database: TestDatabase;
  let stale: Application;
  let rival: Application;
  let gate: Client;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    const start = (): Promise<Application> =>
      // Past PgBouncer: it is about what a session has.
      startLeaseApplication({ adapter, database, databaseUrl: database.directUrl, poolSize: POOL_SIZE });
    [stale, rival] = await Promise.all([start(), start()]);
    // Stops a takeover before it has committed.
    await database.query(
      `CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.attempt > OLD.attempt THEN PERFORM pg_advisory_xact_lock_shared(${GATE}); END IF;
         RETURN NEW;
       END $$`,
    );
    await database.query(
      `CREATE TRIGGER gate BEFORE UPDATE ON idempotency_records FOR EACH ROW EXECUTE FUNCTION wait_at_gate()`,
    );
    gate = new Client({ connectionString: database.directUrl });
    await gate.connect();
  });

  afterEach(async () => {
    await gate.query('SELECT pg_advisory_unlock_all()');
    await database.query(`ALTER DATABASE "${database.name}" RESET ALL`);
    for (const app of [stale, rival]) {
      app.reset();
      await app.idle();
      await inEverySession(app, 'RESET ALL');
    }
    await resetShop(database);
  });

  afterAll(async () => {
    await gate.end();
    await stale.close();
    await rival.close();
    await database.drop();
  });

  const send = (app: Application, key: string): Promise<HttpResponse> =>
    postJson(`${app.url}/long`, {}, { 'Idempotency-Key': key });

  const waiting = async (): Promise<number> => {
    const rows = await database.query(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length;
  };

  const hasEntered = (app: Application): boolean =>
    app.milestones.some((milestone) => milestone.startsWith('entered'));

  it.each(CASES)('keeps out an owner that a takeover overtakes meanwhile: %s, %s', async (level, change) => {
    await CHANGES[change]!(stale, level);
    stale.block('handler');
    const answer = send(stale, 'overtaken');
    let isAnswered = false;
    void answer.then(() => (isAnswered = true));
    await eventually(() => hasEntered(stale));
    await database.query(
      `UPDATE idempotency_records SET locked_until = clock_timestamp() - interval '1 second'`,
    );
    await gate.query('SELECT pg_advisory_lock($1)', [GATE]);
    const takeOver = send(rival, 'overtaken');
    await eventually(async () => (await waiting()) === 1);
    stale.unblock('handler');
    // It waits for the takeover to end, or knows by itself.
    await eventually(async () => isAnswered || (await waiting()) === 2);
    await gate.query('SELECT pg_advisory_unlock($1)', [GATE]);
    const original = await takeOver;
    expect(original.status).toBe(201);
    expectProblem(await answer, 503, 'IDEMPOTENCY_LEASE_LOST');
    expect(await rival.items()).toEqual(['attempt 2']);
    expect(await leaseRow(database, 'overtaken')).toMatchObject({ status: 'completed', attempt: 2 });
    expectReplay(await send(stale, 'overtaken'), original);
  });

  it.each(CASES)('lets an owner that nobody overtakes commit: %s, %s', async (level, change) => {
    await CHANGES[change]!(stale, level);
    const original = await send(stale, 'alone');
    expect(original.status).toBe(201);
    expect(await stale.items()).toEqual(['attempt 1']);
    expectReplay(await send(rival, 'alone'), original);
  });
});
