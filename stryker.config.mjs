/*
 * Mutation testing of the code that decides: claim, finish, fingerprint, recorder. What came of it is in
 * docs/mutation-testing.md. `npm run test:mutation` may take an hour on two cores;
 * `npm run test:mutation -- --mutate lib/core/fingerprint.ts` takes a minute or two. PostgreSQL is started once for each of the
 * two processes, or is the one that DATABASE_URL names.
 */
export default {
  mutate: [
    'lib/core/{fingerprint,canonical,disposition,engine}.ts',
    'lib/http/{header-policy,held-body}.ts',
    'lib/transports/http/{response,held-writing,held-view,written,delivery,recorded}.ts',
    'lib/store/{rows,problems,transaction/claims,transaction/execution,lease/fence}.ts',
    'lib/join/scanner.ts',
  ],
  plugins: [
    '@stryker-mutator/jest-runner',
    './test/mutation/file-by-file-runner.mjs',
    './test/mutation/ignored-strings.mjs',
  ],
  ignorers: ['strings'],
  testRunner: 'file-by-file',
  jest: { projectType: 'custom', configFile: 'jest.mutation.config.js', enableFindRelatedTests: false },
  coverageAnalysis: 'perTest',
  // Every test of the database has limits of time; more than two at once would wait for each other.
  concurrency: 2,
  timeoutMS: 30_000,
  disableTypeChecks: true,
  ignorePatterns: ['.stryker-tmp', 'dist', 'reports', 'coverage', '.data', '/*.tgz'],
  tempDirName: '.stryker-tmp',
  incrementalFile: 'reports/mutation-incremental.json',
  reporters: ['clear-text', 'progress', 'json'],
  clearTextReporter: { logTests: false, reportTests: false },
  jsonReporter: { fileName: 'reports/mutation.json' },
  thresholds: { high: 95, low: 90, break: 93 },
};
