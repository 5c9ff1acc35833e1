import type { INestApplication } from '@nestjs/common';
import { createSampleApp } from '../../sample-app/create-sample-app.js';
import type { AdapterName } from '../../sample-app/settings.js';
import { withClient } from '../helpers/admin.js';
import { deferred, eventually } from '../helpers/conditions.js';
import type { TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest, startRequest } from '../helpers/http.js';
import type { HttpRequestInFlight, HttpResponse } from '../helpers/http.js';

/** What a client authenticates with. */
export interface Credentials {
  readonly 'X-API-Key': string;
  readonly 'X-API-Secret': string;
}

export const CLIENT: Credentials = {
  'X-API-Key': 'sk_live_abc123def456',
  'X-API-Secret': 'your-secret-here',
};
export const OTHER_CLIENT: Credentials = {
  'X-API-Key': 'sk_live_zyx987wvu654',
  'X-API-Secret': 'other-secret-here',
};

/** Costs 500.00. */
export const ORDER = { product_id: 123, denomination: 100, quantity: 5 };
export const PAYOUT = { amount: '25.00' };

/** The endpoints that need a key, each with a valid body. */
export const ENDPOINTS = [
  ['orders', ORDER],
  ['payouts', PAYOUT],
] as const;

/** Calls the API as a client that knows nothing of the implementation. */
export class RewardsClient {
  constructor(
    private readonly base: string,
    private readonly credentials: object = CLIENT,
  ) {}

  get(resource: string): Promise<HttpResponse> {
    return sendRequest(`${this.base}/api/v1/${resource}`, { headers: { ...this.credentials } });
  }

  /** Without a key, the header is left out. */
  post(resource: string, body: unknown, key?: string): Promise<HttpResponse> {
    return postJson(`${this.base}/api/v1/${resource}`, body, this.headers(key));
  }

  /** As `post`, for callers that break off. */
  startPost(resource: string, body: unknown, key: string): HttpRequestInFlight {
    const headers = { ...this.headers(key), 'Content-Type': 'application/json' };
    return startRequest(`${this.base}/api/v1/${resource}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    });
  }

  as(credentials: object): RewardsClient {
    return new RewardsClient(this.base, credentials);
  }

  private headers(key: string | undefined): Record<string, string> {
    return { ...this.credentials, ...(key === undefined ? {} : { 'Idempotency-Key': key }) };
  }
}

/** A running instance of the sample application. */
export interface RunningRewards {
  readonly app: INestApplication;
  readonly client: RewardsClient;
}

/** Starts an instance, which brings all tables itself. */
export async function startRewards(adapter: AdapterName, databaseUrl: string): Promise<RunningRewards> {
  // Nest warns that two instances in one process have data sources of the same name.
  const app = await createSampleApp({ databaseUrl, adapter, logger: ['error'] });
  await app.listen(0, '127.0.0.1');
  return { app, client: new RewardsClient(await app.getUrl()) };
}

/** As after the first start. */
export async function resetRewards(database: TestDatabase): Promise<void> {
  await database.query('TRUNCATE orders, payouts, idempotency_records');
  await database.query(`UPDATE wallets SET balance = '10000.00'`);
}

/** Everything that requests of the first client and their records have left in the database. */
export interface Traces {
  readonly orders: number;
  readonly payouts: number;
  readonly balance: string;
  readonly records: number;
}

export const NO_TRACES: Traces = { orders: 0, payouts: 0, balance: '10000.00', records: 0 };

export async function traces(database: TestDatabase): Promise<Traces> {
  const [row] = await database.query<Traces>(
    `SELECT (SELECT count(*)::int FROM orders) AS orders, (SELECT count(*)::int FROM payouts) AS payouts,
            (SELECT balance FROM wallets JOIN api_clients ON client_id = id WHERE api_key = $1) AS balance,
            (SELECT count(*)::int FROM idempotency_records) AS records`,
    [CLIENT['X-API-Key']],
  );
  return row!;
}

/** Wallets that nobody can charge at the moment. */
export interface HeldWallets {
  /** Resolves when so many requests have created their row and wait for a wallet. */
  awaited(requests?: number): Promise<void>;
  /** Lets them go on. May be called twice. */
  release(): Promise<void>;
}

/** Locks the wallets, so that requests stop in the middle of their handler. */
export async function holdWallets(database: TestDatabase): Promise<HeldWallets> {
  const held = deferred();
  const gate = deferred();
  const holding = withClient(database.url, async (client) => {
    await client.query('BEGIN');
    await client.query('SELECT FROM wallets FOR UPDATE');
    held.resolve();
    await gate.promise;
    await client.query('COMMIT');
  });
  await Promise.race([held.promise, holding]);
  return {
    awaited: async (requests = 1) => {
      await eventually(async () => {
        const [row] = await database.query<{ waiting: number }>(
          `SELECT count(*)::int AS waiting FROM pg_stat_activity
           WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE "wallets"%'`,
        );
        return row?.waiting === requests;
      });
    },
    release: async () => {
      gate.resolve();
      await holding;
    },
  };
}
