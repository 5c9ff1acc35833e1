import { Client, type QueryResult } from 'pg';
import { statementsFor, type Statements } from '../../lib/postgres/statements.js';
import { withClient } from './admin.js';
import { createTestDatabase, type TestDatabase } from './database.js';

/** The identity the statements are asked about, and the number of its lock. */
export const IDENTITY = ['c', 'e', 'k'] as const;
export const LOCK = '7';
export const FINGERPRINT = Buffer.from('the same request');
export const OWNER = '00000000-0000-4000-8000-000000000001';
export const SOMEBODY_ELSE = '00000000-0000-4000-8000-000000000002';

/** A row's columns; of times how far they are from now. */
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

/** Two connections, and what they find in the table. */
export class StatementBench {
  private constructor(
    readonly database: TestDatabase,
    readonly statements: Statements,
    readonly serverVersion: number,
    readonly one: Client,
    readonly other: Client,
  ) {}

  static async start(): Promise<StatementBench> {
    const database = await createTestDatabase();
    const version = await withClient(database.url, (client) => client.query('SHOW server_version_num'));
    const serverVersion = Number(version.rows[0].server_version_num);
    const statements = statementsFor('idempotency_records', undefined, serverVersion);
    const clients = [];
    for (let count = 0; count < 2; count++) {
      const client = new Client({ connectionString: database.url });
      await client.connect();
      // Nothing here has to wait; what does so by mistake fails.
      await client.query(`SET statement_timeout = '4s'`);
      clients.push(client);
    }
    const [one, other] = clients as [Client, Client];
    return new StatementBench(database, statements, serverVersion, one, other);
  }

  async insert(columns: Partial<Row> = {}): Promise<void> {
    const row = { ...ROW, ...columns };
    await this.database.query(
      `INSERT INTO idempotency_records
         (client, endpoint, key, fingerprint, status, mode, format_version, response_status, response_headers,
          response_body, created_at, completed_at, attempt, owner_token, expires_at, locked_until)
       SELECT $1, $2, $3, $4, $5, 'lease', 1,
              CASE WHEN ended THEN 201 END, CASE WHEN ended THEN '[["x","1"]]'::json END, CASE WHEN ended THEN 'made'::bytea END,
              now() - interval '1 day', CASE WHEN ended THEN now() - interval '1 day' END, $6, $7, now() + $8::interval,
              now() + $9::interval
         FROM (SELECT $5 <> 'processing' AS ended) AS status`,
      [
        row.client,
        row.endpoint,
        row.key,
        FINGERPRINT,
        row.status,
        row.attempt,
        row.token,
        row.expires,
        row.locked,
      ],
    );
  }

  /** Rows that are like the identity's own in all but one of its columns. */
  async insertNeighbours(columns: Partial<Row> = {}): Promise<void> {
    for (const column of ['client', 'endpoint', 'key'] as const) {
      await this.insert({ ...columns, [column]: 'another' });
    }
  }

  /** Everything in the table but the identity's own row. */
  neighbours(): Promise<unknown[]> {
    return this.database.query(
      `SELECT * FROM idempotency_records WHERE (client, endpoint, key) <> ('c', 'e', 'k') ORDER BY client, endpoint, key`,
    );
  }

  /** The identity's own row, with some facts about its times. */
  async row(facts = 'true'): Promise<Record<string, unknown> | undefined> {
    const rows = await this.database.query(
      `SELECT *, ${facts} FROM idempotency_records WHERE (client, endpoint, key) = ('c', 'e', 'k')`,
    );
    return rows[0];
  }

  /** Whether a third connection gets the identity's lock now. */
  async isLockFree(kind: 'exclusive' | 'shared' = 'exclusive'): Promise<boolean> {
    const lock = kind === 'shared' ? 'pg_try_advisory_xact_lock_shared' : 'pg_try_advisory_xact_lock';
    const [row] = await this.database.query<{ free: boolean }>(`SELECT ${lock}($1::bigint) AS free`, [LOCK]);
    return row!.free;
  }

  async reset(): Promise<void> {
    for (const client of [this.one, this.other]) {
      await client.query('ROLLBACK');
      await client.query('SELECT pg_advisory_unlock_all()');
      await client.query('SET lock_timeout = 0');
    }
    await this.database.query('TRUNCATE idempotency_records');
  }

  async close(): Promise<void> {
    await this.one.end();
    await this.other.end();
    await this.database.drop();
  }
}

/** Resolves with the SQLSTATE of the failure; with undefined where there is none. */
export async function sqlStateOf(work: Promise<QueryResult>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error as { code?: string }).code,
  );
}
