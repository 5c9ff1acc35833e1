import { execFile, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  CLIENT,
  ORDER,
  ORDERS,
  PAYOUTS,
  resetRewards,
  RewardsClient,
  startRewards,
  traces,
  type RunningRewards,
} from '../e2e/rewards.fixture.js';
import { withClient } from '../helpers/admin.js';
import { ADAPTERS } from '../helpers/application.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures, seededRandom, type Random } from '../helpers/fault-run.js';
import { startTcpProxy, type ProxiedConnection } from '../helpers/tcp-proxy.js';

const CLIENTS = new URL('../../sample-app/clients/', import.meta.url);

/** The loops, as users of an API write them: they know nothing of what answers them. */
const LOOPS = [
  ['retry.sh', 'bash', fileURLToPath(new URL('retry.sh', CLIENTS))],
  ['retry.mjs', process.execPath, fileURLToPath(new URL('retry.mjs', CLIENTS))],
] as const;

const HEADERS = Object.entries(CLIENT).map(([name, value]) => `${name}: ${value}`);
const CHARGES = '/charges';

/** What becomes of one attempt: its request or its response is lost, or nothing comes back and nobody says why. */
type Fault = 'request' | 'response' | 'silence';
const FAULTS: readonly Fault[] = ['request', 'response', 'response', 'silence'];

/** One thing that a loop is asked to do. */
interface Errand {
  readonly path: string;
  readonly body: object;
  /** Empty: none is sent. */
  readonly key: string;
  readonly faults: readonly Fault[];
  /** Settings of the loop, in addition to those of the run. */
  readonly settings?: Readonly<Record<string, string>>;
}

interface Ran {
  readonly exitCode: number;
  /** What it printed, without the line feed after it. */
  readonly printed: string;
  readonly complaint: string;
}

/** What was seen on the way between loops and application. */
interface Seen {
  attempts: number;
  lostRequests: number;
  lostResponses: number;
  refusals: number;
  replays: number;
}

const missing = ['bash', 'curl'].filter((tool) => spawnSync(tool, ['--version']).error !== undefined);

