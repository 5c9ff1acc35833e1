import {
  answerOf,
  isAnswered,
  isFailedRun,
  isInProgress,
  isOriginal,
  isReused,
  isSuccess,
  mayHaveRun,
} from './history-model.js';
import type { Answered, IdentityHistory, Operation } from './history.js';

/** Looks for one kind of violation, and tells of each. */
type Check = (identity: IdentityHistory) => string[];

/** Every kind of violation that has a name, with what looks for it. */
const CHECKS = {
  /** It took effect more than once. */
  'effect-twice': ({ rows }) => {
    const count = effectsOf(rows);
    return count > 1 ? [`${count} effects`] : [];
  },

  /** A client was told of an effect that is not there. */
  'effect-lost': ({ operations, rows }) =>
    effectsOf(rows) > 0
      ? []
      : operations.filter(isSuccess).map((success) => `${name(success)} has no effect`),

  /** An effect without a record, so that the next attempt has it again. */
  'effect-without-record': ({ rows }) =>
    effectsOf(rows) > 0 && rows.record === undefined ? [`${effectsOf(rows)} effects without a record`] : [],

  /** A client was told of a success that was not recorded. */
  'record-missing': ({ operations, rows: { record } }) =>
    record?.responseStatus != null
      ? []
      : operations.filter(isSuccess).map((success) => `${name(success)} has no record`),

  /** What was recorded is not what a client was told. */
  'record-differs': ({ operations, rows: { record } }) => {
    if (record?.responseStatus == null) return [];
    const recorded = answerOf({ status: record.responseStatus, body: record.body ?? '' });
    return operations
      .filter(isSuccess)
      .filter(({ answer }) => answerOf(answer) !== recorded)
      .map((success) => `${name(success)} was told ${answerOf(success.answer)}, recorded is ${recorded}`);
  },

  /** A client was shown an execution that did not commit. */
  'nonce-not-committed': ({ operations, rows: { effects } }) =>
    effects.length === 0
      ? []
      : operations
          .filter(isSuccess)
          .filter(({ answer: { nonce } }) => nonce === undefined || !effects.includes(nonce))
          .map((success) => `${name(success)} was told ${String(success.answer.nonce)}`),

  /** Two different successes for one identity. */
  'answers-differ': ({ operations }) => {
    const answers = new Set(operations.filter(isSuccess).map(({ answer }) => answerOf(answer)));
    return answers.size > 1 ? [[...answers].join(' and ')] : [];
  },

  /** More than one attempt says that it was the one that ran. */
  'original-twice': ({ operations }) => {
    const originals = operations.filter(isOriginal);
    return originals.length > 1 ? [originals.map(name).join(' and ')] : [];
  },

  /** Something was replayed before any other attempt that can have run was so much as sent. */
  'replay-without-original': ({ mode, operations }) =>
    operations
      .filter((operation) => isSuccess(operation) && operation.answer.replayed)
      .filter(
        (replay) =>
          !operations.some(
            (other) => other !== replay && mayHaveRun(other, mode) && other.invokedAt <= replay.completedAt,
          ),
      )
      .map((replay) => `${name(replay)} replays nothing`),

  /** Sent after a success was acknowledged, and answered with the nonce of another execution. */
  'stale-read': ({ operations }) =>
    afterSuccess(operations, (later, success) => {
      return isSuccess(later) && later.answer.nonce !== success.answer.nonce;
    }).map(([later, success]) => `${name(later)} differs from ${name(success)} before it`),

  /** Sent after a success was acknowledged, and run nevertheless. */
  'runs-after-success': ({ operations }) =>
    afterSuccess(operations, (later) => isOriginal(later) || isFailedRun(later)).map(
      ([later, success]) => `${name(later)} ran after ${name(success)}`,
    ),

  /** Told to wait for another attempt, and there is none that can still be under way. */
  'in-progress-alone': ({ operations }) =>
    operations
      .filter(isInProgress)
      .filter((told) => !operations.some((other) => other !== told && mayBeUnderWay(other, told)))
      .map((told) => `${name(told)} was told to wait for nobody`),

  /** Another request under the same key was carried out or answered, and not refused. */
  'other-request-answered': ({ operations }) => {
    const requests = new Set(operations.filter(isSuccess).map(({ request }) => request));
    return requests.size > 1 ? [`successes for ${[...requests].join(' and ')}`] : [];
  },

  /** Refused as another request, when no other request can have had the key. */
  'refused-wrongly': ({ mode, operations }) =>
    operations
      .filter(isReused)
      .filter(
        (refused) =>
          !operations.some(
            (other) =>
              other.request !== refused.request &&
              other.invokedAt <= refused.completedAt &&
              (mode === 'lease' || mayHaveRun(other, mode) || isReplay(other)),
          ),
      )
      .map((refused) => `${name(refused)} was refused for no other request`),

  /** An answer that no protected request gets. */
  'unexpected-answer': ({ operations }) =>
    operations
      .filter(isAnswered)
      .filter((operation) => !isExpected(operation))
      .map((operation) => `${name(operation)} was told ${answerOf(operation.answer)}`),

  /** Told to try again, but not when. */
  'no-retry-after': ({ operations }) =>
    operations
      .filter(isAnswered)
      .filter(({ answer }) => (answer.status === 503 || answer.status === 409) && !answer.retryAfter)
      .map((operation) => `${name(operation)} was told ${answerOf(operation.answer)}`),

  /** However often it was asked for after all faults had ended, there was no answer. */
  wedged: ({ operations }) => {
    const settling = operations.filter(({ settling }) => settling);
    if (settling.some(isSuccess)) return [];
    const last = settling.at(-1);
    return [last ? `${settling.length} attempts, the last of them ${name(last)}` : 'nobody asked'];
  },
} as const satisfies Record<string, Check>;

