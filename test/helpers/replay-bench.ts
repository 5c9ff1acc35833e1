import type { Pool } from 'pg';
import type { Identity } from '../../lib/core/identity.js';
import type { Claim, ClaimMode, ClaimOutcome } from '../../lib/core/store.js';
import { RESPONSE, StoreBench, type StoreBenchOptions } from './store-bench.js';
import { deferred } from './conditions.js';
import { startDatabaseProxy, type ProxiedConnection, type TcpProxy } from './tcp-proxy.js';
import { countWire, type WireCount, type WireCounter } from './wire-count.js';

/** Identities, of which no two share all three parts and many share one. */
export const identities = (count: number): [Identity, ...Identity[]] =>
  Array.from({ length: count }, (_, index) => ({
    client: `client-${index % 3}`,
    endpoint: `POST /things/${index % 2}`,
    key: `key-${Math.floor(index / 6)}`,
  })) as [Identity, ...Identity[]];

/** A store behind a proxy, with records of its own of which each tells whose it is. */
export class ReplayBench {
  private constructor(
    readonly store: StoreBench,
    readonly proxy: TcpProxy,
    private readonly wire: WireCounter,
    private readonly mode: ClaimMode,
  ) {}

  static async start(mode: ClaimMode, options: StoreBenchOptions = {}): Promise<ReplayBench> {
    const direct = await StoreBench.start();
    await direct.dataSource.destroy();
    const proxy = await startDatabaseProxy(direct.database.url);
    const wire = countWire(proxy);
    const store = await StoreBench.on(direct.database, { url: proxy.url(direct.database.url), ...options });
    return new ReplayBench(store, proxy, wire, mode);
  }

  /** By this process. */
  async complete(of: readonly Identity[]): Promise<void> {
    for (const identity of of) {
      const execution = await this.store.execution(this.mode, { identity });
      await execution.complete({ ...RESPONSE, body: bodyOf(identity) }, 'returned');
    }
    await this.store.idle();
  }

  claim(identity: Identity, facts: Partial<Claim> = {}): Promise<ClaimOutcome> {
    return this.store.claim(this.mode, { identity, ...facts });
  }

  claimAll(of: readonly Identity[]): Promise<ClaimOutcome[]> {
    return Promise.all(of.map((identity) => this.claim(identity)));
  }

  /** What passes while that is done, and until everything is back. Not where a connection was lost before. */
  async costOf(work: () => Promise<unknown>): Promise<WireCount> {
    await this.store.idle();
    this.wire.take();
    await work();
    await this.store.idle();
    return this.wire.take();
  }

  get pool(): Pool {
    return (this.store.dataSource.driver as unknown as { master: Pool }).master;
  }

  async close(): Promise<void> {
    await this.store.close();
    await this.proxy.close();
    await this.store.database.drop();
  }
}

/** The body that is recorded for it. */
export function bodyOf({ client, endpoint, key }: Identity): Buffer {
  return Buffer.from(JSON.stringify([client, endpoint, key]));
}

/** The bodies of the records that were found, or what was found in their place. */
export function bodiesOf(outcomes: readonly ClaimOutcome[]): unknown[] {
  return outcomes.map((outcome) => (outcome.kind === 'recorded' ? outcome.record.response?.body : outcome));
}

/** Holds back what is sent next, and everything behind it on that connection, until it is let go. */
export function holdNext(proxy: TcpProxy): { readonly held: Promise<void>; readonly letGo: () => void } {
  const [held, go] = [deferred(), deferred()];
  let first: ProxiedConnection | undefined;
  const stop = proxy.onClientData(async (_chunk, connection): Promise<undefined> => {
    first ??= connection;
    held.resolve();
    if (connection === first) await go.promise;
  });
  const letGo = (): void => {
    stop();
    go.resolve();
  };
  return { held: held.promise, letGo };
}
