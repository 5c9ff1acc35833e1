// Jest transforms what tests import, but loads this file with plain Node: TypeScript needs the hooks.
import '../jest/register-typescript.mjs';
import { findPgBouncer } from './pgbouncer-location.mjs';

/** Starts the one PostgreSQL server of the run, and tells the workers where it is through the environment. */
export default async function globalSetup() {
  const pgBouncer = findPgBouncer();
  if (pgBouncer === undefined) {
    process.stdout.write('\nPgBouncer is not installed: the end-to-end tests do not run through it.\n');
  }
  const { startTestServer } = await import('./test-server.ts');
  await startTestServer(pgBouncer);
}
