import type { Answer, History, HistoryEvent, IdentityRows, Mode } from './history.js';

/** One attempt as a simulated client sends it, and what the network and the server do with it. */
export interface PlannedAttempt {
  /** Milliseconds after the attempt before it in the plan. */
  readonly pause: number;
  /** Milliseconds until the server comes to it, and from then until the client hears of it. */
  readonly there: number;
  readonly back: number;
  readonly other: boolean;
  readonly fate: Fate;
  /** Milliseconds for which a COMMIT on its way may be held back. */
  readonly late: number;
}

/** What becomes of an attempt that finds the identity fresh, and of its answer. */
export const FATES = [
  'answered',
  'answer-lost',
  'never-arrived',
  'refused-by-store',
  'rolled-back',
  'in-doubt-committed',
  'in-doubt-rolled-back',
  'in-doubt-late',
  'answer-lost-late',
  'told-to-wait',
] as const;
type Fate = (typeof FATES)[number];

/** Its effect may come after its answer. */
const LATE: readonly Fate[] = ['in-doubt-late', 'answer-lost-late'];

/** How a correct server does under that plan, with one client that settles the identity in the end. */
export function simulate(key: string, mode: Mode, plan: readonly PlannedAttempt[]): History {
  const server = new SimulatedServer(key, mode);
  const events: HistoryEvent[] = [];
  const moments: { readonly at: number; readonly run: () => void }[] = [];
  const spans = spansOf(plan);
  spans.forEach(({ from, to, attempt }, index) => {
    const isAlone = !spans.some((other, at) => at !== index && other.from <= to && other.to >= from);
    // Nobody is told to wait for nobody.
    const fate = attempt.fate === 'told-to-wait' && isAlone ? 'answered' : attempt.fate;
    moments.push(...momentsOf(server, events, { ...attempt, fate }, index + 1, from));
  });
  moments.sort((one, other) => one.at - other.at);
  for (const { run } of moments) run();
  settle(server, events, Math.max(0, ...moments.map(({ at }) => at)) + 1, plan.length + 1);
  return { mode, events, rows: [server.rows] };
}

function spansOf(plan: readonly PlannedAttempt[]): { from: number; to: number; attempt: PlannedAttempt }[] {
  let from = 0;
  return plan.map((attempt) => {
    from += attempt.pause;
    return { from, to: from + attempt.there + attempt.back, attempt };
  });
}

function momentsOf(
  server: SimulatedServer,
  events: HistoryEvent[],
  { there, back, other, fate, late }: PlannedAttempt,
  operation: number,
  at: number,
): { at: number; run: () => void }[] {
  const request = other ? 'other' : 'same';
  let answer: Answer | 'unknown' = 'unknown';
  events.push({
    type: 'invocation',
    operation,
    time: at,
    process: `client-${operation}`,
    key: server.key,
    request,
  });
  const arrival = {
    at: at + there,
    run: () => {
      answer = server.handle(request, fate);
      events.push({ type: 'completion', operation, time: at + there + back, answer });
    },
  };
  const commit = { at: at + there + late, run: () => server.commitLate(request) };
  return LATE.includes(fate) ? [arrival, commit] : [arrival];
}

/** Whoever the key does not belong to is refused; then the other request gets the answer. */
function settle(server: SimulatedServer, events: HistoryEvent[], from: number, first: number): void {
  let time = Math.max(from, ...events.map((event) => event.time + 1));
  for (const [index, request] of ['same', 'other'].entries()) {
    const common = { operation: first + index, process: 'settler', key: server.key, request, settling: true };
    events.push({ type: 'invocation', time: time++, ...common });
    const answer = server.handle(request, 'answered');
    events.push({ type: 'completion', operation: first + index, time: time++, answer });
    if (answer.status === 201) return;
  }
}

class SimulatedServer {
  #committed: { readonly request: string; readonly answer: Answer } | undefined;
  /** In lease mode, of attempts that were overtaken. */
  readonly #overtaken: string[] = [];
  #executions = 0;

  constructor(
    readonly key: string,
    private readonly mode: Mode,
  ) {}

  get rows(): IdentityRows {
    const { key } = this;
    if (!this.#committed) return { key, effects: [] };
    const { nonce = '', body, status } = this.#committed.answer;
    const record = { status: 'completed', responseStatus: status, body };
    const effects = [...this.#overtaken, nonce];
    return { key, effects, ...(this.mode === 'lease' && { charges: 1 }), record };
  }

  handle(request: string, fate: 'answered'): Answer;
  handle(request: string, fate: Fate): Answer | 'unknown';
  handle(request: string, fate: Fate): Answer | 'unknown' {
    if (fate === 'never-arrived') return 'unknown';
    if (fate === 'refused-by-store') return problem(503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
    if (fate === 'told-to-wait') return problem(409, 'IDEMPOTENCY_IN_PROGRESS');
    const isLost = fate === 'answer-lost' || fate === 'answer-lost-late';
    if (this.#committed) {
      const { request: first, answer } = this.#committed;
      if (isLost) return 'unknown';
      return first === request ? { ...answer, replayed: true } : problem(422, 'IDEMPOTENCY_KEY_REUSED');
    }
    if (fate === 'rolled-back') return problem(503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    if (fate === 'answered' || fate === 'answer-lost' || fate === 'in-doubt-committed') this.#commit(request);
    if (isLost) return 'unknown';
    if (fate.startsWith('in-doubt')) return problem(503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
    return this.#committed!.answer;
  }

  /** A COMMIT that was held back arrives; where the server has given its transaction up, it does nothing. */
  commitLate(request: string): void {
    if (!this.#committed) this.#commit(request);
    else if (this.mode === 'lease') this.#overtaken.push(`overtaken-${++this.#executions}`);
  }

  #commit(request: string): void {
    const nonce = `nonce-${++this.#executions}`;
    const answer = {
      status: 201,
      replayed: false,
      body: JSON.stringify({ nonce }),
      nonce,
      retryAfter: false,
    };
    this.#committed = { request, answer };
  }
}

function problem(status: number, code: string): Answer {
  return { status, replayed: false, body: JSON.stringify({ code }), code, retryAfter: status !== 422 };
}
