import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, Application, type Handler, type Scene } from '../helpers/application.js';
import { expectProblem, expectReplay } from '../helpers/leases.js';
import { RecordingLogger } from '../helpers/replay.js';
import { ReportingFilter } from '../helpers/reporting-filter.js';
import { Wallet } from '../helpers/shop.js';
import { failureOf, taskOf } from '../helpers/tasks.js';

const SECRET = 'value-that-nobody-may-log';

/** The codes of an error and of all that it was made of. */
function codesOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [];
  const {
    code,
    error: own,
    cause,
    driverError,
  } = error as Error & {
    code?: string;
    error?: { code: string };
    driverError?: unknown;
  };
  const codes = [own?.code ?? code, ...codesOf(cause), ...codesOf(driverError)];
  return codes.filter((each) => each !== undefined);
}

type Statements = (scene: Scene) => Promise<unknown>;

/** First statements that fail, by the SQLSTATE that is the reason for all that follows. */
const FAILING: Readonly<Record<string, Statements>> = {
  '23505': ({ dataSource }) => dataSource.query('INSERT INTO named VALUES ($1)', [SECRET]),
  '23514': ({ wallets }) => wallets.decrement({ id: 1 }, 'balance', 5_000),
  '22012': ({ dataSource }) => dataSource.query('SELECT 1 / 0'),
  '42P01': ({ dataSource }) => dataSource.query('SELECT FROM nowhere'),
};

const next: Statements = ({ orders }) => orders.save({ item: 'next', price: 1 });

/** What handlers make of it. The transaction is aborted each time. */
const HANDLERS: Readonly<Record<string, (failing: Statements) => Handler>> = {
  'goes on, and lets the next error through': (failing) => async (scene) => {
    await failing(scene).catch(() => undefined);
    return next(scene);
  },
  'goes on, and swallows the next error as well': (failing) => async (scene) => {
    await failing(scene).catch(() => undefined);
    await next(scene).catch(() => undefined);
    return { fine: true };
  },
  'goes on for long': (failing) => async (scene) => {
    await failing(scene).catch(() => undefined);
    for (let count = 0; count < 5; count++) await next(scene).catch(() => undefined);
    return next(scene);
  },
  'wraps the next error in its own': (failing) => async (scene) => {
    await failing(scene).catch(() => undefined);
    await next(scene).catch((error: unknown) => {
      throw new Error('cannot order', { cause: error });
    });
  },
  'does nothing more': (failing) => async (scene) => {
    await failing(scene).catch(() => undefined);
    return { fine: true };
  },
  'runs them together': (failing) => async (scene) => {
    await Promise.allSettled([failing(scene), next(scene), next(scene)]);
    return { fine: true };
  },
};

const CASES = Object.keys(FAILING).flatMap((sqlState) =>
  Object.keys(HANDLERS).map((how) => [sqlState, how] as const),
);

describe.each(ADAPTERS)('an SQL error that a handler swallows (%s)', (adapter) => {
  let app: Application;
  let filter: ReportingFilter;
  const logger = new RecordingLogger();

  beforeAll(async () => {
    app = await Application.start({
      adapter,
      configure: (nest) => {
        nest.useLogger(logger);
        filter = ReportingFilter.in(nest);
      },
    });
    await app.database.query('CREATE TABLE named (name text PRIMARY KEY)');
    await app.database.query('INSERT INTO named VALUES ($1)', [SECRET]);
  });

  afterEach(async () => {
    filter.caught.length = logger.lines.length = 0;
    await app.clear();
  });

  afterAll(() => app.close());

  const logged = (): string => logger.lines.map((line) => line.map(String).join(' ')).join('\n');

  it.each(CASES)('of %s is named as the reason where it %s', async (sqlState, how) => {
    const script = HANDLERS[how]!(FAILING[sqlState]!);
    const answer = await app.run(script, { key: 'swallowed' });
    expectProblem(answer, 500, 'IDEMPOTENCY_TRANSACTION_ABORTED');
    expect(answer.headers['retry-after']).toBeUndefined();
    // Filters do not hear of what becomes of a response that the handler has returned.
    for (const exception of filter.caught) expect(codesOf(exception)).toContain(sqlState);
    expect(logged()).toContain(sqlState);
    expect(logged()).not.toContain(SECRET);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    expect((await app.run(() => ({}), { key: 'swallowed' })).status).toBe(201);
  });

  it.each(Object.keys(FAILING))('of %s does no harm in a nested transaction', async (sqlState) => {
    const script: Handler = async (scene) => {
      const nested = scene.dataSource.transaction((manager) =>
        FAILING[sqlState]!({
          ...scene,
          wallets: manager.getRepository(Wallet),
        }),
      );
      await expect(nested).rejects.toMatchObject({ driverError: { code: sqlState } });
      return next(scene);
    };
    const first = await app.run(script, { key: 'nested' });
    expect(first.status).toBe(201);
    expectReplay(await app.run(script, { key: 'nested' }), first);
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  });

  it('names the second error, where the first was undone', async () => {
    const script: Handler = async (scene) => {
      const undone = scene.dataSource.transaction(() => FAILING['23505']!(scene));
      await undone.catch(() => undefined);
      await FAILING['22012']!(scene).catch(() => undefined);
      return next(scene);
    };
    expectProblem(await app.run(script, { key: 'second' }), 500, 'IDEMPOTENCY_TRANSACTION_ABORTED');
    expect(codesOf(filter.caught[0])).toContain('22012');
    expect(logged()).toContain('22012');
    expect(logged()).not.toContain('23505');
  });

  it.each(Object.keys(HANDLERS))(
    'is the cause of what run() rejects with, where its work %s',
    async (how) => {
      const { dataSource } = app;
      const scene = { dataSource, orders: app.orders } as Scene;
      const work = HANDLERS[how]!(FAILING['23505']!);
      const failure = await failureOf(
        app.service.run(taskOf('swallowed'), async () => {
          await work(scene);
        }),
      );
      expect(failure.error.code).toBe('IDEMPOTENCY_TRANSACTION_ABORTED');
      expect(codesOf(failure)).toContain('23505');
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    },
  );
});
