import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { BadGatewayException } from '@nestjs/common';
import {
  IdempotencyPurgeService,
  ReleaseIdempotencyKey,
  type IdempotencyEvent,
  type IdempotentRouteOptions,
} from 'nestjs-pg-idempotency';
import { ADAPTERS, Application, type Scene } from '../helpers/application.js';
import { loseCommitAnswer } from '../helpers/commit-faults.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { RecordingLogger } from '../helpers/replay.js';
import { createShop } from '../helpers/shop.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';

const ROUTES = {
  slow: {},
  reject: { whenInProgress: 'reject' },
  lease: { mode: 'lease' },
  rerun: { mode: 'lease', onOutcomeUnknown: 'rerun' },
  reconcile: {
    mode: 'lease',
    onOutcomeUnknown: () => ({ outcome: 'completed', response: { status: 202, body: {} } }),
  },
  undecided: { mode: 'lease', onOutcomeUnknown: () => ({ outcome: 'unknown' }) },
} satisfies Record<string, IdempotentRouteOptions>;

const SECRET_KEY = 'key-that-nobody-may-log';
const SECRET_BODY = 'body-that-nobody-may-log';
const duration: unknown = expect.any(Number);

const at = (route: string): { client: string; endpoint: string } => ({
  client: 'tests',
  endpoint: `POST /${route}`,
});

