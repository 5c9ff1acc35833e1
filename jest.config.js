import { availableParallelism } from 'node:os';
import { findPgBouncer } from './test/helpers/pgbouncer-location.mjs';
import { swcOptions } from './test/helpers/swc-options.mjs';

/** @type {import('jest').Config} */
const project = {
  testEnvironment: 'node',
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
    // Before Node 24 Jest cannot require ES modules, which @fastify/static does: this is the same, as CommonJS.
    '^content-disposition$': '<rootDir>/node_modules/content-disposition',
    '^nestjs-pg-idempotency$': '<rootDir>/lib/index.ts',
    '^nestjs-pg-idempotency/client$': '<rootDir>/lib/client/index.ts',
    '^nestjs-pg-idempotency/migrations$': '<rootDir>/migrations/index.ts',
  },
  globalSetup: '<rootDir>/test/helpers/global-setup.mjs',
  globalTeardown: '<rootDir>/test/helpers/global-teardown.mjs',
};

/** Every test, on applications that connect to PostgreSQL itself. */
const direct = { ...project, displayName: 'direct', testMatch: ['<rootDir>/test/**/*.spec.ts'] };

/** The end-to-end tests once more, on applications that connect through PgBouncer in transaction pooling mode. */
const pgbouncer = {
  ...project,
  displayName: 'pgbouncer',
  testMatch: ['<rootDir>/test/e2e/**/*.spec.ts', '<rootDir>/test/integration/cancel-request.spec.ts'],
  // The callers' side does not see what is behind the application, nor does what starts or shows the sample.
  testPathIgnorePatterns: [
    ...project.testPathIgnorePatterns,
    '<rootDir>/test/e2e/(client|start-page|rewards-start|sample-docs)',
  ],
  setupFiles: ['<rootDir>/test/helpers/through-pooler.mjs'],
};

/** What happens on the wire, and what happens when that breaks, once more with every option on that trades something for speed. */
const tuned = {
  ...project,
  displayName: 'tuned',
  testMatch: [
    '<rootDir>/test/e2e/{limits,lost-commit,one-effect}.spec.ts',
    '<rootDir>/test/faults/{dead-owner,kill-points,lost-acknowledgement}.spec.ts',
  ],
  setupFiles: ['<rootDir>/test/helpers/tuned.mjs'],
};

/** @type {import('jest').Config} */
export default {
  projects: findPgBouncer() === undefined ? [direct, tuned] : [direct, pgbouncer, tuned],
  testTimeout: 30_000,
  // Tests mostly wait for the database, so two workers pay even on two cores. The upper bound keeps the
  // sum of all connection pools far below the server's max_connections.
  maxWorkers: Math.min(4, Math.max(2, availableParallelism())),
  // ES modules in Node's vm are not given back, so that workers grow with every file, and slow down with their garbage.
  workerIdleMemoryLimit: '1GB',
  coverageProvider: 'v8',
  collectCoverageFrom: ['lib/**/*.ts', 'migrations/**/*.ts'],
};