if (missing.length > 0) {
  it(`needs ${missing.join(' and ')}, and there is none`, () => {
    process.stdout.write(`The retry loops were not tested: install ${missing.join(' and ')}.\n`);
    // In CI they are installed, so that nothing stays untested there.
    expect(process.env['CI']).toBeUndefined();
  });
} else {
  describe.each(ADAPTERS)('retry loops against the sample application on %s', (adapter) => {
    const errands = amount({ short: 3, full: 40 });
    let database: TestDatabase;
    let rewards: RunningRewards;
    let seen: Seen;

    beforeAll(async () => {
      database = await createEmptyDatabase();
      rewards = await startRewards(adapter, database.url);
      // Every so often the transaction of a request is refused when it is about to end. A sequence is not rolled back.
      await database.query('CREATE SEQUENCE completions');
      await database.query(
        `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             IF nextval('completions') % 4 = 0 THEN RAISE 'refused' USING ERRCODE = '40001'; END IF;
             RETURN NEW;
           END $$`,
      );
      await database.query(
        `CREATE TRIGGER refuse BEFORE UPDATE ON idempotency_records FOR EACH ROW EXECUTE FUNCTION refuse()`,
      );
    });

    beforeEach(async () => {
      await resetRewards(database);
      await database.query('TRUNCATE charges');
      seen = { attempts: 0, lostRequests: 0, lostResponses: 0, refusals: 0, replays: 0 };
    });

    afterAll(async () => {
      await rewards.app.close();
      await database.drop();
    });

    /** A network of its own for each errand, so that its faults are the same whatever happens to others. */
    async function startNetwork(
      faults: readonly Fault[],
    ): Promise<Awaited<ReturnType<typeof startTcpProxy>>> {
      const { hostname, port } = new URL(rewards.url);
      const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
      const left = [...faults];
      const now = new Map<ProxiedConnection, Fault>();
      proxy.onClientData((chunk, connection) => {
        if (chunk.toString('latin1', 0, 5) === 'POST ') {
          seen.attempts++;
          const fault = left.shift();
          if (fault === undefined) now.delete(connection);
          else now.set(connection, fault);
        }
        if (now.get(connection) !== 'request') return 'forward';
        seen.lostRequests++;
        return 'cut-before';
      });
      proxy.onServerData((chunk, connection) => {
        const text = chunk.toString('latin1');
        const fault = now.get(connection);
        if (text.startsWith('HTTP/1.1 5')) seen.refusals++;
        if (fault !== undefined) seen.lostResponses++;
        else if (/^idempotency-replayed: true\r$/im.test(text)) seen.replays++;
        return fault === undefined ? 'forward' : fault === 'silence' ? 'drop' : 'cut-before';
      });
      return proxy;
    }

    async function run(command: string, script: string, errand: Errand): Promise<Ran> {
      const network = await startNetwork(errand.faults);
      const url = `http://127.0.0.1:${network.port}${errand.path}`;
      const settings = { ATTEMPTS: '20', TIMEOUT: '1.5', DELAY: '20', NODE_OPTIONS: '', ...errand.settings };
      try {
        return await new Promise<Ran>((resolve) => {
          execFile(
            command,
            [script, url, JSON.stringify(errand.body), errand.key, ...HEADERS],
            { env: { ...process.env, ...settings } },
            (error, stdout, complaint) => {
              const exitCode = error === null ? 0 : Number(error.code);
              resolve({ exitCode, printed: stdout.replace(/\n$/, ''), complaint });
            },
          );
        });
      } finally {
        await network.close();
      }
    }

    /** A few at a time: each is a process. */
    async function runAll(
      [, command, script]: (typeof LOOPS)[number],
      list: readonly Errand[],
    ): Promise<readonly Ran[]> {
      const ran: Ran[] = [];
      const waiting = [...list.entries()];
      const worker = async (): Promise<void> => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          ran[next[0]] = await run(command, script, next[1]);
        }
      };
      await Promise.all(Array.from({ length: 3 }, worker));
      return ran;
    }

    /** At least one response is lost, in the first errand; some errands lose several attempts of each kind. */
    function plan(random: Random, errand: () => Omit<Errand, 'faults'>): Errand[] {
      return Array.from({ length: errands }, (_, index) => {
        const own = random.fork();
        const faults = Array.from({ length: 1 + own.below(3) }, () => own.pick(FAULTS));
        return { ...errand(), faults: index === 0 ? ['response', ...faults] : faults };
      });
    }

    /** The body that was recorded under the key; there is one record of it. */
    async function recorded(key: string): Promise<string> {
      const rows = await database.query<{ body: string }>(
        `SELECT convert_from(response_body, 'UTF8') AS body FROM idempotency_records WHERE key = $1`,
        [key],
      );
      expect(rows).toHaveLength(1);
      return rows[0]!.body;
    }

    const charges = async (ref: string): Promise<unknown[]> =>
      (await rewards.client.get(`${CHARGES}?ref=${ref}`)).json() as unknown[];

    const CHARGE_SETTINGS = { RETRY_ON: '409|5..' };

    describe.each(LOOPS)('%s', (...loop) => {
      const [name] = loop;

      it('takes effect once, and prints the recorded answer', async () => {
        const seed = chooseSeed();
        const random = seededRandom(seed);
        const orders = plan(random, () => ({
          path: ORDERS,
          body: { ...ORDER, denomination: 25, quantity: 1 },
          key: `order-${randomUUID()}`,
        }));
        const payouts = plan(random, () => ({
          path: PAYOUTS,
          body: { amount: '25.00' },
          key: `payout-${randomUUID()}`,
        }));
        const charged = plan(random, () => ({
          path: CHARGES,
          body: { amount: 4200, ref: `inv_${randomUUID()}` },
          key: randomUUID(),
          settings: CHARGE_SETTINGS,
        }));
        const all = [...orders, ...payouts, ...charged];
        const ran = await runAll(loop, all);
        const left = await traces(database);
        const taken = (10_000 - Number(left.balance)) / 25;
        printFigures(`${name} on ${adapter}`, seed, { errands: all.length, ...seen, effects: taken });

        for (const [index, { key }] of all.entries()) {
          expect(ran[index]).toMatchObject({ exitCode: 0, printed: await recorded(key) });
        }
        const balance = (10_000 - 25 * 2 * errands).toFixed(2);
        expect(left).toEqual({ orders: errands, payouts: errands, balance, records: all.length });
        for (const [index, { body }] of charged.entries()) {
          const { printed } = ran[2 * errands + index]!;
          expect(await charges((body as { ref: string }).ref)).toEqual([JSON.parse(printed)]);
        }
        expect(seen.lostResponses).toBeGreaterThan(0);
        expect(seen.replays).toBeGreaterThan(0);
      }, 600_000);

      it('control: without a key it charges more than once under the same faults', async () => {
        const seed = chooseSeed();
        const list = plan(seededRandom(seed), () => ({
          path: CHARGES,
          body: { amount: 4200, ref: `inv_${randomUUID()}` },
          key: '',
          settings: CHARGE_SETTINGS,
        }));
        const ran = await runAll(loop, list);
        let duplicates = 0;
        for (const [index, { body }] of list.entries()) {
          const made = await charges((body as { ref: string }).ref);
          expect(made).toContainEqual(JSON.parse(ran[index]!.printed));
          duplicates += made.length - 1;
        }
        const figures = { errands: list.length, ...seen, duplicates };
        printFigures(`${name} on ${adapter}, without a key`, seed, figures);
        expect(duplicates).toBeGreaterThan(0);
      }, 600_000);

      it('takes a refusal for final, and prints the recorded one', async () => {
        const [, command, script] = loop;
        const key = `order-${randomUUID()}`;
        const body = { ...ORDER, quantity: 1_000 };
        const ran = await run(command, script, { path: ORDERS, body, key, faults: ['response'] });
        expect(ran).toMatchObject({ exitCode: 1, printed: await recorded(key) });
        expect(JSON.parse(ran.printed)).toMatchObject({ statusCode: 402 });
        expect(await traces(database)).toMatchObject({ orders: 0, balance: '10000.00', records: 1 });
      });

      it('waits for a charge that is in progress if it is told to, and gives up otherwise', async () => {
        const [, command, script] = loop;
        const key = randomUUID();
        const body = { amount: 4200, ref: `inv_${key}` };
        const [locked, gate] = [deferred(), deferred()];
        const locking = withClient(database.url, async (client) => {
          await client.query('BEGIN');
          await client.query('LOCK TABLE charges IN EXCLUSIVE MODE');
          locked.resolve();
          await gate.promise;
          await client.query('COMMIT');
        });
        await locked.promise;
        const original = new RewardsClient(rewards.url).startPost(CHARGES, body, key);
        try {
          await eventually(async () => {
            const blocked = await database.query(
              `SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO "charges"%'`,
            );
            return blocked.length === 1;
          });
          const errand = { path: CHARGES, body, key, faults: [] };
          const patient = run(command, script, {
            ...errand,
            settings: { ...CHARGE_SETTINGS, TIMEOUT: '20' },
          });
          const impatient = await run(command, script, { ...errand, settings: { TIMEOUT: '20' } });
          expect(impatient.exitCode).toBe(1);
          expect(JSON.parse(impatient.printed)).toMatchObject({ code: 'IDEMPOTENCY_IN_PROGRESS' });
          gate.resolve();
          await original.response;
          const { exitCode, printed } = await patient;
          expect({ exitCode, printed }).toEqual({ exitCode: 0, printed: await recorded(key) });
          expect(await charges(body.ref)).toHaveLength(1);
        } finally {
          gate.resolve();
          await locking;
        }
      }, 600_000);
    });
  });
}
