export { apiKey, bearer, env, type Auth, type Secret } from './auth.js';
export type { CallResult } from './call.js';
export type { CallOptions } from './call-options.js';
export type {
  EndpointDeclaration,
  Fetch,
  FetchInit,
  IdempotencyOptions,
  QueryValues,
  RetryOptions,
  SharedOptions,
  TimeoutOptions,
} from './declaration.js';
export type { Duration } from './duration.js';
export { endpoint, type CallInput, type Endpoint } from './endpoint.js';
export {
  AnswerError,
  CallError,
  DeclarationError,
  SchemaError,
  type CallErrorCode,
  type Effect,
  type ErrorAnswer,
} from './errors.js';
export { bodyFingerprintKey, derivedKey, randomKey, type KeyInput, type KeyStrategy } from './keys.js';
export type { HttpMethod } from './method.js';
export type { PathParameters, PathValue } from './path.js';
export type { AttemptOutcome, AttemptReport, CallHooks, NextStep, PendingCall } from './reports.js';
export {
  createClient,
  resource,
  type Client,
  type ClientOptions,
  type Members,
  type Operation,
  type OperationOptions,
  type Resource,
} from './resource.js';
export { unchecked, type SchemaIssue, type SchemaResult, type StandardSchema } from './schema.js';