/** The name of a kind of violation. */
export type ViolationKind = keyof typeof CHECKS;

/** The names of all kinds of violations. */
export const VIOLATION_KINDS = Object.keys(CHECKS) as readonly ViolationKind[];

/** Runs every check that has a name on the history of one identity. */
export function checksOf(identity: IdentityHistory): { kind: string; detail: string }[] {
  return VIOLATION_KINDS.flatMap((kind) => CHECKS[kind](identity).map((detail) => ({ kind, detail })));
}

function effectsOf({ effects, charges = effects.length }: IdentityHistory['rows']): number {
  return charges;
}

/** Pairs of an attempt with a success whose acknowledgement came before it was sent. */
function afterSuccess(
  operations: readonly Operation[],
  holds: (later: Operation, success: Answered) => boolean,
): [later: Operation, success: Answered][] {
  const successes = operations.filter(isSuccess);
  return operations.flatMap((later) =>
    successes
      .filter((success) => success.completedAt < later.invokedAt && holds(later, success))
      .map((success): [Operation, Answered] => [later, success]),
  );
}

/** Behind an answer other than a result, a server that was cut off may still be at work. */
function mayBeUnderWay(other: Operation, at: Operation): boolean {
  if (other.invokedAt > at.completedAt) return false;
  if (other.completedAt >= at.invokedAt || !isAnswered(other)) return true;
  return other.answer.status >= 500 || isInProgress(other);
}

function isReplay(operation: Operation): boolean {
  return isSuccess(operation) && operation.answer.replayed;
}

function isExpected({ answer: { status, code, replayed } }: Answered): boolean {
  if (status === 201) return true;
  if (replayed) return false;
  if (status === 409) return code === 'IDEMPOTENCY_IN_PROGRESS';
  return status === 422 || status === 500 || status === 503;
}

function name({ operation, process, request, invokedAt, completedAt, answer }: Operation): string {
  const told = answer === 'unknown' ? 'unknown' : `${answer.status}${answer.replayed ? ' replayed' : ''}`;
  const times = [invokedAt, completedAt].map((time) => time.toFixed(1)).join('–');
  return `attempt ${operation} (${process}, ${request}, ${times} ms, ${told})`;
}
