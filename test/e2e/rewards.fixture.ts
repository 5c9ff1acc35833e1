import type { INestApplication, LogLevel } from '@nestjs/common';
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

export const ORDERS = '/api/v1/orders';
export const PAYOUTS = '/api/v1/payouts';
export const WALLET = '/api/v1/wallet';
export const PORTAL_ORDERS = '/client/api/orders';
export const PORTAL_PAYOUTS = '/client/api/payouts';
export const CART = '/client/api/cart';
export const CHECKOUT = '/client/api/cart/checkout';

/** Costs 500.00. */
export const ORDER = { product_id: 123, denomination: 100, quantity: 5 };
export const PAYOUT = { amount: '25.00' };
/** What is in each cart at first; costs 100.00. */
export const CART_ITEMS = [
  { product_id: 123, denomination: 25, quantity: 2 },
  { product_id: 123, denomination: 50, quantity: 1 },
];
const TOO_DEAR = { ...ORDER, quantity: 101 };

const ORDERING = {
  body: ORDER,
  other: { ...ORDER, quantity: 6 },
  tooDear: TOO_DEAR,
  effect: { orders: 1, payouts: 0, balance: '9500.00' },
};
const PAYING_OUT = {
  body: PAYOUT,
  other: { amount: '26.00' },
  tooDear: { amount: '10000.01' },
  effect: { orders: 0, payouts: 1, balance: '9975.00' },
};

/**
 * The endpoints that need a key, each with a valid body, another one, one that the wallet cannot pay, and what the first
 * leaves behind.
 */
export const ENDPOINTS = [
  { path: ORDERS, ...ORDERING },
  { path: PAYOUTS, ...PAYING_OUT },
  { path: PORTAL_ORDERS, ...ORDERING },
  { path: PORTAL_PAYOUTS, ...PAYING_OUT },
  {
    path: CHECKOUT,
    body: { items: CART_ITEMS },
    other: { items: CART_ITEMS.slice(1) },
    tooDear: { items: [...CART_ITEMS, TOO_DEAR] },
    effect: { orders: 2, payouts: 0, balance: '9900.00' },
  },
] as const;

/** Calls the API as a client that knows nothing of the implementation. */
export class RewardsClient {
  constructor(
    private readonly base: string,
    private readonly credentials: object = CLIENT,
  ) {}

  get(path: string, headers: object = {}): Promise<HttpResponse> {
    return sendRequest(`${this.base}${path}`, { headers: { ...this.credentials, ...headers } });
  }

  /** Without a key, the header is left out. */
  post(path: string, body: unknown, key?: string): Promise<HttpResponse> {
    return postJson(`${this.base}${path}`, body, this.headers(key));
  }

  put(path: string, body: unknown): Promise<HttpResponse> {
    return postJson(`${this.base}${path}`, body, this.headers(undefined), { method: 'PUT' });
  }

  /** As `post`, for callers that break off. */
  startPost(path: string, body: unknown, key: string): HttpRequestInFlight {
    const headers = { ...this.headers(key), 'Content-Type': 'application/json' };
    return startRequest(`${this.base}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
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
  readonly url: string;
  readonly client: RewardsClient;
}

/** Starts an instance, which brings all tables itself. */
export async function startRewards(adapter: AdapterName, databaseUrl: string): Promise<RunningRewards> {
  // Tests provoke errors on purpose, and Nest warns of two data sources of the same name in one process.
  const logger: LogLevel[] | false = process.env['TEST_LOG'] ? ['error'] : false;
  const app = await createSampleApp({ databaseUrl, adapter, logger });
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  return { app, url, client: new RewardsClient(url) };
}

/** As after the first start. */
export async function resetRewards(database: TestDatabase): Promise<void> {
  await database.query('TRUNCATE orders, payouts, cart_items, idempotency_records');
  await database.query(`UPDATE wallets SET balance = '10000.00'`);
  await database.query(
    `INSERT INTO cart_items (client_id, product_id, denomination, quantity)
     SELECT id, product_id, denomination, quantity
       FROM api_clients, json_to_recordset($1) AS item (product_id int, denomination int, quantity int)`,
    [JSON.stringify(CART_ITEMS)],
  );
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

/** What takes money out of a wallet. */
const CHARGING = 'UPDATE "wallets"';

/** Wallets that nobody can charge at the moment. */
export interface HeldWallets {
  /** Resolves when a request has created its row and waits for a wallet. */
  awaited(): Promise<void>;
  /** Resolves when a statement that begins so waits for a lock. */
  blocked(statement: string): Promise<void>;
  /** Ends the database connection of the request that waits. */
  breakWaiting(): Promise<void>;
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
  const blocked = async (statement: string): Promise<void> => {
    await eventually(async () => (await backendsBlockedIn(statement)).length > 0);
  };
  const backendsBlockedIn = (statement: string): Promise<{ pid: number }[]> =>
    database.query(
      `SELECT pid FROM pg_stat_activity
       WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)`,
      [statement],
    );
  return {
    awaited: () => blocked(CHARGING),
    blocked,
    breakWaiting: async () => {
      for (const { pid } of await backendsBlockedIn(CHARGING)) {
        await database.query('SELECT pg_terminate_backend($1)', [pid]);
      }
    },
    release: async () => {
      gate.resolve();
      await holding;
    },
  };
}
