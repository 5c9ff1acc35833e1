export { afterCommit, outside, type AfterCommitWork } from './core/ambient.js';
export type { Duration } from './core/duration.js';
export {
  IdempotencyUsageError,
  type IdempotencyError,
  type IdempotencyErrorCode,
  type KeyError,
} from './core/errors.js';
export type { IsolationLevel } from './core/store.js';
export { clientFromHeader, clientFromUser, sharedClient } from './http/client-resolvers.js';
export { IdempotencyException, type Problem } from './http/problem-details.js';
export { IdempotencyModule } from './idempotency.module.js';
export type {
  ClientResolver,
  ErrorFormatter,
  FingerprintOptions,
  FormattedError,
  IdempotencyModuleAsyncOptions,
  IdempotencyModuleOptions,
  IdempotencyOptionsFactory,
  IdempotencyRouteDefaults,
  IdempotentRouteOptions,
  KeyOptions,
  PurgeOptions,
  ResponseOptions,
} from './idempotency.options.js';
export { Idempotent } from './idempotent.decorator.js';
export { IdempotencyPurgeService } from './purge/purge.service.js';
