import { fileURLToPath } from 'node:url';
import { swcOptions } from './test/jest/swc-options.mjs';

/**
 * How the tests are run against a mutant: only those that judge the code in question directly, and a file ends with its
 * first failure. Jest loads the modules anew for each file, because a mutant may strike while they are loaded.
 *
 * @type {import('jest').Config}
 */
export default {
  testMatch: [
    '<rootDir>/test/unit/{core,http,join,store}/*.spec.ts',
    '<rootDir>/test/integration/{store-{transaction,lease,pieces},fenced-transaction}.spec.ts',
    '<rootDir>/test/faults/lost-acknowledgement.spec.ts',
  ],
  testEnvironment: fileURLToPath(import.meta.resolve('./test/mutation/first-failure-environment.cjs')),
  modulePathIgnorePatterns: [
    'dist',
    'test/package',
    'test/interop/nest',
    '.data',
    '.stryker-tmp',
    'reports',
  ].map((folder) => `<rootDir>/${folder}`),
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['@swc/jest', swcOptions] },
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    '^nestjs-pg-idempotency$': '<rootDir>/lib/index.ts',
    '^nestjs-pg-idempotency/client$': '<rootDir>/lib/client/index.ts',
    '^nestjs-pg-idempotency/migrations$': '<rootDir>/migrations/index.ts',
  },
  globalSetup: '<rootDir>/test/helpers/global-setup.mjs',
  globalTeardown: '<rootDir>/test/helpers/global-teardown.mjs',
  // What hangs under a mutant must not take half a minute to be noticed.
  testTimeout: 15_000,
  maxWorkers: 2,
};
