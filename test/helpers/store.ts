import { Client, type Pool, type QueryResult } from 'pg';
import { DataSource, type EntitySubscriberInterface } from 'typeorm';
import type { IdempotencyFailure } from '../../lib/core/errors.js';
import { lockNumber, type Identity } from '../../lib/core/identity.js';
import type { RecordedResponse } from '../../lib/core/record.js';
import type { Claim, ClaimMode, ClaimOutcome, Execution, UnresolvedAttempt } from '../../lib/core/store.js';
import { TypeOrmHost } from '../../lib/join/typeorm/host.js';
import { inspectDatabase } from '../../lib/store/boot-checks.js';
import { PostgresStore } from '../../lib/store/postgres-store.js';
import type { Statements } from '../../lib/store/sql.js';
import { poolOf, untilIdle } from './connections.js';
import { createTestDatabase, type TestDatabase } from './database.js';
import { startDatabaseProxy, type TcpProxy } from './tcp-proxy.js';
import { PREPARED_STATEMENTS } from './prepared-statements.js';
import { countWire, type WireCount, type WireCounter } from './wire-count.js';

export const RESPONSE: RecordedResponse = {
  status: 201,
  headers: [
    ['x-one', '1'],
    ['x-gone', null],
  ],
  body: Buffer.from('made'),
};

export const TRANSACTION: ClaimMode = { kind: 'transaction', isolation: undefined, storesErrors: true };
export const LEASE: ClaimMode = { kind: 'lease', lease: 10_000 };

/** The identity of raw statements, and the number of its lock. */
export const IDENTITY = ['c', 'e', 'k'] as const;
export const LOCK = '7';
export const FINGERPRINT = Buffer.from('the same request');
export const OWNER = '00000000-0000-4000-8000-000000000001';
export const SOMEBODY_ELSE = '00000000-0000-4000-8000-000000000002';

/** A connection that is not back by then never comes back. */
const PATIENCE = { timeoutMs: 3_000 };

/** Columns of a row. Times are intervals from now. */
export interface Row {
  readonly client: string;
  readonly endpoint: string;
  readonly key: string;
  readonly status: string;
  readonly attempt: number;
  readonly token: string | null;
  readonly expires: string;
  readonly locked: string | null;
}

const ROW: Row = {
  client: 'c',
  endpoint: 'e',
  key: 'k',
  status: 'processing',
  attempt: 2,
  token: OWNER,
  expires: '1 hour',
  locked: '1 hour',
};

export interface TestStoreOptions {
  /** Default: a new one, with a table for notes. */
  readonly database?: TestDatabase;
  /** Default: that of the database, or of the proxy in front of it. */
  readonly url?: string;
  /** Puts {@link TestStore.proxy} before the database. Default: false. */
  readonly behindProxy?: boolean;
  readonly poolSize?: number;
  readonly acquireTimeout?: number;
  readonly subscribers?: (new () => EntitySubscriberInterface)[];
  /** Default: that of the run. */
  readonly preparedStatements?: boolean;
  /** Clients that cannot send several statements in one piece. Default: false. */
  readonly oneByOne?: boolean;
}

interface Parts {
  readonly database: TestDatabase;
  readonly dataSource: DataSource;
  readonly store: PostgresStore;
  readonly statements: Statements;
  readonly leave: () => void;
  readonly wire: { readonly proxy: TcpProxy; readonly counter: WireCounter } | undefined;
  readonly isOwner: boolean;
}

/** The store with its own pool and without HTTP: its answers, its rows, its wire. */
export class TestStore {
  readonly database: TestDatabase;
  readonly dataSource: DataSource;
  readonly statements: Statements;
  readonly #clients: Client[] = [];

  private constructor(private readonly parts: Parts) {
    ({ database: this.database, dataSource: this.dataSource, statements: this.statements } = parts);
  }

  static async start(options: TestStoreOptions = {}): Promise<TestStore> {
    const { poolSize = 4, acquireTimeout = 5_000, subscribers = [] } = options;
    const { preparedStatements = PREPARED_STATEMENTS, oneByOne = false } = options;
    const database = options.database ?? (await createNotes());
    const proxy = options.behindProxy ? await startDatabaseProxy(database.url) : undefined;
    const url = options.url ?? proxy?.url(database.url) ?? database.url;
    const extra = { pipeline: oneByOne };
    const dataSource = new DataSource({ type: 'postgres', url, poolSize, subscribers, extra });
    const wire = proxy && { proxy, counter: countWire(proxy) };
    await dataSource.initialize();
    const host = new TypeOrmHost(dataSource);
    const settings = { table: 'idempotency_records', schema: undefined, allowAsynchronousCommit: true };
    const { statements, defaultIsolation: isolation } = await inspectDatabase(host.pool, {
      ...settings,
      acquireTimeout,
    });
    const leave = host.join();
    const names = preparedStatements ? statements.names : undefined;
    const store = new PostgresStore({ host, pool: host.pool, statements, isolation, acquireTimeout, names });
    const isOwner = options.database === undefined;
    return new TestStore({ database, dataSource, store, statements, leave, wire, isOwner });
  }

