import { isDeepStrictEqual } from 'node:util';
import { eventually } from '../helpers/conditions.js';
import type { TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest, startRequest, type HttpResponse } from '../helpers/http.js';
import { UNRECORDED_HEADERS, type Hold, type Operation } from './application.js';
import type { ApplicationProcess } from '../helpers/application-process.js';
import { comparableHeaders } from '../helpers/replay.js';
import type { Account, Answer, Course, Identity, Recorded, Request } from './model.js';

/** One of the two instances. */
export type Side = 0 | 1;

/** The two instances of the application that serve one database. */
export interface Instances {
  url(side: Side): Promise<string>;
  /** Lets `work` have an instance that does not survive it; another takes its place. */
  sacrifice(side: Side, work: (doomed: ApplicationProcess) => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/** How a request is sent; none of it makes the request another one. */
export interface Manner {
  readonly side: Side;
  /** Writes the members of the body in the opposite order, with white space. */
  readonly respelled?: boolean;
}

/** The world is not as the model says. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** What is wrong with a world, for runs that must find it. */
export interface Sabotage {
  /** A statement that is run before each request. $1 to $3 are client, endpoint and key. */
  readonly statement?: string;
  /** Only answers are looked at: otherwise an application that keeps no records is found out at once. */
  readonly onlyAnswers?: boolean;
}

/** The real thing: instances, their database, and the answers that were given. */
export class World {
  /** How often what happened. */
  readonly figures = new Map<string, number>();
  readonly #answers = new Map<string, HttpResponse>();
  readonly #executions = new Set<string>();

  constructor(
    private readonly database: TestDatabase,
    private readonly instances: Instances,
    private readonly sabotage: Sabotage = {},
  ) {}

  count(figure: string, by = 1): void {
    this.figures.set(figure, (this.figures.get(figure) ?? 0) + by);
  }

  /** Forgets everything that was before. */
  async begin(): Promise<void> {
    for (const table of ['idempotency_records', 'entries', 'effects'])
      await this.database.query(`DELETE FROM ${table}`);
    this.#answers.clear();
    this.#executions.clear();
  }

  async send(
    identity: Identity,
    request: Request,
    { side, respelled = false }: Manner,
  ): Promise<HttpResponse> {
    const { client, endpoint, key } = identity;
    const { statement } = this.sabotage;
    if (statement !== undefined) await this.database.query(statement, [client, endpoint, key]);
    const url = await this.instances.url(side);
    const body = Buffer.from(respelled ? respell(request.script) : JSON.stringify(request.script));
    return postJson(urlOf(url, identity, request), body, headersOf(identity));
  }

  /** Kills an instance while its handler is at that place, and waits until the database has noticed. */
  async kill(identity: Identity, request: Request, side: Side, place: Hold): Promise<void> {
    await this.instances.sacrifice(side, async (doomed) => {
      const { response } = startRequest(urlOf(doomed.url, identity, request), {
        method: 'POST',
        headers: { ...headersOf(identity), 'Content-Type': 'application/json', 'X-Hold': place },
        body: JSON.stringify(request.script),
      });
      const answered = response.then((answer) => {
        throw new Violation(`P1: no handler ran that could be killed, but there came ${describe(answer)}`);
      });
      await Promise.race([doomed.milestone('held'), answered]);
      await doomed.kill();
      const outcome = await response.then(describe, () => undefined);
      if (outcome !== undefined) throw new Violation(`P3: answered by a killed process: ${outcome}`);
    });
    await eventually(async () => (await this.#sessionsInTransactions()) === 0);
  }

  /** What an operator gets for an operation. */
  async operate(operation: Operation): Promise<unknown> {
    const answer = await postJson(`${await this.instances.url(0)}/operations`, operation);
    if (answer.status !== 200) throw new Violation(`The operation failed: ${describe(answer)}`);
    return (answer.json() as { result: unknown }).result;
  }

  /** Moves the end of a record's time to live into the past. Only the database's clock counts, so nobody has to wait. */
  async expire({ client, endpoint, key }: Identity): Promise<void> {
    await this.database.query(
      `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'
        WHERE client = $1 AND endpoint = $2 AND key = $3`,
      [client, endpoint, key],
    );
  }

  /** Moves the end of every lease into the past, in the same way. */
  async lapse(): Promise<void> {
    await this.database.query(
      `UPDATE idempotency_records SET locked_until = clock_timestamp() - interval '1 second'
        WHERE status = 'processing'`,
    );
  }

  /** Finds the course that was taken, and remembers the answers that were given for the first time. */
  judge(identity: Identity, courses: readonly Course[], responses: readonly HttpResponse[]): Account {
    const busy = responses.filter((response) => codeOf(response) === IN_PROGRESS).length;
    const isAsBusy = ({ answers }: Course): boolean => answers.filter(isInProgress).length === busy;
    const likely = courses.filter(isAsBusy);
    const complaints: string[] = [];
    for (const course of likely.length > 0 ? likely : courses) {
      const complaint = this.#compare(identity, course.answers, responses);
      if (complaint === undefined) return course.next;
      complaints.push(complaint);
    }
    throw new Violation(complaints.join('\n  or '));
  }

  /** Finds for each answer of a course the response that fits. Runs come first, because replays are held against them. */
  #compare(
    identity: Identity,
    answers: readonly Answer[],
    responses: readonly HttpResponse[],
  ): string | undefined {
    const left = [...responses];
    const given = new Map<string, HttpResponse>();
    const known = (recorded: Recorded): HttpResponse | undefined =>
      'run' in recorded
        ? (given.get(runName(identity, recorded.run)) ?? this.#answers.get(runName(identity, recorded.run)))
        : undefined;
    for (const answer of [...answers].sort((one, other) => order(one) - order(other))) {
      const complaints = left.map((response) => this.#mismatch(answer, response, known));
      const index = complaints.indexOf(undefined);
      if (index < 0) return `${[...new Set(complaints)].join('; ')} (${identityName(identity)})`;
      const [response] = left.splice(index, 1);
      if (answer.is === 'own') given.set(runName(identity, answer.run), response!);
    }
    for (const [run, response] of given) {
      this.#answers.set(run, response);
      this.#executions.add(executionOf(response)!);
    }
    for (const answer of answers) {
      this.count(answer.is === 'error' ? answer.code : answer.is);
      if (answer.is === 'own' && answer.attempt > 1) this.count('further attempt');
    }
    return undefined;
  }

  #mismatch(
    answer: Answer,
    response: HttpResponse,
    known: (recorded: Recorded) => HttpResponse | undefined,
  ): string | undefined {
    const got = describe(response);
    const isReplay = response.headers['idempotency-replayed'] !== undefined;
    switch (answer.is) {
      case 'own': {
        const execution = executionOf(response);
        const isOwn = !isReplay && execution !== undefined && !this.#executions.has(execution);
        const isAsTold =
          response.status === answer.status && response.headers['x-attempt'] === String(answer.attempt);
        return isOwn && isAsTold
          ? undefined
          : `P1: attempt ${answer.attempt} had to run and answer ${answer.status}, but there came ${got}`;
      }
      case 'replay':
        if (!isReplay) return `P1: had to be a replay, but there came ${got}`;
        return 'run' in answer.of
          ? differences(known(answer.of)!, response)
          : settledDifferently(answer.of, response);
      case 'error':
        return codeOf(response) === answer.code && response.status === answer.status && !isReplay
          ? undefined
          : `${answer.code === 'IDEMPOTENCY_KEY_REUSED' ? 'P5' : 'P6/P7'}: had to be refused with ${answer.code}, but there came ${got}`;
    }
  }

  /** Holds every row there is against the model. */
  async look(accounts: ReadonlyMap<string, Account>): Promise<void> {
    if (this.sabotage.onlyAnswers === true) return;
    const expected = new Map([...accounts].map(([name, account]) => [name, visible(account)]));
    const seen = await this.#visible();
    for (const name of new Set([...expected.keys(), ...seen.keys()])) {
      const [should, is] = [expected.get(name) ?? NOTHING, seen.get(name) ?? NOTHING];
      if (isDeepStrictEqual(should, is)) continue;
      throw new Violation(
        `${name}: the database has ${JSON.stringify(is)}, and not ${JSON.stringify(should)}`,
      );
    }
  }

  /** Holds when nothing is left running: no transaction, no lock, no connection that was not given back. */
  async atRest(): Promise<void> {
    await eventually(async () => {
      const [locks] = await this.database.query<{ count: number }>(
        `SELECT count(*)::int FROM pg_locks JOIN pg_database d ON d.oid = database
          WHERE locktype = 'advisory' AND datname = current_database()`,
      );
      const urls = await Promise.all([this.instances.url(0), this.instances.url(1)]);
      const pools = await Promise.all(urls.map((url) => sendRequest(`${url}/busy-connections`)));
      const left = {
        transactions: await this.#sessionsInTransactions(),
        locks: locks?.count,
        busy: pools.map((pool) => (pool.json() as { busy: number }).busy),
      };
      if (isDeepStrictEqual(left, { transactions: 0, locks: 0, busy: [0, 0] })) return;
      throw new Violation(`Not at rest: ${JSON.stringify(left)}`);
    });
  }

  async #sessionsInTransactions(): Promise<number> {
    const [row] = await this.database.query<{ count: number }>(
      `SELECT count(*)::int FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND backend_type = 'client backend'`,
    );
    return row?.count ?? 0;
  }

  async #visible(): Promise<Map<string, Visible>> {
    const rows = await this.database.query<Visible & { name: string }>(
      `WITH journal AS (
         SELECT client, endpoint, key, 1 AS runs, 0 AS effects FROM entries
         UNION ALL SELECT client, endpoint, key, 0, 1 FROM effects
         UNION ALL SELECT client, endpoint, key, 0, 0 FROM idempotency_records
       ), counts AS (
         SELECT client, endpoint, key, sum(runs)::int AS runs, sum(effects)::int AS effects FROM journal GROUP BY 1, 2, 3
       )
       SELECT concat_ws('/', client, endpoint, key) AS name, runs, effects,
              CASE WHEN status <> 'processing' THEN status
                   WHEN locked_until <= clock_timestamp() THEN 'unresolved'
                   WHEN locked_until IS NOT NULL THEN 'held' ELSE coalesce(status, 'absent') END AS record,
              attempt, response_status AS answer, expires_at <= clock_timestamp() AS expired
         FROM counts LEFT JOIN idempotency_records USING (client, endpoint, key)`,
    );
    return new Map(rows.map(({ name, ...row }) => [name, row]));
  }
}

/** What can be seen of an identity in the database. */
interface Visible {
  readonly runs: number;
  readonly effects: number;
  readonly record: string;
  readonly attempt: number | null;
  readonly answer: number | null;
  readonly expired: boolean | null;
}

const NOTHING: Visible = {
  runs: 0,
  effects: 0,
  record: 'absent',
  attempt: null,
  answer: null,
  expired: null,
};

function visible({ record, runs, effects }: Account): Visible {
  if (record.is === 'absent') return { ...NOTHING, runs, effects };
  const { is, attempt, expired } = record;
  const answer = 'answer' in record ? (record.answer?.status ?? null) : null;
  return { runs, effects, record: is, attempt, answer, expired };
}

/** Such as `ann/refuse/k1`. */
export function identityName({ client, endpoint, key }: Identity): string {
  return `${client}/${endpoint}/${key}`;
}

function runName(identity: Identity, run: number): string {
  return `${identityName(identity)}#${run}`;
}

function urlOf(url: string, { endpoint }: Identity, { thing, query }: Request): string {
  return `${url}/${endpoint}/${thing}${query}`;
}

function headersOf({ client, key }: Identity): Record<string, string> {
  return { 'X-Client': client, 'Idempotency-Key': key };
}

/** The same JSON, spelled otherwise. */
function respell(value: unknown): string {
  const backwards = (_: string, part: unknown): unknown =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).reverse())
      : part;
  return JSON.stringify(value, backwards, 2);
}

