import { fileURLToPath } from 'node:url';
import config from './jest.config.js';

/**
 * How the tests are run against a mutant: only those that judge the code in question directly, and a file ends with its
 * first failure.
 *
 * @type {import('jest').Config}
 */
export default {
  ...config,
  testMatch: [
    '<rootDir>/test/unit/{core,http,postgres}/*.spec.ts',
    '<rootDir>/test/integration/{store-{transaction,lease},fenced-transaction}.spec.ts',
    '<rootDir>/test/faults/lost-acknowledgement.spec.ts',
  ],
  testEnvironment: fileURLToPath(import.meta.resolve('./test/mutation/first-failure-environment.cjs')),
  // What hangs under a mutant must not take half a minute to be noticed.
  testTimeout: 15_000,
};
