import { connect } from 'node:net';
import type { ClientBase, Pool, QueryResult, QueryResultRow } from 'pg';
import type { DataSource } from 'typeorm';
import { canSendAtOnce, sendAtOnce, type Answer, type Answers, type Statement } from './batch.js';
import { failureOfPrepared } from './sqlstate.js';
import { COMMIT, ROLLBACK } from './statements.js';
import { PLAIN, type Tuning } from './tuning.js';

/** Milliseconds that a rollback, and a statement under way before it, may take before the connection is closed. */
export const ROLLBACK_PATIENCE = 1_000;

/** The part of TypeORM's PostgreSQL driver that holds the pool. */
interface PostgresPoolDriver {
  readonly master: Pool;
}

/** A connection was not to be had in time. */
export class AcquireTimeoutError extends Error {
  override readonly name = 'AcquireTimeoutError';

  constructor(milliseconds: number) {
    super(`no connection of the pool became free within ${milliseconds} ms`);
  }
}

/**
 * One connection taken from the DataSource's pool. While it is out, a broken socket is remembered instead of being
 * thrown as an unhandled 'error' event, and a connection with an unknown state never goes back to the pool.
 */
export class PooledConnection {
  #lost = false;
  #released = false;
  #committing = false;
  /** Whether the session has not prepared, or not so, what node-postgres takes for prepared: that would fail each time. */
  #stale = false;
  /** How to tell those who wait for an answer that there will be none: a discarded connection may stay open for a while. */
  readonly #waiting = new Set<(reason: Error) => void>();
  readonly #since = performance.now();
  readonly #onError = (): void => {
    this.#lost = true;
  };

  /** Whether {@link send} sends several statements in one piece. */
  readonly sendsAtOnce: boolean;

  private constructor(
    readonly client: ClientBase,
    private readonly giveBack: (error?: Error | boolean) => void,
    readonly tuning: Tuning,
  ) {
    this.sendsAtOnce = tuning.pipeline && canSendAtOnce(client);
    client.on('error', this.#onError);
  }

  /**
   * Takes a connection; one that arrives after the timeout goes straight back.
   *
   * It is listened to before the pool's callback returns. The server may end a session in the same bytes that greet it, when
   * it shuts down or an administrator ends everybody's: whoever listened a microtask later would leave that error to the process.
   */
  static acquire(dataSource: DataSource, timeout: number, tuning: Tuning = PLAIN): Promise<PooledConnection> {
    const { master } = dataSource.driver as unknown as PostgresPoolDriver;
    return new Promise((resolve, reject) => {
      let isLate = false;
      const timer = setTimeout(() => {
        isLate = true;
        reject(new AcquireTimeoutError(timeout));
      }, timeout);
      try {
        master.connect((error, client, release) => {
          clearTimeout(timer);
          const connection = client && new PooledConnection(client, release, tuning);
          if (!connection) reject(error ?? new Error('the pool gave no connection'));
          else if (isLate) connection.release();
          else resolve(connection);
        });
      } catch (error) {
        // There is no pool any more: the DataSource was destroyed.
        clearTimeout(timer);
        throw error;
      }
    });
  }

  /** Whether the connection broke while it was out. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Milliseconds since it was taken. */
  get heldFor(): number {
    return performance.now() - this.#since;
  }

  query<Row extends QueryResultRow>(text: string, values?: unknown[]): Promise<QueryResult<Row>> {
    if (this.#released) return Promise.reject(givenBack());
    this.#committing = text === COMMIT;
    const name = this.tuning.names.get(text);
    const answer =
      name === undefined
        ? this.client.query<Row>(text, values)
        : this.client.query<Row>({ name, text, ...(values && { values }) });
    return this.#untilGivenBack(answer);
  }

  /**
   * Sends statements one behind the other, and none behind one that failed: in one piece where the connection can, so that
   * they cost one round trip. Never rejects.
   */
  send(statements: readonly Statement[]): Promise<Answers> {
    if (!this.sendsAtOnce || this.#released) return this.#sendOneByOne(statements);
    this.#committing = statements.some(({ text }) => text === COMMIT);
    return new Promise((resolve) => {
      const giveUp = (error: Error): void => resolve({ results: [], sent: statements.length, error });
      this.#waiting.add(giveUp);
      void sendAtOnce(this.client, statements, this.tuning.names).then((answers) => {
        this.#waiting.delete(giveUp);
        if (answers.error !== undefined) this.#judge(answers.error);
        resolve(answers);
      });
    });
  }

  /** The same for statements none of which may fail. */
  async sendAll(statements: readonly Statement[]): Promise<readonly Answer[]> {
    const { results, error } = await this.send(statements);
    if (results.length < statements.length) throw error;
    return results;
  }

  /** The answer, or an error when the connection is given back before it has come. */
  #untilGivenBack<T>(answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      const settled = answer.finally(() => this.#waiting.delete(reject));
      settled.catch((error: unknown) => this.#judge(error));
      settled.then(resolve, reject);
    });
  }

  #judge(error: unknown): void {
    if (failureOfPrepared(error)) this.#stale = true;
  }

  async #sendOneByOne(statements: readonly Statement[]): Promise<Answers> {
    const results: Answer[] = [];
    try {
      for (const { text, values } of statements) results.push(await this.query(text, values && [...values]));
    } catch (error) {
      return { results, sent: results.length + 1, error };
    }
    return { results, sent: statements.length };
  }

  /** Whether the transaction was undone; not where the server does not answer in time. */
  async rollBack(): Promise<boolean> {
    return !this.#lost && (await within(ROLLBACK_PATIENCE, this.query(ROLLBACK)));
  }

  /** Undoes the transaction and gives the connection back, or closes it, which undoes the transaction as well. */
  async rollBackAndRelease(): Promise<void> {
    this.release(!(await this.rollBack()));
  }

  /**
   * Gives the connection back to the pool, or closes it when it is broken or `discard` is set. A statement that is being
   * executed is cancelled, but never a COMMIT: while it waits for a synchronous standby, that would make the server take it
   * for committed, and show it to everybody, although the standby does not have it.
   */
  release(discard = false): void {
    if (this.#released) return;
    if (!discard || this.#lost || this.#committing) {
      this.close(discard);
      return;
    }
    this.#end();
    // A pooler forwards the request for a client that is still there, and ignores that of one that has gone.
    void within(CANCEL_HEAD_START, cancelStatement(this.client)).then(() => this.#return(true));
  }

  /** Like {@link release}, without cancelling anything: for statements that commit by themselves. */
  close(discard = true): void {
    if (this.#released) return;
    this.#end();
    this.#return(discard || this.#lost || this.#stale);
  }

  #end(): void {
    this.#released = true;
    if (this.#waiting.size === 0) return;
    const reason = givenBack();
    for (const tell of this.#waiting) tell(reason);
    this.#waiting.clear();
  }

  #return(discard: boolean): void {
    this.client.removeListener('error', this.#onError);
    // pg-pool listens again from here on, also while it closes what is discarded.
    this.giveBack(discard);
  }
}

function givenBack(): Error {
  return new Error('the connection was given back');
}

/** Whether the work succeeded in that many milliseconds. */
export async function within(milliseconds: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, milliseconds, false)));
  const succeeded = work.then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([succeeded, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What node-postgres knows of a session, and needs for its own `cancel()`. */
interface SessionFacts {
  readonly host?: unknown;
  readonly port?: unknown;
  readonly processID?: unknown;
  readonly secretKey?: unknown;
}

const CANCEL_REQUEST_CODE = 80_877_102;
/** How long a discarded connection is kept open so that the request can arrive. */
const CANCEL_HEAD_START = 1_000;
/** Longer than PgBouncer keeps a request that it cannot forward yet (`cancel_wait_timeout`, 10 s). */
const CANCEL_PATIENCE = 15_000;

/**
 * Asks the server to end the statement that a session is executing, if any. A server that executes one does not notice
 * that its client has gone, and before PostgreSQL 17 would hold the transaction, and with it the key, until the
 * statement's own timeout. The protocol wants a connection of its own for that, whose end is the only answer: like libpq
 * we leave it to the server to close it. PgBouncer 1.18 crashes when it is closed while the request is being forwarded.
 */
function cancelStatement(client: ClientBase): Promise<void> {
  const { host, port, processID, secretKey } = client as SessionFacts;
  if (typeof host !== 'string' || typeof port !== 'number') return Promise.resolve();
  if (typeof processID !== 'number' || typeof secretKey !== 'number') return Promise.resolve();
  const request = Buffer.alloc(16);
  [request.length, CANCEL_REQUEST_CODE, processID, secretKey].forEach((value, index) =>
    request.writeInt32BE(value, index * 4),
  );
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  socket.on('error', () => undefined);
  socket.setTimeout(CANCEL_PATIENCE, () => socket.destroy());
  socket.unref();
  socket.resume();
  socket.write(request);
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
