// Jest transforms what tests import, but loads this file with plain Node: TypeScript needs the hooks.
import './register-typescript.mjs';

/** Starts the one PostgreSQL server of the run, and tells the workers where it is through the environment. */
export default async function globalSetup() {
  const { startTestServer } = await import('./test-server.ts');
  await startTestServer();
}