const IN_PROGRESS = 'IDEMPOTENCY_IN_PROGRESS';

function isInProgress(answer: Answer): boolean {
  return answer.is === 'error' && answer.code === IN_PROGRESS;
}

function order({ is }: Answer): number {
  return is === 'own' ? 0 : 1;
}

function executionOf({ headers }: HttpResponse): string | undefined {
  const execution = headers['x-execution'];
  return typeof execution === 'string' ? execution : undefined;
}

function codeOf({ headers, text }: HttpResponse): string | undefined {
  if (headers['content-type']?.includes('application/problem+json') !== true) return undefined;
  return (JSON.parse(text) as { code?: string }).code;
}

function describe(response: HttpResponse): string {
  const { status, headers, text } = response;
  const kind = headers['idempotency-replayed'] === undefined ? 'an answer' : 'a replay';
  const attempt = headers['x-attempt'];
  return `${kind} ${status}${typeof attempt === 'string' ? ` of attempt ${attempt}` : ''} ${text.slice(0, 200)}`;
}

/** What a replay must share with the answer that the first client was sent (P2), and what it must not have (P8). */
function differences(original: HttpResponse, replay: HttpResponse): string | undefined {
  const parts = (
    { status, body }: HttpResponse,
    headers: Record<string, unknown>,
  ): Record<string, unknown> => ({
    status,
    body: body.toString('latin1'),
    headers,
  });
  const kept = Object.entries(comparableHeaders(original)).filter(
    ([name]) => !UNRECORDED_HEADERS.includes(name),
  );
  const should = parts(original, { ...Object.fromEntries(kept), ...ownHeaders(original) });
  const is = parts(replay, { ...comparableHeaders(replay), ...ownHeaders(replay) });
  const different = Object.keys(should).filter((name) => !isDeepStrictEqual(should[name], is[name]));
  if (different.length === 0) return undefined;
  const both = different.map(
    (name) => `${name} ${JSON.stringify(is[name])}, and not ${JSON.stringify(should[name])}`,
  );
  return `P2: the replay is not what the first client was sent: ${both.join('; ')}`;
}

function ownHeaders({ headers }: HttpResponse): Record<string, unknown> {
  return {
    'idempotency-key': headers['idempotency-key'],
    'idempotency-created-at': headers['idempotency-created-at'],
  };
}

function settledDifferently(
  { settlement }: Extract<Recorded, { settlement: unknown }>,
  { status, text }: HttpResponse,
): string | undefined {
  const should = JSON.stringify(settlement.body);
  return status === settlement.status && text === should
    ? undefined
    : `P2: the replay is not what was settled: ${status} ${text}, and not ${settlement.status} ${should}`;
}
