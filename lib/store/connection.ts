import { errorWithin } from '../core/causes.js';
import type { Client, GiveBack, Pool } from '../join/port.js';
import {
  canSendAtOnce,
  encode,
  sendAtOnce,
  type Answer,
  type Answers,
  type Raw,
  type Statement,
} from './batch.js';
import { CANCEL_HEAD_START, cancelStatement } from './cancel.js';
import { AcquireTimeoutError, isForgotten, mayBeStandby } from './problems.js';
import { BEGIN_OWN, COMMIT, IN_RECOVERY, ROLLBACK } from './sql.js';
import { isTrue } from './rows.js';

/** Milliseconds that a rollback, and a statement under way before it, may take before the connection is closed. */
export const ROLLBACK_PATIENCE = 1_000;

const NO_NAMES: ReadonlyMap<string, string> = new Map();

/** What is known of sessions, by their clients: whether the server's own is at the other end of the connection. */
const sessions = new WeakMap<object, 'direct' | 'unprepared'>();

/** Reads every value as the server writes it, whatever parsers the application has set. */
const AS_TEXT = { getTypeParser: () => (text: Raw) => text };

/**
 * One connection taken from the pool. While it is out, a broken socket is remembered instead of being thrown as an unhandled
 * 'error' event, and a connection with an unknown state never goes back to the pool.
 */
