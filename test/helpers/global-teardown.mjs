import '../jest/register-typescript.mjs';

/** Removes everything that `globalSetup` and the tests created. */
export default async function globalTeardown() {
  const { stopTestServer } = await import('./test-server.ts');
  await stopTestServer();
}
