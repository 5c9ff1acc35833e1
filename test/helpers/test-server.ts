import { randomBytes } from 'node:crypto';
import { provideDatabase, type ProvidedDatabase } from '../../sample-app/postgres/database-url.js';
import { dropTestDatabases, TEST_ENVIRONMENT } from './admin.js';
import { startPgBouncer, type RunningPgBouncer } from './pgbouncer.js';

let server: ProvidedDatabase | undefined;
let pooler: RunningPgBouncer | undefined;

/**
 * Starts a throw-away server, or takes the one that DATABASE_URL names, and publishes it to the Jest workers,
 * which inherit the environment of this process. The same goes for PgBouncer, where its path is given.
 */
export async function startTestServer(pgBouncer: string | undefined): Promise<void> {
  server = await provideDatabase({ durable: false });
  process.env[TEST_ENVIRONMENT.adminUrl] = server.url;
  process.env[TEST_ENVIRONMENT.run] = randomBytes(4).toString('hex');
  if (pgBouncer === undefined) return;
  pooler = await startPgBouncer(pgBouncer, server.url);
  process.env[TEST_ENVIRONMENT.poolerUrl] = pooler.consoleUrl;
}

/** Stops PgBouncer and the server; a server that is not ours is only cleared of this run's databases. */
export async function stopTestServer(): Promise<void> {
  if (server === undefined) return;
  try {
    await pooler?.stop();
  } finally {
    if (!server.embedded) await dropTestDatabases();
    await server.stop();
    server = pooler = undefined;
  }
}