  get proxy(): TcpProxy {
    return this.#wire.proxy;
  }

  /** The number of an identity's lock. */
  lockOf(identity: Identity = this.claimOf(LEASE).identity): string {
    return lockNumber(this.statements.table, identity);
  }

  get pool(): Pool {
    return poolOf(this.dataSource);
  }

  claimOf(mode: ClaimMode, facts: Partial<Claim> = {}): Claim {
    return {
      identity: { client: 'c', endpoint: 'e', key: 'k' },
      fingerprint: Buffer.of(1, 2),
      ttl: 60_000,
      maxDuration: 20_000,
      mode,
      ...facts,
    };
  }

  claim(mode: ClaimMode, facts: Partial<Claim> = {}): Promise<ClaimOutcome> {
    return this.parts.store.claim(this.claimOf(mode, facts));
  }

  claimAll(mode: ClaimMode, of: readonly Identity[]): Promise<ClaimOutcome[]> {
    return Promise.all(of.map((identity) => this.claim(mode, { identity })));
  }

  /** The execution of a claim that must succeed. */
  async execution(mode: ClaimMode, facts: Partial<Claim> = {}): Promise<Execution> {
    return executionOf(await this.claim(mode, facts));
  }

  /** Records a response for each identity, with {@link bodyOf} it. */
  async completeAll(mode: ClaimMode, of: readonly Identity[]): Promise<void> {
    for (const identity of of) {
      const execution = await this.execution(mode, { identity });
      await execution.complete({ ...RESPONSE, body: bodyOf(identity) }, 'returned');
    }
    await this.idle();
  }

  async note(text: string): Promise<void> {
    await this.dataSource.query('INSERT INTO notes VALUES ($1)', [text]);
  }

  /** Committed notes. */
  async notes(): Promise<string[]> {
    const rows = await this.database.query<{ text: string }>('SELECT text FROM notes ORDER BY text');
    return rows.map(({ text }) => text);
  }

  /** The only row of the table. */
  async row(): Promise<Record<string, unknown> | undefined> {
    const rows = await this.database.query(
      `SELECT *, extract(epoch FROM expires_at - completed_at)::int AS "secondsKept",
              locked_until <= clock_timestamp() AS lapsed
         FROM idempotency_records`,
    );
    return rows[0];
  }

  /** The row of {@link IDENTITY}, with some facts about its times. */
  async ownRow(facts = 'true'): Promise<Record<string, unknown> | undefined> {
    const rows = await this.database.query(
      `SELECT *, ${facts} FROM idempotency_records WHERE (client, endpoint, key) = ('c', 'e', 'k')`,
    );
    return rows[0];
  }

  /** Everything in the table but the row of {@link IDENTITY}. */
  neighbours(): Promise<unknown[]> {
    return this.database.query(
      `SELECT * FROM idempotency_records WHERE (client, endpoint, key) <> ('c', 'e', 'k') ORDER BY client, endpoint, key`,
    );
  }

  async insert(columns: Partial<Row> = {}): Promise<void> {
    const { client, endpoint, key, status, attempt, token, expires, locked } = { ...ROW, ...columns };
    await this.database.query(
      `INSERT INTO idempotency_records
         (client, endpoint, key, fingerprint, status, mode, format_version, response_status, response_headers,
          response_body, created_at, completed_at, attempt, owner_token, expires_at, locked_until)
       SELECT $1, $2, $3, $4, $5, 'lease', 1,
              CASE WHEN ended THEN 201 END, CASE WHEN ended THEN '[["x","1"]]'::json END, CASE WHEN ended THEN 'made'::bytea END,
              now() - interval '1 day', CASE WHEN ended THEN now() - interval '1 day' END, $6, $7, now() + $8::interval,
              now() + $9::interval
         FROM (SELECT $5 <> 'processing' AS ended) AS status`,
      [client, endpoint, key, FINGERPRINT, status, attempt, token, expires, locked],
    );
  }

  /** Inserts rows that differ from {@link IDENTITY} in one column each. */
  async insertNeighbours(columns: Partial<Row> = {}): Promise<void> {
    for (const column of ['client', 'endpoint', 'key'] as const) {
      await this.insert({ ...columns, [column]: 'another' });
    }
  }

  /** Moves the end of the attempt or of the record into the past. */
  async age(column: 'expires_at' | 'locked_until'): Promise<void> {
    await this.database.query(
      `UPDATE idempotency_records SET ${column} = clock_timestamp() - interval '1 second'`,
    );
  }

