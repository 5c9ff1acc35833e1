import { runInFrame } from '../../core/ambient.js';
import type { IsolationLevel } from '../../core/store.js';
import type { JoinedTransaction, JoinHost, TransactionEnd } from '../../join/port.js';
import { unheard } from '../../join/unheard.js';
import type { AfterCommit } from '../after-commit.js';
import type { Statement } from '../batch.js';
import { ROLLBACK_PATIENCE, within, type PooledConnection } from '../connection.js';
import { failureAtCommit, failureBeforeCommit, failureOfAborted, problemOf } from '../problems.js';
import { COMMIT, ROLLBACK_TO_SAVEPOINT } from '../sql.js';

/** What a transaction needs to know of its surroundings. Times are milliseconds. */
export interface TransactionContext {
  readonly host: JoinHost;
  readonly afterCommit: AfterCommit;
  readonly isolation: IsolationLevel;
  /** How long a nested transaction waits for one begun by hand. */
  readonly patience: number;
  /** What code inside may know of its execution. */
  readonly execution: object;
  readonly enterHandler: () => void;
}

/** A transaction that was begun on a connection, and that the application's code joins. */
export class OpenTransaction {
  readonly #joined: JoinedTransaction;
  /** Whether the connection was given back. */
  #ended = false;
  /** Whether what was to be done after COMMIT is undone. */
  #undone = false;
  #rollingBack: Promise<void> | undefined;

  constructor(
    readonly connection: PooledConnection,
    private readonly context: TransactionContext,
  ) {
    const onForgotten = (): void => connection.neverPrepare();
    this.#joined = context.host.open({ ...context, client: connection.client, onForgotten });
  }

  /** The error that aborted it, where the application went on after it. */
  get abortedBy(): unknown {
    return this.#joined.abortedBy;
  }

  /** Tells those who listen that a transaction began. */
  announce(): Promise<void> {
    return this.#joined.announce('begin');
  }

  /** Calls `work` so that it and everything it starts joins. */
  run<T>(work: (handle: () => unknown) => T): T {
    return runInFrame(this.#joined.root, () => work(() => this.#joined.handle));
  }

  /** Closes, undoing what the application did since the savepoint: by what is returned, to be sent before COMMIT. */
  async undoAndClose(): Promise<Statement[]> {
    await unheard(() => this.#joined.announce('before-rollback'));
    await this.#joined.close();
    this.#undone = true;
    return [{ text: ROLLBACK_TO_SAVEPOINT }];
  }

  /**
   * Closes, keeping what the application did but for what is returned, to be sent before COMMIT.
   *
   * @throws whatever those who listen throw.
   */
  async keepAndClose(): Promise<Statement[]> {
    await this.#joined.announce('before-commit');
    const undo = await this.#joined.close();
    return undo.map((text) => ({ text }));
  }

  /**
   * Sends these last statements and COMMIT, gives the connection back, and sees to what waits for that.
   *
   * @throws IdempotencyFailure when it did not commit, or when that is not known; for one of the last statements that failed,
   *   what `explain` makes of its error. Then everything is undone.
   */
  async commit(
    last: readonly Statement[] = [],
    explain: (error: unknown, statement?: Statement) => Error = (error) => failureBeforeCommit(error),
  ): Promise<void> {
    this.#ended = true;
    const { results, sent, error } = await this.connection.send([...last, { text: COMMIT }]);
    const committed = results[last.length];
    if (committed?.command === 'COMMIT') {
      this.#afterCommit();
      return;
    }
    if (committed) {
      // COMMIT of an aborted transaction answers ROLLBACK, and resolves.
      await this.#tell('rolled-back', true);
      throw failureOfAborted(this.abortedBy);
    }
    // A server that refused one of them skipped COMMIT. Where the connection is lost, only one that was not sent is sure.
    const isRefusedBefore = results.length < last.length && problemOf(error).kind === 'refused';
    if (sent <= last.length || isRefusedBefore) {
      await (this.#rollingBack = this.#rollBack());
      throw explain(this.connection.reasonOf(error), last[results.length]);
    }
    await this.#tell('rolled-back', false);
    throw failureAtCommit(error);
  }

  /** Undoes everything, and gives the connection back; never throws. Only the first end counts, and all wait for it. */
  async rollBack(): Promise<void> {
    if (!this.#ended) this.#rollingBack = this.#rollBack();
    await this.#rollingBack;
  }

  async #rollBack(): Promise<void> {
    this.#ended = true;
    this.#joined.shut();
    await unheard(() => this.#joined.announce('before-rollback'));
    const closed = this.#joined.close().then(() => true);
    const isIdle = (await within(ROLLBACK_PATIENCE, closed)) === true;
    await this.#tell('rolled-back', isIdle && (await this.connection.rollBack()));
  }

  /** Cuts the connection, so that whatever waits for it fails now. */
  abandon(): void {
    this.#ended = true;
    this.#joined.shut();
    this.connection.release(true);
  }

  /** Gives the connection back, and runs what waited for COMMIT without holding up the response. */
  #afterCommit(): void {
    const end = this.#undone ? 'rolled-back' : 'committed';
    const work = this.#undone ? [] : this.#joined.deferred;
    if (!this.#joined.isWatched) this.connection.release();
    if (this.#joined.isWatched) this.context.afterCommit.run(work, this.#tell(end, true));
    else if (work.length > 0) this.context.afterCommit.run(work);
  }

  /** Tells who listens and gives the connection back. One that is broken or still in the transaction goes first. */
  async #tell(end: TransactionEnd, isUsable: boolean): Promise<void> {
    if (!isUsable) this.connection.release(true);
    await this.#joined.tell(end, isUsable);
    this.connection.release();
  }
}
