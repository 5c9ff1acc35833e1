import type { TestDatabase } from './database.js';
import type { Answer, HistoryEvent, IdentityRows, Invocation, RecordRow } from './history.js';
import type { HttpResponse } from './http.js';

/** Who asks for what. */
export type Attempt = Pick<Invocation, 'process' | 'key' | 'request' | 'settling'>;

/** Writes down what clients do and see, as it happens. */
export class HistoryRecorder {
  readonly events: HistoryEvent[] = [];
  #operations = 0;

  /** Records an attempt: `send` gives its answer, or rejects when that was lost. */
  async record(attempt: Attempt, send: () => Promise<HttpResponse>): Promise<Answer | 'unknown'> {
    const operation = ++this.#operations;
    this.events.push({ type: 'invocation', operation, time: performance.now(), ...attempt });
    const answer = await send().then(toAnswer, () => 'unknown' as const);
    this.events.push({ type: 'completion', operation, time: performance.now(), answer });
    return answer;
  }

  /** How many attempts there were. */
  get attempts(): number {
    return this.#operations;
  }

  /** The keys that were sent. */
  get keys(): string[] {
    return [...new Set(this.events.flatMap((event) => (event.type === 'invocation' ? [event.key] : [])))];
  }
}

/** What is left of these keys in the tables of `fault-app.ts`, and with a provider also there. */
export async function rowsOf(
  database: TestDatabase,
  keys: readonly string[],
  chargesFor?: (key: string) => number,
): Promise<IdentityRows[]> {
  const effects = await database.query<{ key: string; nonce: string }>('SELECT key, nonce FROM effects');
  const records = await database.query<RecordRow & { key: string }>(
    `SELECT key, status, response_status AS "responseStatus", convert_from(response_body, 'UTF8') AS body
       FROM idempotency_records`,
  );
  return keys.map((key) => {
    const record = records.find((row) => row.key === key);
    return {
      key,
      effects: effects.filter((row) => row.key === key).map(({ nonce }) => nonce),
      ...(chargesFor && { charges: chargesFor(key) }),
      ...(record && { record: { ...record } }),
    };
  });
}

function toAnswer({ status, headers, text }: HttpResponse): Answer {
  const { nonce, code } = parsed(text);
  return {
    status,
    replayed: headers['idempotency-replayed'] === 'true',
    body: text,
    ...(nonce !== undefined && { nonce }),
    ...(code !== undefined && { code }),
    retryAfter: headers['retry-after'] !== undefined,
  };
}

function parsed(text: string): { nonce?: string; code?: string } {
  try {
    return JSON.parse(text) as { nonce?: string; code?: string };
  } catch {
    return {};
  }
}
