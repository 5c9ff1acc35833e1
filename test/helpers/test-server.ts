import { randomBytes } from 'node:crypto';
import { provideDatabase, type ProvidedDatabase } from '../../sample-app/postgres/database-url.js';
import { dropTestDatabases, TEST_ENVIRONMENT } from './admin.js';

let server: ProvidedDatabase | undefined;

/**
 * Starts a throw-away server, or takes the one that DATABASE_URL names, and publishes it to the Jest workers,
 * which inherit the environment of this process.
 */
export async function startTestServer(): Promise<void> {
  server = await provideDatabase({ durable: false });
  process.env[TEST_ENVIRONMENT.adminUrl] = server.url;
  process.env[TEST_ENVIRONMENT.run] = randomBytes(4).toString('hex');
}

/** Stops the server; a server that is not ours is only cleared of this run's databases. */
export async function stopTestServer(): Promise<void> {
  if (server === undefined) return;
  if (!server.embedded) await dropTestDatabases();
  await server.stop();
  server = undefined;
}
