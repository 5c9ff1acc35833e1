import { availableParallelism } from 'node:os';

/** What every pass runs, and what it is called with; see test/README.md. */
const PASSES = {
  /** Every behaviour once, on both adapters, directly on PostgreSQL. */
  direct: ['unit/**', 'integration/**', 'e2e/**', 'faults/**', 'property/**'],
  /** What to run after each change: no database for the unit tests, one adapter for a spine of the others. */
  quick: [
    'unit/**',
    'integration/{store-transaction,store-lease,service-run}',
    'e2e/{one-effect,replay,waiting,lease,lost-commit}',
  ],
  /** End to end once more, on applications that connect through PgBouncer in transaction pooling mode. */
  pgbouncer: ['e2e/!(client*|start-page|rewards-start|sample-docs)', 'integration/cancel-request'],
  /** What happens on the wire, and what happens when that breaks, with every option that trades something for speed. */
  tuned: ['e2e/{limits,lost-commit,one-effect}', 'faults/{dead-owner,kill-points,lost-acknowledgement}'],
  /** Beside what teams have around their handlers, on NestJS 11 and 12. */
  interop: ['interop/**'],
};

const pass = process.env.PASS ?? 'direct';
const patterns = PASSES[pass];
if (!patterns) throw new Error(`There is no PASS=${pass}; there are ${Object.keys(PASSES).join(', ')}`);

/** @type {import('jest').Config} */
const project = {
  // Node itself loads the modules, once in a worker: Jest's own loading took most of the time, for each file anew.
  testEnvironment: '<rootDir>/test/jest/native-environment.cjs',
  testRunner: '<rootDir>/test/jest/native-runner.cjs',
  transform: {},
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/test/package/'],
  modulePathIgnorePatterns: ['dist', 'test/package', 'test/interop/nest', '.data', '.stryker-tmp', 'reports'].map(
    (folder) => `<rootDir>/${folder}`,
  ),
};

/** @type {import('jest').Config} */
export default {
  projects: [
    { ...project, displayName: 'unit', testMatch: matching((pattern) => pattern.startsWith('unit')) },
    {
      ...project,
      displayName: pass,
      testMatch: matching((pattern) => !pattern.startsWith('unit')),
      // Runs only where one of these tests does.
      globalSetup: '<rootDir>/test/helpers/global-setup.mjs',
      globalTeardown: '<rootDir>/test/helpers/global-teardown.mjs',
    },
  ].filter(({ testMatch }) => testMatch.length > 0),
  testTimeout: 30_000,
  // Tests mostly wait for the database, so two workers pay even on two cores. The upper bound keeps the
  // sum of all connection pools far below the server's max_connections.
  maxWorkers: Math.min(4, Math.max(2, availableParallelism())),
};

function matching(isWanted) {
  return patterns.filter(isWanted).map((pattern) => `<rootDir>/test/${pattern.replace(/\*\*$/, '**/*')}.spec.ts`);
}