export class PooledConnection {
  #lost = false;
  #released = false;
  #committing = false;
  /** Whether the server turned out to be a standby: what is written must go to another. */
  #standby = false;
  #mayBeStandby = false;
  /** How to tell those who wait for an answer that there will be none: a discarded connection may stay open for a while. */
  readonly #waiting = new Set<(reason: Error) => void>();
  readonly #since = performance.now();
  /** What the connection broke by: whoever asks later is told only that it is broken. */
  #lostBy: Error | undefined;
  readonly #onError = (error: Error): void => {
    this.#lost = true;
    this.#lostBy ??= error;
  };

  private constructor(
    readonly client: Client,
    private readonly giveBack: GiveBack,
    /** Under which hot statements are prepared, by their texts; undefined: none ever. */
    private readonly names: ReadonlyMap<string, string> | undefined,
  ) {
    client.on('error', this.#onError);
  }

  /**
   * Takes a connection; one that arrives after the timeout goes straight back.
   *
   * It is listened to before the pool's callback returns. The server may end a session in the same bytes that greet it, when
   * it shuts down or an administrator ends everybody's: whoever listened a microtask later would leave that error to the process.
   *
   * @throws AcquireTimeoutError, or whatever the pool reports.
   */
  static acquire(
    pool: Pool,
    timeout: number,
    names?: ReadonlyMap<string, string>,
  ): Promise<PooledConnection> {
    return new Promise((resolve, reject) => {
      let isLate = false;
      const timer = setTimeout(() => {
        isLate = true;
        reject(new AcquireTimeoutError(timeout));
      }, timeout);
      const take = (): void =>
        pool.connect((error, client, giveBack) => {
          if (client && isGarbling(client) && !isLate) {
            giveBack(true);
            take();
            return;
          }
          clearTimeout(timer);
          const connection = client && new PooledConnection(client, giveBack, names);
          if (!connection) reject(error ?? new Error('the pool gave no connection'));
          else if (isLate) connection.release();
          else resolve(connection);
        });
      try {
        take();
      } catch (error) {
        // There is no pool any more.
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

  /**
   * Tells which process of the server answered. Behind a pooler it is not the one that greeted the client, and the next
   * transaction may meet another, which knows of nothing that was prepared before.
   */
  met(pid: string): void {
    const { processID } = this.client as { processID?: unknown };
    if (pid !== String(processID)) this.neverPrepare();
    else if (!sessions.has(this.client)) sessions.set(this.client, 'direct');
  }

  /** From now on its session is sent nothing that it would have to remember. */
  neverPrepare(): void {
    sessions.set(this.client, 'unprepared');
  }

  /**
   * Sends statements one behind the other, and none behind one that failed: in one piece where the client can, so that
   * they cost one round trip. Never rejects.
   */
  async send(statements: readonly Statement[]): Promise<Answers> {
    if (this.#released) return { results: [], sent: 0, error: givenBack() };
    this.#committing = statements.at(-1)?.text === COMMIT;
    const answers = await this.#untilGivenBack(
      canSendAtOnce(this.client)
        ? sendAtOnce(this.client, statements, this.#names)
        : sendOneByOne(this.client, statements, () => this.#released),
      statements.length,
    );
    if (answers.error !== undefined) this.#judge(answers.error);
    return answers;
  }

  /** The same for statements none of which may fail. */
  async sendAll(statements: readonly Statement[]): Promise<readonly Answer[]> {
    const { results, error } = await this.send(statements);
    if (results.length < statements.length) throw error;
    return results;
  }

  /**
   * Sends a statement of the library's own, in a transaction of its own. One that failed only because the session had
   * forgotten what was prepared is sent again.
   */
  async sendAlone(statement: Statement, begin = BEGIN_OWN): Promise<Answer> {
    const piece = [{ text: begin }, statement, { text: COMMIT }];
    const { results, error } = await this.send(piece);
    if (results.length < piece.length && isForgotten(error)) {
      await this.sendAll([{ text: ROLLBACK }]);
      return (await this.sendAll(piece))[1] as Answer;
    }
    if (results.length < piece.length) throw error;
    return results[1] as Answer;
  }

  get #names(): ReadonlyMap<string, string> {
    return this.names && sessions.get(this.client) === 'direct' ? this.names : NO_NAMES;
  }

  /** The answers, or an error when the connection is given back before they have come. */
  #untilGivenBack(answers: Promise<Answers>, sent: number): Promise<Answers> {
    return new Promise((resolve) => {
      const giveUp = (error: Error): void => resolve({ results: [], sent, error });
      this.#waiting.add(giveUp);
      void answers.then((come) => {
        this.#waiting.delete(giveUp);
        resolve(come);
      });
    });
  }

  #judge(error: unknown): void {
    if (isForgotten(error)) this.neverPrepare();
    this.#mayBeStandby ||= mayBeStandby(error);
  }

  /** Whether the transaction was undone; not where the server does not answer in time. */
  async rollBack(): Promise<boolean> {
    if (this.#lost) return false;
    const undone = this.send([{ text: ROLLBACK }]).then(({ error }) => error === undefined);
    return (await within(ROLLBACK_PATIENCE, undone)) === true && !(await this.#isStandby());
  }

  /** Undoes the transaction and gives the connection back, or closes it, which undoes the transaction as well. */
  async rollBackAndRelease(): Promise<void> {
    this.release(!(await this.rollBack()));
  }

  /** What is behind an error: the server may be a standby by now, or the connection broken before by something else. */
  reasonOf(error: unknown): unknown {
    if (this.#standby)
      return new Error('the server is a standby, on which nothing can be written', { cause: error });
    const isLater = this.#lostBy !== undefined && errorWithin(error, isOfBrokenClient) !== undefined;
    return isLater ? new Error('the connection was lost', { cause: this.#lostBy }) : error;
  }

  async #isStandby(): Promise<boolean> {
    if (!this.#mayBeStandby) return false;
    const asked = this.send([{ text: IN_RECOVERY }]).then(({ results }) => results[0]?.rows[0]?.['standby']);
    this.#standby = isTrue(await within(ROLLBACK_PATIENCE, asked));
    return this.#standby;
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
    this.#return(discard || this.#lost);
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
    if (discard) cutPipeline(this.client);
  }
}

/**
 * A client that pipelines waits before it ends until all is answered that was sent. The answer may never come, and the server
 * would keep the transaction, and with it the key.
 */
function cutPipeline(client: Client): void {
  const { pipeline, connection } = client as {
    readonly pipeline?: boolean;
    readonly connection?: { readonly stream?: { destroy?: () => void } };
  };
  if (pipeline === true) connection?.stream?.destroy?.();
}

/** Sessions that read what node-postgres writes as UTF-8 in another encoding, by their clients; false: known not to. */
const garbling = new WeakMap<object, boolean>();

/** What node-postgres hears whenever a setting of a session changes that its server reports. */
interface ParameterStatus {
  readonly parameterName: string;
  readonly parameterValue: string;
}

/** Whether somebody has left the session with another encoding, in which names would be others. */
function isGarbling(client: Client): boolean {
  const known = garbling.get(client);
  if (known !== undefined) return known;
  const { connection } = client as {
    readonly connection?: { on?: (event: string, listener: (status: ParameterStatus) => void) => unknown };
  };
  garbling.set(client, false);
  connection?.on?.('parameterStatus', ({ parameterName: name, parameterValue: value }) => {
    if (name === 'client_encoding') garbling.set(client, value !== 'UTF8');
  });
  return false;
}

/** For a client that cannot send several at once, such as one of the native bindings. */
async function sendOneByOne(
  client: Client,
  statements: readonly Statement[],
  isGivenBack: () => boolean,
): Promise<Answers> {
  const results: Answer[] = [];
  try {
    for (const { text, values } of statements) {
      if (isGivenBack()) return { results, sent: results.length, error: givenBack() };
      const query = { text, types: AS_TEXT, ...(values && { values: values.map(encode) }) };
      const { command, rowCount, rows } = await client.query(query);
      results.push({ command, count: rowCount ?? 0, rows: rows as Answer['rows'] });
    }
  } catch (error) {
    return { results, sent: results.length + 1, error };
  }
  return { results, sent: statements.length };
}

/** What node-postgres says to whoever uses a client that broke before. */
function isOfBrokenClient(error: object): error is Error {
  return error instanceof Error && error.message.includes('is not queryable');
}

function givenBack(): Error {
  return new Error('the connection was given back');
}

/** What the work gives in that many milliseconds; undefined when it fails or takes longer. */
export async function within<T>(milliseconds: number, work: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(resolve, milliseconds, undefined)));
  try {
    return await Promise.race([work.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}
