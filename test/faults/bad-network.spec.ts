import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { ADAPTERS, type TestApp } from '../helpers/application.js';
import { sendUntil, settle, type Load } from '../helpers/bad-network-load.js';
import { NETWORK_FAULTS, spoil } from '../helpers/bad-network.js';
import { eventually } from '../helpers/conditions.js';
import { poolOf } from '../helpers/connections.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures, seededRandom } from '../helpers/fault-run.js';
import { HistoryRecorder, rowsOf } from '../helpers/history-recorder.js';
import { checkHistory, type Answer, type History, type Violation } from '../helpers/history.js';
import { startProvider, type PaymentProvider } from '../helpers/provider.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import { createEffects, FAULT_ROUTES, startFaultApp, type FaultRoute } from './application.js';

/** How often each fault strikes at least. */
const ROUNDS = amount({ short: 1, full: 25 });
const TIMEOUT = amount({ short: 600_000, full: 900_000 });
const MODES = ['transaction', 'lease'] as const satisfies readonly FaultRoute[];

/** Short limits, so that what is stalled is given up soon, while it may still arrive. */
const LIMITS = { acquireTimeout: 400, maxDuration: 1_500, whenInProgress: { wait: 500 } };

describe.each(ADAPTERS)('a bad network between two instances and their database (%s)', (adapter) => {
  let database: TestDatabase;
  let provider: PaymentProvider;
  let proxy: TcpProxy;
  let apps: TestApp[];

  beforeAll(async () => {
    provider = await startProvider();
  });

  beforeEach(async () => {
    database = await createTestDatabase();
    await createEffects(database);
    proxy = await startDatabaseProxy(database.url);
    const databaseUrl = proxy.url(database.url);
    const options = { adapter, databaseUrl, poolSize: 6, providerUrl: provider.url, idempotency: LIMITS };
    apps = await Promise.all([startFaultApp(options), startFaultApp(options)]);
  });

  afterEach(async () => {
    await proxy.close();
    await Promise.all(apps.map((app) => app.close()));
    await database.drop();
  });

  afterAll(() => provider.close());

  const run = async (mode: FaultRoute, route: string, rounds: number): Promise<Outcome> => {
    const random = seededRandom(chooseSeed());
    const network = spoil(proxy, database, random.fork());
    const recorder = new HistoryRecorder();
    const urls = apps.map(({ url }) => `${url}/${route}`);
    const load: Load = { urls, network, recorder, random };
    await sendUntil(load, rounds).finally(() => network.heal());
    await settle(load);
    await noTransactionIsOpen();
    const charges = mode === 'lease' ? (key: string): number => provider.chargesFor(key) : undefined;
    const history = { mode, events: recorder.events, rows: await rowsOf(database, recorder.keys, charges) };
    const outcome = { history, strikes: network.strikes, violations: checkHistory(history) };
    printFigures(`bad network, ${route}, ${adapter}`, random.seed, figuresOf(outcome));
    return outcome;
  };

  /** A COMMIT that was held up may have arrived only now. */
  const noTransactionIsOpen = (): Promise<unknown> =>
    eventually(async () => {
      const open = await database.query(
        `SELECT FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`,
      );
      return open.length === 0;
    });

  it.each(MODES)(
    'leaves no effect twice, no answer that changes, and no key without one (%s)',
    async (mode) => {
      const { history, strikes, violations } = await run(mode, mode, ROUNDS);
      expect(violations).toEqual([]);
      for (const fault of NETWORK_FAULTS) expect([fault, strikes[fault]]).not.toEqual([fault, 0]);
      // What was rolled back is to be tried again, and says so.
      if (mode === 'transaction') {
        expect(answersOf(history).filter(({ status }) => status === 500)).toEqual([]);
      }
      // That the clients noticed the faults, and that duplicates met, is what the run is about.
      expect(answersOf(history).filter(({ status }) => status === 503).length).toBeGreaterThan(0);
      expect(answersOf(history).filter(({ replayed }) => replayed).length).toBeGreaterThan(0);
      expect(answersOf(history).filter(({ status }) => status === 422).length).toBeGreaterThan(0);
    },
    TIMEOUT,
  );

  it.each(MODES)(
    'has its effect more than once without protection, as the control shows (%s)',
    async (mode) => {
      for (const { app } of apps) outliveErrors(app.get(DataSource));
      const { violations } = await run(mode, FAULT_ROUTES[mode], 1);
      expect(violations.filter(({ kind }) => kind === 'effect-twice').length).toBeGreaterThan(0);
    },
    TIMEOUT,
  );
});

/**
 * TypeORM listens for errors of a connection only some time after the pool gave it out, and one that is ended in between
 * ends the process. The library's own connections are to be safe from that without help.
 */
function outliveErrors(dataSource: DataSource): void {
  poolOf(dataSource).on('connect', (client) => client.on('error', () => undefined));
}

interface Outcome {
  readonly history: History;
  readonly strikes: Readonly<Record<string, number>>;
  readonly violations: readonly Violation[];
}

function answersOf({ events }: History): Answer[] {
  return events.flatMap((event) =>
    event.type === 'completion' && event.answer !== 'unknown' ? [event.answer] : [],
  );
}

function figuresOf({ history, strikes, violations }: Outcome): Record<string, number | string> {
  const attempts = history.events.filter(({ type }) => type === 'invocation').length;
  const clients = new Set(
    history.events.flatMap((event) => (event.type === 'invocation' ? [event.process] : [])),
  );
  const answers = answersOf(history);
  const count = (holds: (answer: Answer) => boolean): number => answers.filter(holds).length;
  return {
    keys: history.rows.length,
    requests: attempts,
    retries: attempts - clients.size,
    effects: history.rows.reduce((sum, { effects, charges }) => sum + (charges ?? effects.length), 0),
    replays: count(({ replayed }) => replayed),
    refused: count(({ status }) => status === 422),
    'in progress': count(({ status }) => status === 409),
    unavailable: count(({ status }) => status === 503),
    errors: count(({ status }) => status === 500),
    lost: attempts - answers.length,
    violations: violations.length,
    faults: JSON.stringify(strikes),
  };
}
