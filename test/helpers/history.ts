import { checksOf } from './history-checks.js';
import { isLinearizable } from './history-model.js';

/** How the handler's effect is protected; it decides what an answer says about it. */
export type Mode = 'transaction' | 'lease';

/** A client sends a request. */
export interface Invocation {
  readonly type: 'invocation';
  /** Numbers the attempt within the history; its completion carries the same number. */
  readonly operation: number;
  /** Milliseconds of one monotonic clock for the whole history. */
  readonly time: number;
  /** The client; it sends one request at a time. */
  readonly process: string;
  readonly key: string;
  /** What is asked for: requests are the same when these are. */
  readonly request: string;
  /** Sent after all faults had ended, by a client that repeats its request until it is answered. */
  readonly settling?: boolean;
}

/** What a client was told. */
export interface Answer {
  readonly status: number;
  /** Whether it said that it was a replay. */
  readonly replayed: boolean;
  readonly body: string;
  /** Of the execution whose answer this is. */
  readonly nonce?: string;
  /** Of an error of the library. */
  readonly code?: string;
  /** Whether it said when to try again. */
  readonly retryAfter: boolean;
}

/** The end of an attempt as its client saw it: an answer, or nothing because the answer was lost. */
interface Completion {
  readonly type: 'completion';
  readonly operation: number;
  readonly time: number;
  readonly answer: Answer | 'unknown';
}

/** One moment of a history. */
export type HistoryEvent = Invocation | Completion;

/** What was left of an identity when everything was over. */
export interface IdentityRows {
  readonly key: string;
  /** Nonces of the committed rows that its handlers wrote. */
  readonly effects: readonly string[];
  /** Where the effect is outside the database: how often it took place. Then rows of attempts that were overtaken may remain. */
  readonly charges?: number;
  readonly record?: RecordRow;
}

/** An idempotency record, as far as answers are concerned. */
export interface RecordRow {
  readonly status: string;
  readonly responseStatus: number | null;
  readonly body: string | null;
}

/** All that clients saw, and what was in the database in the end. */
export interface History {
  readonly mode: Mode;
  /** In whatever order: their times count. */
  readonly events: readonly HistoryEvent[];
  readonly rows: readonly IdentityRows[];
}

/** One attempt: an invocation and its completion. */
export interface Operation extends Omit<Invocation, 'type' | 'time'> {
  readonly invokedAt: number;
  /** `Infinity` for an attempt that was never completed. */
  readonly completedAt: number;
  readonly answer: Answer | 'unknown';
}

/** An attempt that was answered. */
export type Answered = Omit<Operation, 'answer'> & { readonly answer: Answer };

/** The history of one identity. Identities are independent of each other, so that each is judged by itself. */
export interface IdentityHistory {
  readonly mode: Mode;
  readonly key: string;
  /** In the order of their invocations. */
  readonly operations: readonly Operation[];
  readonly rows: IdentityRows;
}

/** Something that must not happen, and did. */
export interface Violation {
  readonly kind: string;
  readonly key: string;
  readonly detail: string;
}

/**
 * Judges a history. Each identity has to behave as if its attempts had taken place one after the other, each at one moment
 * between its invocation and its completion: at most one of them has the effect, and from then on there is one answer.
 * An attempt whose answer is unknown may have the effect at any time after its invocation, or never.
 *
 * @returns what is wrong with it; nothing for a history that a correct server can bring about.
 * @throws Error when the events are no history: a completion of nothing, or two of the same attempt.
 */
export function checkHistory(history: History): Violation[] {
  return identitiesOf(history).flatMap((identity) => {
    const found = checksOf(identity);
    // The search has the last word, also on what none of the checks with a name looks at.
    if (!isLinearizable(identity)) {
      found.push({ kind: 'not-linearizable', detail: 'no order of its attempts explains what was seen' });
    }
    return found.map(({ kind, detail }) => ({ kind, key: identity.key, detail }));
  });
}

/** The attempts of a history, in the order of their invocations. */
export function operationsOf(events: readonly HistoryEvent[]): Operation[] {
  const operations = new Map<number, Operation>();
  for (const event of events) {
    if (event.type === 'completion') continue;
    if (operations.has(event.operation)) throw new Error(`Attempt ${event.operation} was invoked twice`);
    const { type, time, ...rest } = event;
    operations.set(event.operation, {
      ...rest,
      invokedAt: time,
      completedAt: Infinity,
      answer: 'unknown',
    });
  }
  for (const event of events) {
    if (event.type === 'invocation') continue;
    const operation = operations.get(event.operation);
    if (!operation) throw new Error(`Attempt ${event.operation} was completed, but never invoked`);
    if (operation.completedAt !== Infinity) throw new Error(`Attempt ${event.operation} was completed twice`);
    if (event.time < operation.invokedAt)
      throw new Error(`Attempt ${event.operation} was completed before it was invoked`);
    operations.set(event.operation, { ...operation, completedAt: event.time, answer: event.answer });
  }
  return [...operations.values()].sort((one, other) => one.invokedAt - other.invokedAt);
}

function identitiesOf({ mode, events, rows }: History): IdentityHistory[] {
  const operations = new Map<string, Operation[]>();
  for (const operation of operationsOf(events)) {
    const others = operations.get(operation.key);
    if (others) others.push(operation);
    else operations.set(operation.key, [operation]);
  }
  const left = new Map(rows.map((row) => [row.key, row]));
  const keys = new Set([...operations.keys(), ...left.keys()]);
  return [...keys].map((key) => ({
    mode,
    key,
    operations: operations.get(key) ?? [],
    rows: left.get(key) ?? { key, effects: [] },
  }));
}
