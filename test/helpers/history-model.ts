import type { Answer, Answered, IdentityHistory, Mode, Operation } from './history.js';

/** Errors that only a request hears which had the identity for itself: it claimed, and its handler may have run. */
const RAN: ReadonlySet<string | undefined> = new Set([
  'IDEMPOTENCY_OUTCOME_UNKNOWN',
  'IDEMPOTENCY_MAX_DURATION_EXCEEDED',
  'IDEMPOTENCY_LEASE_LOST',
  'IDEMPOTENCY_TRANSACTION_ABORTED',
  'IDEMPOTENCY_COMMIT_REFUSED',
  'IDEMPOTENCY_RESPONSE_TOO_LARGE',
  'IDEMPOTENCY_RESPONSE_FAILED',
  // The handler's own.
  undefined,
]);

/** Errors that are decided before anything is claimed, in either mode. */
const NEVER_RAN: ReadonlySet<string | undefined> = new Set([
  'IDEMPOTENCY_SHUTTING_DOWN',
  'IDEMPOTENCY_RECORD_UNREADABLE',
]);

/** Whether it was answered. */
export function isAnswered(operation: Operation): operation is Answered {
  return operation.answer !== 'unknown';
}

/** Whether its client was told that the request took effect. */
export function isSuccess(operation: Operation): operation is Answered {
  return isAnswered(operation) && operation.answer.status < 300;
}

/** Whether its client was told so by the execution itself. */
export function isOriginal(operation: Operation): operation is Answered {
  return isSuccess(operation) && !operation.answer.replayed;
}

/** Whether its client was told that the key belongs to another request. */
export function isReused(operation: Operation): operation is Answered {
  return isAnswered(operation) && operation.answer.status === 422;
}

/** Whether its client was told to wait for another attempt. */
export function isInProgress(operation: Operation): operation is Answered {
  return isAnswered(operation) && operation.answer.code === 'IDEMPOTENCY_IN_PROGRESS';
}

/** Whether its answer says that it had the identity for itself, and that nothing is known to have come of it. */
export function isFailedRun(operation: Operation): operation is Answered {
  return isAnswered(operation) && operation.answer.status >= 500 && RAN.has(operation.answer.code);
}

/** Whether it may have had the effect although its client does not know: now, later, or never. */
function isInDoubt({ answer }: Operation, mode: Mode): boolean {
  if (answer === 'unknown' || answer.code === 'IDEMPOTENCY_OUTCOME_UNKNOWN') return true;
  // In lease mode nothing is rolled back once the handler began.
  return mode === 'lease' && answer.status >= 500 && !NEVER_RAN.has(answer.code);
}

/** Whether it may be the attempt that had the effect. */
export function mayHaveRun(operation: Operation, mode: Mode): boolean {
  return isOriginal(operation) || isInDoubt(operation, mode);
}

/** What tells two answers apart. */
export function answerOf({ status, body }: Pick<Answer, 'status' | 'body'>): string {
  return `${status} ${body}`;
}

/** An identity: fresh, or carried out with an answer that the first one who sees it reveals. */
type State = { readonly request: string; readonly answer: string | undefined } | 'fresh';

/** What happens at one moment between two times: the states it can lead to, none where it cannot happen. */
interface Step {
  readonly from: number;
  readonly to: number;
  /** Whether it may also never happen. */
  readonly optional: boolean;
  apply(state: State): State | undefined;
}

/**
 * Whether there is an order in which the attempts can have taken place, each at one moment between its invocation and its
 * completion, on an identity that is carried out once and answers the same ever after; the database in the end included.
 */
export function isLinearizable(identity: IdentityHistory): boolean {
  const steps = [...identity.operations.flatMap((operation) => stepsOf(operation, identity.mode))];
  const end = atTheEnd(identity);
  if (end) steps.push(end);
  return search(steps);
}

/** As Wing and Gong do it: whichever step began before every other one's end may be the next. */
function search(steps: readonly Step[]): boolean {
  const dead = new Set<string>();
  const done = new Set<number>();
  const visit = (state: State): boolean => {
    const left = steps.flatMap((step, index) => (done.has(index) ? [] : [{ step, index }]));
    if (left.every(({ step }) => step.optional)) return true;
    const position = JSON.stringify([[...done].sort((one, other) => one - other), state]);
    if (dead.has(position)) return false;
    const firstEnd = Math.min(...left.map(({ step }) => step.to));
    for (const { step, index } of left) {
      if (step.from > firstEnd) continue;
      const next = step.apply(state);
      if (next === undefined) continue;
      done.add(index);
      if (visit(next)) return true;
      done.delete(index);
      // What changes nothing may as well come first: it stands in nobody's way.
      if (next === state) break;
    }
    dead.add(position);
    return false;
  };
  return visit('fresh');
}

function stepsOf(operation: Operation, mode: Mode): Step[] {
  const { invokedAt: from, completedAt: to, request } = operation;
  const steps: Step[] = [];
  const within = { from, to, optional: false };
  if (isSuccess(operation)) {
    const answer = answerOf(operation.answer);
    const apply = operation.answer.replayed ? replay(request, answer) : carryOut(request, answer);
    steps.push({ ...within, apply });
  }
  // In lease mode a claim that is given back later refuses other requests too: the named checks see to those.
  if (isReused(operation) && mode === 'transaction') steps.push({ ...within, apply: refuse(request) });
  if (isFailedRun(operation)) steps.push({ ...within, apply: onlyFresh });
  if (isInDoubt(operation, mode)) {
    steps.push({ from, to: Infinity, optional: true, apply: carryOut(request, undefined) });
  }
  return steps;
}

/** The database is looked at after everything else; what is in doubt still may have come later. */
function atTheEnd({ operations, rows: { record } }: IdentityHistory): Step | undefined {
  const ends = operations.map(({ completedAt }) => completedAt).filter((time) => time !== Infinity);
  const from = Math.max(0, ...ends);
  const within = { from, to: Infinity, optional: false };
  if (record === undefined) return { ...within, apply: onlyFresh };
  const { responseStatus: status, body } = record;
  if (status === null) return undefined;
  const answer = answerOf({ status, body: body ?? '' });
  return { ...within, apply: (state) => (state === 'fresh' ? undefined : reveal(state, answer)) };
}

const onlyFresh = (state: State): State | undefined => (state === 'fresh' ? state : undefined);

function carryOut(request: string, answer: string | undefined): Step['apply'] {
  return (state) => (state === 'fresh' ? { request, answer } : undefined);
}

function replay(request: string, answer: string): Step['apply'] {
  return (state) => (state !== 'fresh' && state.request === request ? reveal(state, answer) : undefined);
}

function refuse(request: string): Step['apply'] {
  return (state) => (state !== 'fresh' && state.request !== request ? state : undefined);
}

function reveal(state: Exclude<State, 'fresh'>, answer: string): State | undefined {
  if (state.answer === undefined) return { ...state, answer };
  return state.answer === answer ? state : undefined;
}
