/*
 * The promises as a state machine, without any I/O: what an identity has behind it decides what the next command is
 * answered, how often handlers have run, and what is left in the database. The tests hold the real thing against it.
 */

/** How a route is protected, and in lease mode what becomes of an unknown outcome. */
export const ENDPOINTS = {
  transaction: { mode: 'transaction' },
  refuse: { mode: 'lease', onOutcomeUnknown: 'refuse' },
  rerun: { mode: 'lease', onOutcomeUnknown: 'rerun' },
} as const;

export type Endpoint = keyof typeof ENDPOINTS;

/** Whose key it is, and for what. */
export interface Identity {
  readonly client: string;
  readonly endpoint: Endpoint;
  readonly key: string;
}

/** How a handler ends, after its write; `releases` comes before it, because it says that nothing happened. */
export type Ending = 'returns' | 'throws' | 'puts off' | 'fails' | 'overflows' | 'releases';

/** What a handler is told to do: the body of its request. */
export interface Script {
  readonly ending: Ending;
  readonly status: number;
  /** What it says, as JSON that it serializes or as text that it sends as it is. A 204 says nothing. */
  readonly says: { readonly json: unknown } | { readonly text: string };
  /** Names of the headers it sets. */
  readonly headers: readonly string[];
}

/** Everything that makes a request the same or another (P5). */
export interface Request {
  readonly thing: string;
  readonly query: string;
  readonly script: Script;
}

/** What an operator records. */
export interface Settlement {
  readonly status: number;
  readonly body: unknown;
}

/** A recorded answer: what the client of that run was sent, or what an operator settled on. */
export type Recorded =
  | { readonly run: number; readonly status: number }
  | { readonly settlement: Settlement; readonly status: number };

/** What every record says. */
interface Facts {
  readonly request: Request;
  readonly attempt: number;
  readonly expired: boolean;
}

/** What is on record for an identity. */
export type RecordState =
  | { readonly is: 'absent' }
  /** By the lease of an owner that is dead. */
  | ({ readonly is: 'held' } & Facts)
  /** That lease is over, or the owner said that it does not know how it ended. */
  | ({ readonly is: 'unresolved' } & Facts)
  /** Without an answer it is a tombstone. */
  | ({ readonly is: 'completed' | 'failed'; readonly answer: Recorded | undefined } & Facts);

/** What there is of an identity: its record, how often its handler was entered, and how many of its writes took effect. */
export interface Account {
  readonly record: RecordState;
  readonly runs: number;
  readonly effects: number;
}

/** An identity of which nobody has heard. */
export const UNHEARD_OF: Account = { record: { is: 'absent' }, runs: 0, effects: 0 };

/** What a client may get. */
export type Answer =
  | { readonly is: 'own'; readonly run: number; readonly attempt: number; readonly status: number }
  | { readonly is: 'replay'; readonly of: Recorded }
  | { readonly is: 'error'; readonly status: number; readonly code: string };

/** One allowed course of things. */
export interface Course {
  readonly answers: readonly Answer[];
  readonly next: Account;
}

const IN_PROGRESS = error(409, 'IN_PROGRESS');
const KEY_REUSED = error(422, 'KEY_REUSED');
const UNRESOLVED = error(409, 'OUTCOME_UNRESOLVED');
const NOT_KEPT = error(409, 'RESPONSE_NOT_KEPT');
const TOO_LARGE = error(500, 'RESPONSE_TOO_LARGE');

/** What each ending does: how many effects it has, and what becomes of the record. */
const CONSEQUENCES = {
  // P1 and P4: the write is committed with an answer, or undone.
  transaction: {
    returns: { effects: 1, record: 'completed' },
    throws: { effects: 0, record: 'failed' },
    'puts off': { effects: 0, record: 'as before' },
    fails: { effects: 0, record: 'as before' },
    overflows: { effects: 0, record: 'as before' },
    releases: { effects: 0, record: 'as before' },
  },
  // P7: what was written stays, so that nothing is runnable again of which it is not known that nothing happened.
  lease: {
    returns: { effects: 1, record: 'completed' },
    throws: { effects: 1, record: 'failed' },
    'puts off': { effects: 1, record: 'unresolved' },
    fails: { effects: 1, record: 'unresolved' },
    overflows: { effects: 1, record: 'tombstone' },
    releases: { effects: 0, record: 'absent' },
  },
} as const;

/** One request. */
export function onRequest(account: Account, endpoint: Endpoint, request: Request): Course {
  const { record } = account;
  const refused = (answer: Answer): Course => ({ answers: [answer], next: account });
  if (record.is === 'absent' || record.expired) return run(account, endpoint, request);
  if (record.is === 'held') return refused(IN_PROGRESS);
  if (!isSame(record.request, request)) return refused(KEY_REUSED);
  if (record.is === 'unresolved') {
    return endpoint === 'rerun' ? run(account, endpoint, request) : refused(UNRESOLVED);
  }
  return refused(record.answer ? { is: 'replay', of: record.answer } : NOT_KEPT);
}

