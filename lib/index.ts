export { afterCommit, outside, type AfterCommitWork } from './core/ambient.js';
export type { Duration } from './core/duration.js';
export {
  IdempotencyFailure,
  IdempotencyUsageError,
  type IdempotencyError,
  type IdempotencyErrorCode,
  type KeyError,
  type KeySource,
} from './core/errors.js';
export type { IdempotencyEvent, IdempotencyObserver } from './core/events.js';
export type { Identity } from './core/identity.js';
export type { RecordedHeader, RecordedResponse, RecordMode } from './core/record.js';
export type {
  OutcomeUnknownPolicy,
  ReconcileHandler,
  Reconciliation,
  SettledResponse,
  UnresolvedOutcome,
} from './core/reconcile.js';
export type { IsolationLevel } from './core/store.js';
export { CurrentExecution, currentExecution } from './current-execution.js';
export { clientFromHeader, clientFromUser, sharedClient } from './http/client-resolvers.js';
export { IdempotencyException, type Problem } from './http/problem-details.js';
export { ReleaseIdempotencyKey } from './http/release-idempotency-key.js';
export { IdempotencyModule } from './idempotency.module.js';
export type {
  AnswerOptions,
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
  KeyReader,
  KeyRuleOptions,
  KeySourceOptions,
  PurgeOptions,
  ResponseHeaderOptions,
  ResponseOptions,
} from './idempotency.options.js';
export { IdempotencyService, type RecordPage } from './idempotency.service.js';
export { Idempotent } from './idempotent.decorator.js';
export type { IdempotencyExecution } from './idempotency-execution.js';
export type {
  OperationResult,
  RecordDetails,
  RecordFilter,
  RecordState,
  RecordSummary,
} from './store/records.js';
export type { IdempotentTask } from './run/idempotent-task.js';
export type { Recorded } from './run/recorded-value.js';
export type { RunResult } from './run/task-runner.js';
export { IdempotencyPurgeService } from './store/purge.js';
