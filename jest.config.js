import { availableParallelism } from 'node:os';
import { swcOptions } from './test/helpers/swc-options.mjs';

/** @type {import('jest').Config} */
export default {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.spec.ts'],
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/test/package/'],
  modulePathIgnorePatterns: [
    '<rootDir>/dist/',
    '<rootDir>/test/package/',
    '<rootDir>/.data/',
    '<rootDir>/.stryker-tmp/',
    '<rootDir>/reports/',
  ],
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['@swc/jest', swcOptions] },
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    '^nestjs-pg-idempotency$': '<rootDir>/lib/index.ts',
    '^nestjs-pg-idempotency/migrations$': '<rootDir>/migrations/index.ts',
  },
  globalSetup: '<rootDir>/test/helpers/global-setup.mjs',
  globalTeardown: '<rootDir>/test/helpers/global-teardown.mjs',
  testTimeout: 30_000,
  // Tests mostly wait for the database, so two workers pay even on two cores. The upper bound keeps the
  // sum of all connection pools far below the server's max_connections.
  maxWorkers: Math.min(4, Math.max(2, availableParallelism())),
  coverageProvider: 'v8',
  collectCoverageFrom: ['lib/**/*.ts', 'migrations/**/*.ts'],
};