/**
 * The same request, so many times at once (P6). They come in some order, which does not matter as they are all the same; any of
 * them but one may instead be told that another is still running.
 */
export function onRequestsAtOnce(
  account: Account,
  endpoint: Endpoint,
  request: Request,
  count: number,
): Course[] {
  const courses: Course[] = [];
  let [answers, next]: [readonly Answer[], Account] = [[], account];
  for (let served = 1; served <= count; served++) {
    const course = onRequest(next, endpoint, request);
    [answers, next] = [[...answers, ...course.answers], course.next];
    courses.push({ answers: [...answers, ...Array<Answer>(count - served).fill(IN_PROGRESS)], next });
  }
  return courses;
}

/** The process dies while the handler is at work. Undefined where no handler would be. */
export function onKill(
  account: Account,
  endpoint: Endpoint,
  request: Request,
  hasWritten: boolean,
): Account | undefined {
  const { runs } = onRequest(account, endpoint, request).next;
  if (runs === account.runs) return undefined;
  if (ENDPOINTS[endpoint].mode === 'transaction') return { ...account, runs };
  const effects = account.effects + (hasWritten ? 1 : 0);
  const attempt = nextAttempt(account.record);
  return { record: { is: 'held', request, attempt, expired: false }, runs, effects };
}

/** The lease of a dead owner comes to its end. */
export function onLapse(account: Account): Account {
  const { record } = account;
  return record.is === 'held' ? { ...account, record: { ...record, is: 'unresolved' } } : account;
}

/** The time to live is over. A lease that is held outlives it by far, so that this does not happen to one. */
export function onExpire(account: Account): Account | undefined {
  const { record } = account;
  if (record.is === 'absent' || record.is === 'held' || record.expired) return undefined;
  return { ...account, record: { ...record, expired: true } };
}

/** Expired records are deleted; live ones stay. */
export function onPurge(account: Account): Account {
  return isExpired(account.record) ? { ...account, record: { is: 'absent' } } : account;
}

/** An operator deletes the record. */
export function onRelease(account: Account): { readonly result: string; readonly next: Account } {
  const { is } = account.record;
  if (is === 'absent') return { result: 'absent', next: account };
  if (is === 'held') return { result: 'running', next: account };
  return { result: 'done', next: { ...account, record: { is: 'absent' } } };
}

/** An operator says how an attempt with an unknown outcome ended. */
export function onSettle(
  account: Account,
  settlement: Settlement,
): { readonly result: string; readonly next: Account } {
  const { record } = account;
  if (record.is === 'absent') return { result: 'absent', next: account };
  if (record.is !== 'unresolved') return { result: 'not-applicable', next: account };
  const { request, attempt } = record;
  const answer = { settlement, status: settlement.status };
  return {
    result: 'done',
    next: { ...account, record: { is: 'completed', request, attempt, expired: false, answer } },
  };
}

/** What follows an unknown outcome is a further attempt; everything else begins anew. */
function nextAttempt(record: RecordState): number {
  return record.is === 'unresolved' && !record.expired ? record.attempt + 1 : 1;
}

function run(account: Account, endpoint: Endpoint, request: Request): Course {
  const { mode } = ENDPOINTS[endpoint];
  const { ending, status } = request.script;
  const { effects, record: left } = CONSEQUENCES[mode][ending];
  const runs = account.runs + 1;
  const attempt = nextAttempt(account.record);
  const overflow = mode === 'transaction' ? TOO_LARGE : NOT_KEPT;
  const own: Answer = { is: 'own', run: runs, attempt, status };
  const recordLeft = (): RecordState => {
    const facts = { request, attempt, expired: false };
    switch (left) {
      case 'as before':
        return account.record;
      case 'absent':
        return { is: 'absent' };
      case 'unresolved':
        return { is: 'unresolved', ...facts };
      case 'tombstone':
        return { is: 'failed', ...facts, answer: undefined };
      case 'completed':
      case 'failed':
        return { is: left, ...facts, answer: { run: runs, status } };
    }
  };
  return {
    answers: [ending === 'overflows' ? overflow : own],
    next: { record: recordLeft(), runs, effects: account.effects + effects },
  };
}

/** Whether a record has outlived its time. */
export function isExpired(record: RecordState): boolean {
  return record.is !== 'absent' && record.expired;
}

/** Both were made from the same parts in the same order, so that their text tells. */
function isSame(one: Request, other: Request): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function error(status: number, name: string): Answer {
  return { is: 'error', status, code: `IDEMPOTENCY_${name}` };
}
