import type { ViolationKind } from './history-checks.js';
import { operationsOf, type Answer, type Answered, type History, type IdentityRows } from './history.js';
import { isSuccess } from './history-model.js';

/** Plants a fault in a correct history of one settled identity. */
type Plant = (history: History) => History;

/** For each kind of violation that has a name, a way to bring it about. */
export const PLANTED: Readonly<Record<ViolationKind, Plant>> = {
  'effect-twice': (history) =>
    left(history, ({ effects, charges }) =>
      charges === undefined ? { effects: [...effects, 'again'] } : { charges: charges + 1 },
    ),

  'effect-lost': (history) =>
    left(history, ({ charges }) => ({ effects: [], ...(charges !== undefined && { charges: 0 }) })),

  'effect-without-record': (history) => left(history, () => ({ record: undefined })),

  'record-missing': (history) =>
    left(history, () => ({ record: { status: 'processing', responseStatus: null, body: null } })),

  'record-differs': (history) =>
    left(history, () => ({
      record: { status: 'completed', responseStatus: 201, body: '{"nonce":"other"}' },
    })),

  'nonce-not-committed': (history) => left(history, () => ({ effects: ['other'] })),

  'answers-differ': (history) => {
    const { request, answer } = successOf(history);
    return append(history, request, { ...answer, replayed: true, body: `${answer.body} ` });
  },

  'original-twice': (history) => {
    const { request, answer } = successOf(history);
    const again = { ...answer, replayed: false };
    return append(append(history, request, again), request, again);
  },

  'replay-without-original': (history) => {
    const settled = history.events.filter((event) => isSettling(history, event.operation));
    const events = settled.map((event) =>
      event.type === 'completion' && event.answer !== 'unknown' && event.answer.status === 201
        ? { ...event, answer: { ...event.answer, replayed: true } }
        : event,
    );
    return { ...history, events };
  },

  'stale-read': (history) => {
    const { request, answer } = successOf(history);
    return append(history, request, { ...answer, replayed: true, nonce: 'other' });
  },

  'runs-after-success': (history) =>
    append(history, successOf(history).request, error(503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED')),

  'in-progress-alone': (history) => {
    const settled = history.events.filter((event) => isSettling(history, event.operation));
    return append({ ...history, events: settled }, 'same', error(409, 'IDEMPOTENCY_IN_PROGRESS'));
  },

  'other-request-answered': (history) =>
    append(history, 'a third', { ...successOf(history).answer, replayed: true }),

  'refused-wrongly': (history) => {
    const { request } = successOf(history);
    const others = new Set(
      operationsOf(history.events)
        .filter((operation) => operation.request !== request)
        .map(({ operation }) => operation),
    );
    const events = history.events.filter(({ operation }) => !others.has(operation));
    return append({ ...history, events }, request, error(422, 'IDEMPOTENCY_KEY_REUSED'));
  },

  'unexpected-answer': (history) => append(history, 'same', error(404, undefined)),

  'no-retry-after': (history) =>
    append(history, 'same', { ...error(503, 'IDEMPOTENCY_STORE_UNAVAILABLE'), retryAfter: false }),

  wedged: (history) => ({
    ...history,
    events: history.events.map((event) =>
      event.type === 'completion' && isSettling(history, event.operation)
        ? { ...event, answer: error(503, 'IDEMPOTENCY_STORE_UNAVAILABLE') }
        : event,
    ),
  }),
};

/** An answer of the library that is no result. */
export function error(status: number, code: string | undefined): Answer {
  const retryAfter = status === 503 || status === 409;
  return { status, replayed: false, body: JSON.stringify({ code }), retryAfter, ...(code && { code }) };
}

/** The same history, and one more attempt after everything else. */
export function append(history: History, request: string, answer: Answer | 'unknown'): History {
  const { events, rows } = history;
  const operation = Math.max(0, ...events.map((event) => event.operation)) + 1;
  const time = Math.max(0, ...events.map((event) => event.time)) + 1;
  const key = rows[0]!.key;
  return {
    ...history,
    events: [
      ...events,
      { type: 'invocation', operation, time, process: 'intruder', key, request },
      { type: 'completion', operation, time: time + 1, answer },
    ],
  };
}

function left(history: History, change: (rows: IdentityRows) => Partial<IdentityRows>): History {
  return { ...history, rows: history.rows.map((rows) => ({ ...rows, ...change(rows) })) };
}

function successOf({ events }: History): Answered {
  return operationsOf(events).find(isSuccess)!;
}

function isSettling({ events }: History, operation: number): boolean {
  return events.some(
    (event) => event.type === 'invocation' && event.operation === operation && event.settling === true,
  );
}
