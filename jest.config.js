import { availableParallelism } from 'node:os';

/** What is run: by `PASS`, and whatever the command line names by its path. See test/README.md. */
const PASSES = {
  /** Every behaviour once, on both adapters, directly on PostgreSQL: what `npm test` runs. */
  direct: [
    'unit/**',
    'integration/!(recipes*|readme|docs|client-docs|performance-docs)',
    'integration/client/*',
    'e2e/!(client-browser|rewards-start|rewards-dangers|start-page|sample-docs)',
  ],
  /** What to run after each change: no database for the unit tests, one adapter for a spine of the others. */
  quick: [
    'unit/**',
    'integration/{store-transaction,store-lease,service-run}',
    'e2e/{one-effect,replay,waiting,lease,lost-commit}',
  ],
  /** End to end once more, on applications that connect through PgBouncer in transaction pooling mode. */
  pgbouncer: [
    // Without those that are about what a session of their own has.
    'e2e/!(client*|start-page|rewards-start|sample-docs|session-*|own-timeouts|roles|serializable|store-logs|permanent-failures|fence-isolation|one-table|swallowed-errors)',
    'e2e/session-settings',
    'integration/cancel-request',
  ],
  /** The store on a table that is partitioned by the hash of the identity. */
  partitioned: [
    'integration/{store-*,take-over,purge,*-statements,fenced-transaction,service*,run-lease,shared-looks*}',
    'e2e/{expiry,lost-commit,one-effect}',
    'property/lives',
  ],
  /** Where nothing is prepared by name: not part of `npm run test:all`. */
  unprepared: ['e2e/{limits,lost-commit,one-effect}', 'integration/store-{lease,pieces,transaction}'],
  /** What the pages and the sample application say, run as it stands there, and what browsers do. */
  pages: [
    'integration/{recipes*,readme,docs,client-docs,performance-docs}',
    'e2e/{client-browser,rewards-start,rewards-dangers,start-page,sample-docs}',
  ],
  /** Kills, failing networks and servers, and random sequences held against a model. */
  faults: ['faults/**', 'property/**'],
  /** Beside what teams have around their handlers, on NestJS 11 and 12. */
  interop: ['interop/**'],
};

const pass = process.env.PASS ?? 'direct';
const isAskedByPath = process.argv.slice(2).some((argument) => /^(\.\/)?test\//.test(argument));
const patterns = isAskedByPath ? ['unit/**', '!(unit)/**'] : PASSES[pass];
if (!patterns) throw new Error(`There is no PASS=${pass}; there are ${Object.keys(PASSES).join(', ')}`);

/** @type {import('jest').Config} */
const project = {
  // Node itself loads the modules, once in a worker: Jest's own loading took most of the time, for each file anew.
  testEnvironment: '<rootDir>/test/jest/native-environment.cjs',
  testRunner: '<rootDir>/test/jest/native-runner.cjs',
  transform: {},
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/test/package/'],
  modulePathIgnorePatterns: [
    'dist',
    'test/package',
    'test/interop/nest',
    '.data',
    '.stryker-tmp',
    'reports',
  ].map((folder) => `<rootDir>/${folder}`),
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
  // Only what hangs takes that long, on however busy a machine.
  testTimeout: 120_000,
  // Tests mostly wait, so one worker more than there are cores pays. The upper bound keeps the sum of all connection
  // pools far below the server's max_connections.
  maxWorkers: Math.min(4, availableParallelism() + 1),
  // What tests leave behind, such as compiled programs, is given back with the process.
  workerIdleMemoryLimit: '1GB',
};

function matching(isWanted) {
  return patterns
    .filter(isWanted)
    .map((pattern) => `<rootDir>/test/${pattern.replace(/\*\*$/, '**/*')}.spec.ts`);
}
