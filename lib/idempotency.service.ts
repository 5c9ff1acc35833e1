import { parseDuration, type Duration } from './core/duration.js';
import { IdempotencyUsageError } from './core/errors.js';
import type { Identity } from './core/identity.js';
import type { SettledResponse } from './core/reconcile.js';
import { recordedFrom } from './core/settled-response.js';
import type { IdempotencyExecution } from './idempotency-execution.js';
import type {
  OperationResult,
  RecordDetails,
  RecordFilter,
  Records,
  RecordSummary,
} from './store/records.js';
import type { IdempotentTask } from './run/idempotent-task.js';
import type { RunResult, TaskRunner } from './run/task-runner.js';

/** A page of records. */
export interface RecordPage {
  readonly records: readonly RecordSummary[];
  /** For the filter's `after`, to get the page after this one; undefined on the last. */
  readonly next: string | undefined;
}

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 1_000;
const DEFAULT_TTL = '24h';

/**
 * Runs once what is no HTTP handler. Looks at records, and settles by hand what cannot settle itself: for operators and their
 * tools, what that changes takes effect at once, outside any transaction.
 */
export class IdempotencyService {
  /** @internal */
  constructor(
    private readonly records: () => Records,
    private readonly runner: TaskRunner,
  ) {}

  /**
   * Does `work` once per (client, endpoint, key), with the promises and modes of `@Idempotent()`: for queue consumers,
   * webhooks, schedulers and scripts. Duplicates get the recorded value, and so does the first caller, so that all see the
   * same: what JSON keeps of what `work` returned.
   *
   * What `work` throws is never recorded, and rethrown as it was: in transaction mode everything was rolled back and the next
   * delivery runs; in lease mode the outcome is unknown, unless it is a `ReleaseIdempotencyKey`. A refusal that is to be
   * repeated is returned as a value. See `docs/beyond-http.md`.
   *
   * @throws IdempotencyFailure when it was not run, or when the library or the database ended it; `error.code` says why, and
   *   errors that pass have the seconds after which another delivery makes sense, `error.retryAfter`.
   * @throws IdempotencyUsageError for a task or a value that is not allowed.
   *
   * @example
   * ```ts
   * const { value } = await idempotency.run(
   *   { client: 'billing', endpoint: 'invoice.paid', key: message.id, payload: message.body },
   *   () => this.invoices.markPaid(message.body),
   * );
   * ```
   */
  run<T>(
    task: IdempotentTask,
    work: (execution: IdempotencyExecution) => T | Promise<T>,
  ): Promise<RunResult<T>> {
    return this.runner.run(task, work);
  }

  /** The record of an identity, or undefined when there is none or it has expired. */
  find(identity: Identity): Promise<RecordDetails | undefined> {
    return this.records().find(identity);
  }

  /**
   * Records in the order of key, client and endpoint, a page at a time: none is skipped or told twice, whatever changes
   * meanwhile. It reads on from where the page before has ended until the page is full, so that a filter which few records
   * match, such as a client, may read the whole table.
   *
   * @throws IdempotencyUsageError `IDEMPOTENCY_ARGUMENT_INVALID` for a limit outside 1 to 1000 or a broken `after`.
   * @throws IdempotencyFailure `IDEMPOTENCY_STORE_UNAVAILABLE` or `IDEMPOTENCY_STORE_REFUSED`.
   */
  async list(filter: RecordFilter = {}): Promise<RecordPage> {
    const { limit = DEFAULT_LIMIT, after } = filter;
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
      throw invalid('"limit" must be an integer of 1 to 1000');
    const from = after === undefined ? undefined : decodeCursor(after);
    // One more than asked for tells whether another page follows.
    const found = await this.records().list(filter, limit + 1, from);
    const records = found.slice(0, limit);
    const last = records.at(-1);
    return { records, next: last && found.length > limit ? encodeCursor(last) : undefined };
  }

  /**
   * Deletes a record, so that the next request with its key runs. Its effect, if it had one, stays.
   *
   * @returns `running` when a handler is at work on it, and nothing is changed: wait until it ends, or its lease lapses.
   */
  release({ client, endpoint, key }: Identity): Promise<OperationResult> {
    return this.records().release({ client, endpoint, key });
  }

  /**
   * Records the answer of an attempt in lease mode whose outcome is unknown, after you have found out: it is replayed from
   * now on. If nothing happened, use `release`.
   *
   * @param ttl - How long the answer is replayed. Default: `'24h'`.
   * @returns `not-applicable` when its outcome is not unknown.
   */
  async settle(
    identity: Identity,
    response: SettledResponse,
    ttl: Duration = DEFAULT_TTL,
  ): Promise<OperationResult> {
    const milliseconds = parseDuration(ttl);
    if (milliseconds === undefined) throw invalid('"ttl" must be milliseconds or a string such as \'24h\'');
    return this.records().settle(identity, recordedFrom(response), milliseconds);
  }
}

function encodeCursor({ client, endpoint, key }: Identity): string {
  return Buffer.from(JSON.stringify([client, endpoint, key])).toString('base64url');
}

function decodeCursor(cursor: string): Identity {
  try {
    const [client, endpoint, key, ...rest] = JSON.parse(
      Buffer.from(cursor, 'base64url').toString(),
    ) as unknown[];
    if (
      typeof client === 'string' &&
      typeof endpoint === 'string' &&
      typeof key === 'string' &&
      rest.length === 0
    ) {
      return { client, endpoint, key };
    }
  } catch {
    // Reported below, like any other text that is no cursor.
  }
  throw invalid('"after" is not the "next" of a page');
}

function invalid(what: string): IdempotencyUsageError {
  return new IdempotencyUsageError('IDEMPOTENCY_ARGUMENT_INVALID', `${what}.`);
}
