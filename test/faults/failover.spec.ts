import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Pool } from 'pg';
import { idempotencyDdl } from '../../migrations/index.js';
import { ADAPTERS, type TestApp } from '../helpers/application.js';
import { isCommitAnswer } from '../helpers/commit-faults.js';
import { deferred, eventually } from '../helpers/conditions.js';
import type { TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures, seededRandom } from '../helpers/fault-run.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startProvider, type PaymentProvider } from '../helpers/provider.js';
import { expectProblem } from '../helpers/leases.js';
import { retryUntilAnswered } from '../helpers/retrying-client.js';
import { startReplicatedPostgres, type ReplicatedPostgres, type Replication } from '../helpers/standby.js';
import { startTcpProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import { createEffects, FAULT_ROUTES, startFaultApp, type FaultAnswer } from './application.js';

const CLIENTS = 6;
/** Every other client sends to the routes without protection: whatever strikes most clients strikes both kinds. */
const ROUTES = [Object.keys(FAULT_ROUTES), Object.values(FAULT_ROUTES)] as const;
const FAILOVERS = amount({ short: 1, full: 8 });

/** What a client was told about one key. */
interface Answered {
  readonly route: string;
  readonly key: string;
  readonly answer: HttpResponse;
  readonly attempts: number;
}

describe.each(ADAPTERS)('a standby that is promoted (%s)', (adapter) => {
  let servers: ReplicatedPostgres;
  let proxy: TcpProxy;
  let provider: PaymentProvider;
  let app: TestApp;
  let standby: Pool;
  const cleanUp: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    provider = await startProvider();
    cleanUp.push(() => provider.close());
  });

  afterEach(async () => {
    for (const step of cleanUp.splice(0).reverse()) await step();
  }, 600_000);

  /** The application reaches the servers by one address, which moves with the failover. */
  const start = async (replication: Replication, maxDuration = '60s'): Promise<void> => {
    servers = await startReplicatedPostgres(replication);
    cleanUp.push(() => servers.stop());
    const primary = new Pool({ connectionString: servers.primaryUrl, max: 1 });
    primary.on('error', () => undefined);
    await primary.query(idempotencyDdl().up);
    await createEffects({ query: (sql: string) => primary.query(sql) } as unknown as TestDatabase);
    await primary.end();
    standby = new Pool({ connectionString: servers.standbyUrl, max: 2 });
    // Its end is announced before its connections are closed: a server that is stopped then still tells them.
    standby.on('error', () => undefined);
    cleanUp.push(() => standby.end());
    proxy = await startTcpProxy(servers.primary);
    cleanUp.push(() => proxy.close());
    app = await startFaultApp({
      adapter,
      databaseUrl: proxy.url(servers.primaryUrl),
      poolSize: 2 * CLIENTS,
      providerUrl: provider.url,
      idempotency: { acquireTimeout: 1_000, maxDuration },
    });
    cleanUp.push(() => app.close());
  };

  const failOver = async (): Promise<void> => {
    await servers.killPrimary();
    proxy.refuse();
    proxy.cut();
    await servers.promote();
    proxy.repoint(servers.standby);
    proxy.refuse(false);
  };

  it('answers that it is unavailable while it is reached before that, and runs from then on', async () => {
    await start('asynchronous');
    // As after a switchover that clients hear of late: what they reach cannot be written to.
    await servers.killPrimary();
    proxy.cut();
    proxy.repoint(servers.standby);
    const headers = { 'Idempotency-Key': 'early' };
    const send = (): Promise<HttpResponse> => postJson(`${app.url}/transaction`, {}, headers);
    await eventually(async () => {
      const answer = await send();
      expectProblem(answer, 503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
      return (await send()).status === 503;
    });
    await servers.promote();
    const answer = await eventually(async () => {
      const retry = await send();
      return retry.status === 201 && retry;
    });
    expect(answer.headers['idempotency-replayed']).toBeUndefined();
  });

  /** From now on nobody hears of a COMMIT; resolves with how to find out how many have happened unheard. */
  const holdAcknowledgements = (): { readonly held: () => number; readonly release: () => void } => {
    const gate = deferred();
    let held = 0;
    const remove = proxy.onServerData(async (chunk) => {
      if (!isCommitAnswer(chunk)) return 'forward';
      held++;
      await gate.promise;
      return 'drop';
    });
    return {
      held: () => held,
      release: () => {
        remove();
        gate.resolve();
      },
    };
  };

  const effects = async (): Promise<Map<string, string[]>> => {
    const { rows } = await standby.query<{ key: string; nonces: string[] }>(
      'SELECT key, array_agg(nonce) AS nonces FROM effects GROUP BY key',
    );
    return new Map(rows.map(({ key, nonces }) => [key, nonces]));
  };

  const isReplicated = async (key: string): Promise<boolean> =>
    (
      await standby.query('SELECT FROM idempotency_records WHERE key = $1 AND completed_at IS NOT NULL', [
        key,
      ])
    ).rowCount === 1;

  it.each(Array.from({ length: FAILOVERS }, (_, round) => round))(
    'synchronously loses nothing that was acknowledged, and repeats nothing (failover %d)',
    async (round) => {
      const random = seededRandom(chooseSeed() + round);
      await start('synchronous');
      const answered: Answered[] = [];
      let isOver = false;
      const client = async (name: number): Promise<void> => {
        const own = random.fork();
        for (let count = 0; !isOver; count++) {
          const route = own.pick(ROUTES[name % 2 === 0 ? 0 : 1]);
          const key = `${route}-${name}-${count}`;
          const { answer, attempts } = await retryUntilAnswered(`${app.url}/${route}`, {
            key,
            timeoutMs: 60_000,
          });
          answered.push({ route, key, answer, attempts });
        }
      };
      const clients = Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
      clients.catch(() => undefined);
      const [before, after] = [40 + random.below(40), 40];
      await eventually(() => answered.length >= before, { timeoutMs: 60_000 });
      // The machine dies when several commits have happened of which nobody has heard, as machines do under load.
      const acknowledgements = holdAcknowledgements();
      await eventually(() => acknowledgements.held() >= CLIENTS - 1, { timeoutMs: 30_000 });
      await failOver();
      acknowledgements.release();
      const atFailover = answered.length;
      await eventually(() => answered.length >= atFailover + after, { timeoutMs: 90_000 });
      isOver = true;
      await clients;

      const done = await effects();
      const isProtected = ({ route }: Answered): boolean => route in FAULT_ROUTES;
      const [ours, controls] = [answered.filter(isProtected), answered.filter((one) => !isProtected(one))];
      const violations: string[] = [];
      for (const { key, route, answer } of ours) {
        const { nonce } = answer.json() as FaultAnswer;
        if (answer.status !== 201) violations.push(`${key}: ${answer.status}`);
        const nonces = done.get(key) ?? [];
        // What happens once in lease mode is the charge; rows of an attempt with an unknown outcome stay.
        const times = route === 'lease' ? provider.chargesFor(key) : nonces.length;
        if (times !== 1 || !nonces.includes(nonce)) violations.push(`${key}: ${times} effects`);
        const replay = await postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });
        if (!replay.body.equals(answer.body)) violations.push(`${key}: another answer`);
        if (replay.headers['idempotency-replayed'] !== 'true') violations.push(`${key}: ran again`);
      }
      const duplicates = controls.filter(
        ({ key, route }) =>
          (done.get(key)?.length ?? 0) > 1 || (route === 'unprotected-lease' && provider.chargesFor(key) > 1),
      );
      printFigures(`failover to a synchronous standby (${adapter})`, random.seed, {
        requests: answered.reduce((sum, { attempts }) => sum + attempts, 0),
        acknowledged: answered.length,
        retries: answered.reduce((sum, { attempts }) => sum + attempts - 1, 0),
        'unheard commits': acknowledgements.held(),
        effects: [...done.values()].flat().length,
        violations: violations.length,
        'duplicates without protection': duplicates.length,
      });
      expect(violations).toEqual([]);
      expect(ours.some(({ attempts }) => attempts > 1)).toBe(true);
      expect(duplicates.length).toBeGreaterThan(0);
    },
    240_000,
  );

  it.each(['transaction', 'lease'])(
    'asynchronously takes an acknowledged answer with it when it is behind, and the retry runs again (%s)',
    async (route) => {
      await start('asynchronous');
      const send = (key: string): Promise<HttpResponse> =>
        postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': key });
      const kept = await send('kept');
      await eventually(() => isReplicated('kept'));
      servers.replication.pause();
      const lost = await send('lost');
      expect(lost.status).toBe(201);
      await failOver();
      const retry = async (key: string): Promise<HttpResponse> =>
        (await retryUntilAnswered(`${app.url}/${route}`, { key })).answer;
      expect((await retry('kept')).body).toEqual(kept.body);
      const again = await retry('lost');
      expect(again.headers['idempotency-replayed']).toBeUndefined();
      expect((again.json() as FaultAnswer).nonce).not.toBe((lost.json() as FaultAnswer).nonce);
      // What happened outside has not been forgotten: the derived key is the same.
      if (route === 'lease') expect(provider.chargesFor('lost')).toBe(1);
    },
    120_000,
  );

  it('synchronously is waited for: what it does not have is neither answered nor replayed', async () => {
    await start('synchronous', '2s');
    const send = (): Promise<HttpResponse> =>
      postJson(`${app.url}/transaction`, {}, { 'Idempotency-Key': 'unreplicated' });
    servers.replication.pause();
    const first = await send();
    expectProblem(first, 503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
    // It is committed on the primary, which shows it to nobody before the standby has it.
    const second = await send();
    expect([second.status, second.headers['idempotency-replayed']]).toEqual([409, undefined]);
    await failOver();
    const { answer } = await retryUntilAnswered(`${app.url}/transaction`, { key: 'unreplicated' });
    expect(answer.status).toBe(201);
    expect((await effects()).get('unreplicated')).toEqual([(answer.json() as FaultAnswer).nonce]);
  }, 600_000);
});
