import { Client } from 'pg';

/** Names of the environment variables through which the global set-up reaches the Jest workers. */
export const TEST_ENVIRONMENT = {
  adminUrl: 'IDEMPOTENCY_TEST_ADMIN_URL',
  run: 'IDEMPOTENCY_TEST_RUN',
  /** Set where PgBouncer runs, whether or not a test goes through it. */
  poolerUrl: 'IDEMPOTENCY_TEST_POOLER_URL',
} as const;

/** Whether what a test calls the URL of its database leads through PgBouncer. */
export const THROUGH_POOLER = process.env['PASS'] === 'pgbouncer';

/** Whether PgBouncer runs, for tests that go through it whatever the pass. */
export function isPoolerThere(): boolean {
  return process.env[TEST_ENVIRONMENT.poolerUrl] !== undefined;
}

/** Connection string of the server's administrative database, for tests that work on the server itself. */
function adminUrl(): string {
  return environment(TEST_ENVIRONMENT.adminUrl);
}

/** What the names of all databases of this run begin with: runs that share a server do not meet. */
export function namePrefix(): string {
  return `idem_test_${environment(TEST_ENVIRONMENT.run)}_`;
}

/** Connection string of another database on the same server. */
export function urlOf(database: string): string {
  return withDatabase(adminUrl(), database);
}

/** Connection string of a database, or of the console, through PgBouncer. */
export function pooledUrlOf(database: string): string {
  return withDatabase(environment(TEST_ENVIRONMENT.poolerUrl), database);
}

function withDatabase(of: string, database: string): string {
  const url = new URL(of);
  url.pathname = `/${database}`;
  return url.href;
}

/** Does some work on a connection of its own to the administrative database. */
export async function asAdmin<T>(work: (admin: Client) => Promise<T>): Promise<T> {
  return withClient(adminUrl(), work);
}

/** Does some work on a connection of its own. */
export async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Drops every database that this run created. */
export async function dropTestDatabases(): Promise<void> {
  await asAdmin(async (admin) => {
    const { rows } = await admin.query<{ datname: string }>(
      'SELECT datname FROM pg_database WHERE starts_with(datname, $1)',
      [namePrefix()],
    );
    for (const { datname } of rows) await admin.query(`DROP DATABASE IF EXISTS "${datname}" WITH (FORCE)`);
  });
}

function environment(name: string): string {
  const value = process.env[name];
  if (value === undefined)
    throw new Error(`${name} is not set: run the tests through Jest, whose global set-up does`);
  return value;
}