describe.each(ADAPTERS)('the observer (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let app: Application;
  const logger = new RecordingLogger();

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    app = await Application.start({
      adapter,
      database,
      databaseUrl: proxy.url(database.url),
      routes: ROUTES,
      configure: (app) => app.useLogger(logger),
    });
  });

  afterEach(async () => {
    await app.clear();
  });

  afterAll(async () => {
    await app.close();
    await proxy.close();
    await database.drop();
  });

  const send = (route: keyof typeof ROUTES): ReturnType<Application['send']> =>
    app.send(route, SECRET_KEY, { item: SECRET_BODY });

  /** What happened since the last look. */
  const heard = (): IdempotencyEvent[] => app.events.splice(0);

  const fail = (): never => {
    throw new BadGatewayException('the provider timed out');
  };

  it.each([
    ['slow', 'transaction'],
    ['lease', 'lease'],
  ] as const)('hears of what was executed and replayed (%s)', async (route, mode) => {
    await send(route);
    expect(heard()).toEqual([{ type: 'executed', ...at(route), mode, attempt: 1, status: 201, duration }]);
    await send(route);
    expect(heard()).toEqual([{ type: 'replayed', ...at(route), status: 201 }]);
    await app.send(route, SECRET_KEY, {});
    expect(heard()).toEqual([{ type: 'rejected', ...at(route), code: 'IDEMPOTENCY_KEY_REUSED' }]);
  });

  it('hears of who waited, once, and how it ended', async () => {
    const handler = app.hold();
    const first = send('slow');
    await handler.entered;
    const before = app.arrived;
    const second = send('slow');
    await eventually(() => app.arrived === before + 1);
    handler.end();
    await Promise.all([first, second]);
    expect(heard()).toEqual([
      { type: 'executed', ...at('slow'), mode: 'transaction', attempt: 1, status: 201, duration },
      { type: 'waited', ...at('slow'), duration },
      { type: 'replayed', ...at('slow'), status: 201 },
    ]);
  });

  it('hears of who was refused without having waited', async () => {
    const handler = app.hold();
    const first = send('reject');
    await handler.entered;
    await send('reject');
    expect(heard()).toEqual([{ type: 'rejected', ...at('reject'), code: 'IDEMPOTENCY_IN_PROGRESS' }]);
    handler.end();
    await first;
  });

  it('hears of what was released', async () => {
    app.acts(fail);
    await send('slow');
    expect(heard()).toEqual([{ type: 'released', ...at('slow'), mode: 'transaction', attempt: 1 }]);
    app.acts(() => {
      throw new ReleaseIdempotencyKey();
    });
    await send('lease');
    expect(heard()).toEqual([{ type: 'released', ...at('lease'), mode: 'lease', attempt: 1 }]);
  });

  it('hears that a commit was refused, so that nothing was recorded', async () => {
    app.acts(async ({ orders }) => {
      await orders.query('SELECT 1 / 0').catch(() => undefined);
      return 'the handler swallowed an SQL error';
    });
    expect((await send('slow')).json()).toMatchObject({ code: 'IDEMPOTENCY_TRANSACTION_ABORTED' });
    expect(heard()).toEqual([{ type: 'released', ...at('slow'), mode: 'transaction', attempt: 1 }]);
  });

  it('hears that the answer to COMMIT was lost', async () => {
    const fault = loseCommitAnswer(proxy);
    expect((await send('slow')).json()).toMatchObject({ code: 'IDEMPOTENCY_OUTCOME_UNKNOWN' });
    await fault.struck;
    expect(heard()).toEqual([{ type: 'outcome-unknown', ...at('slow'), mode: 'transaction', attempt: 1 }]);
  });

  it('hears of an outcome that is unknown, and of the refusal after it', async () => {
    app.acts(fail);
    await send('lease');
    expect(heard()).toEqual([{ type: 'outcome-unknown', ...at('lease'), mode: 'lease', attempt: 1 }]);
    await send('lease');
    expect(heard()).toEqual([{ type: 'rejected', ...at('lease'), code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' }]);
  });

  it('hears of an attempt that took over', async () => {
    app.acts(fail);
    await send('rerun');
    heard();
    app.acts();
    await send('rerun');
    expect(heard()).toEqual([
      { type: 'taken-over', ...at('rerun'), attempt: 2 },
      { type: 'executed', ...at('rerun'), mode: 'lease', attempt: 2, status: 201, duration },
    ]);
  });

  it('hears what a reconcile handler found out', async () => {
    app.acts(fail);
    await Promise.all([send('reconcile'), send('undecided')]);
    heard();
    await send('reconcile');
    expect(heard()).toEqual([
      { type: 'taken-over', ...at('reconcile'), attempt: 2 },
      { type: 'executed', ...at('reconcile'), mode: 'lease', attempt: 2, status: 202, duration },
      { type: 'replayed', ...at('reconcile'), status: 202 },
    ]);
    await send('undecided');
    expect(heard()).toEqual([
      { type: 'taken-over', ...at('undecided'), attempt: 2 },
      { type: 'outcome-unknown', ...at('undecided'), mode: 'lease', attempt: 2 },
      { type: 'rejected', ...at('undecided'), code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED' },
    ]);
  });

  it.each([
    ['records its response', () => 'done'],
    ['writes', (scene: Scene) => scene.execution.transaction(async () => 'written')],
  ])('hears of an owner that finds its lease taken when it %s', async (_when, act) => {
    const handler = app.hold();
    const first = send('lease');
    await handler.entered;
    await database.query('UPDATE idempotency_records SET owner_token = gen_random_uuid(), attempt = 2');
    handler.end(act);
    expect((await first).json()).toMatchObject({ code: 'IDEMPOTENCY_LEASE_LOST' });
    expect(heard()).toEqual([{ type: 'fence-lost', ...at('lease'), attempt: 1 }]);
  });

  it('hears what was purged', async () => {
    await send('slow');
    await database.query("UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 s'");
    heard();
    await app.nest.get(IdempotencyPurgeService).purge();
    expect(heard()).toEqual([{ type: 'purged', records: 1 }]);
  });

  it('tells the logger what is out of the ordinary, and nobody keys or bodies', async () => {
    logger.lines.length = 0;
    app.acts(fail);
    await send('lease');
    await send('rerun');
    await send('slow');
    app.acts();
    await send('rerun');
    await send('slow');
    await send('slow');
    await app.send('slow', SECRET_KEY, { other: SECRET_BODY });
    const fault = loseCommitAnswer(proxy);
    await app.send('slow', `${SECRET_KEY}-2`, { item: SECRET_BODY });
    await fault.struck;
    const handler = app.hold();
    const losing = app.send('lease', `${SECRET_KEY}-3`, { item: SECRET_BODY });
    await handler.entered;
    await database.query('UPDATE idempotency_records SET owner_token = gen_random_uuid()');
    handler.end();
    await losing;
    proxy.refuse();
    proxy.cut();
    await app.send('slow', `${SECRET_KEY}-4`, { item: SECRET_BODY });
    await app.send('lease', `${SECRET_KEY}-5`, { item: SECRET_BODY });
    proxy.refuse(false);

    const log = JSON.stringify(logger.lines);
    expect(log).toContain('outcome-unknown on POST /lease, attempt 1');
    expect(log).toContain('taken-over on POST /rerun, attempt 2');
    expect(log).toContain('fence-lost on POST /lease, attempt 1');
    expect(log).toContain('IDEMPOTENCY_OUTCOME_UNKNOWN in ');
    expect(log).toContain('IDEMPOTENCY_STORE_UNAVAILABLE in ');
    expect(app.events.length).toBeGreaterThan(10);
    for (const text of [log, JSON.stringify(app.events)]) {
      expect(text).not.toContain(SECRET_KEY);
      expect(text).not.toContain(SECRET_BODY);
    }
  });
});

describe.each(ADAPTERS)('an observer that fails (%s)', (adapter) => {
  const failures: [string, () => unknown][] = [
    [
      'by throwing',
      () => {
        throw new Error('the observer is broken');
      },
    ],
    ['asynchronously', () => Promise.reject(new Error('the observer is broken'))],
  ];

  it.each(failures)('breaks nothing, and is complained of once (%s)', async (_how, observe) => {
    const database = await createTestDatabase();
    await createShop(database);
    const logger = new RecordingLogger();
    const app = await Application.start({
      adapter,
      database,
      routes: ROUTES,
      idempotency: { observer: { observe } },
      configure: (app) => app.useLogger(logger),
    });
    try {
      const first = await app.send('slow', 'k');
      const second = await app.send('slow', 'k');
      expect(first.status).toBe(201);
      expect(second.text).toBe(first.text);
      await app.send('lease', 'k');
      const complaints = (): unknown[] =>
        logger.lines.filter((line) => JSON.stringify(line).includes('the observer is broken'));
      await eventually(() => complaints().length > 0);
      expect(complaints()).toHaveLength(1);
    } finally {
      await app.close();
      await database.drop();
    }
  });
});