  /** Opens a connection for raw statements. Its timeout fails those that wait by mistake. */
  async connect(): Promise<Client> {
    const client = new Client({ connectionString: this.database.url });
    this.#clients.push(client);
    await client.connect();
    await client.query(`SET statement_timeout = '4s'`);
    return client;
  }

  /** Whether another connection gets {@link LOCK} now. */
  async isLockFree(kind: 'exclusive' | 'shared' = 'exclusive'): Promise<boolean> {
    const lock = kind === 'shared' ? 'pg_try_advisory_xact_lock_shared' : 'pg_try_advisory_xact_lock';
    const [row] = await this.database.query<{ free: boolean }>(`SELECT ${lock}($1::bigint) AS free`, [LOCK]);
    return row!.free;
  }

  async serverVersion(): Promise<number> {
    const [row] = await this.database.query<{ server_version_num: string }>('SHOW server_version_num');
    return Number(row!.server_version_num);
  }

  /** The settings that bound a transaction of the library's on this server. */
  async limits(): Promise<string[]> {
    return (await this.serverVersion()) >= 170_000
      ? ['transaction_timeout']
      : ['statement_timeout', 'idle_in_transaction_session_timeout'];
  }

  /** Counts what passes the proxy until the pool is idle. Not for work that loses a connection. */
  async costOf(work: () => Promise<unknown>): Promise<WireCount> {
    await this.idle();
    this.#wire.counter.take();
    await work();
    await this.idle();
    return this.#wire.counter.take();
  }

  drained(): Promise<void> {
    return this.parts.store.drained();
  }

  /** Resolves when the pool is idle and the server has no open transaction. */
  idle(): Promise<void> {
    return untilIdle(this.dataSource, this.database, PATIENCE);
  }

  /** Terminates every session that is in a transaction. */
  async cut(): Promise<void> {
    await this.database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`,
    );
  }

  async reset(): Promise<void> {
    for (const client of this.#clients) {
      await client.query('ROLLBACK');
      await client.query('SELECT pg_advisory_unlock_all()');
      await client.query('SET lock_timeout = 0');
    }
    await this.database.query('TRUNCATE idempotency_records, notes');
  }

  async close(): Promise<void> {
    const { store, leave, wire, isOwner } = this.parts;
    for (const client of this.#clients) await client.end();
    await store.close();
    leave();
    // A pool whose connections were not all given back never ends.
    if (this.pool.idleCount === this.pool.totalCount) await this.dataSource.destroy();
    await wire?.proxy.close();
    if (isOwner) await this.database.drop();
  }

  get #wire(): NonNullable<Parts['wire']> {
    if (!this.parts.wire) throw new Error('This store is not behind a proxy');
    return this.parts.wire;
  }
}

async function createNotes(): Promise<TestDatabase> {
  const database = await createTestDatabase();
  await database.query(
    'CREATE TABLE notes (text text, CONSTRAINT once UNIQUE (text) DEFERRABLE INITIALLY DEFERRED)',
  );
  return database;
}

/** What a session has set of all that may bound a transaction. */
export async function limitsOf(client: Client): Promise<Record<string, string>> {
  const { rows } = await client.query<{ name: string; setting: string }>(
    `SELECT name, setting FROM pg_settings WHERE name IN
       ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'lock_timeout')`,
  );
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
}

export function executionOf(outcome: ClaimOutcome): Execution {
  if (outcome.kind !== 'claimed') throw new Error(`expected a claim, not ${outcome.kind}`);
  return outcome.execution;
}

export function attemptOf(outcome: ClaimOutcome): UnresolvedAttempt {
  if (outcome.kind !== 'unresolved') throw new Error(`expected an unresolved attempt, not ${outcome.kind}`);
  return outcome.attempt;
}

/** Different identities, many of which share one part. */
export const identities = (count: number): [Identity, ...Identity[]] =>
  Array.from({ length: count }, (_, index) => ({
    client: `client-${index % 3}`,
    endpoint: `POST /things/${index % 2}`,
    key: `key-${Math.floor(index / 6)}`,
  })) as [Identity, ...Identity[]];

/** The body that {@link TestStore.completeAll} records for an identity. */
export function bodyOf({ client, endpoint, key }: Identity): Buffer {
  return Buffer.from(JSON.stringify([client, endpoint, key]));
}

/** Bodies of the records found, or the other outcomes as they are. */
export function bodiesOf(outcomes: readonly ClaimOutcome[]): unknown[] {
  return outcomes.map((outcome) => (outcome.kind === 'recorded' ? outcome.record.response?.body : outcome));
}

/** Resolves with the code of the failure, or undefined if there is none. */
export async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error as Partial<IdempotencyFailure>).error?.code ?? String(error),
  );
}

/** Resolves with the SQLSTATE of the failure, or undefined if there is none. */
export async function sqlStateOf(work: Promise<QueryResult>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error as { code?: string }).code,
  );
}
