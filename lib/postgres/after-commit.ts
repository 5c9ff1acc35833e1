import { Logger } from '@nestjs/common';
import { reportFailuresTo, runInFrame, type AfterCommitWork } from '../core/ambient.js';
import { broadcastEnd, detachRunner, retireRunner } from './joined-query-runner.js';
import type { PooledConnection } from './pooled-connection.js';
import type { Announced } from './transaction-frame.js';

/** What subscribers are told when a transaction has ended. */
export type EndOfTransaction = 'AfterTransactionCommit' | 'AfterTransactionRollback';

const logger = new Logger('Idempotency');

reportFailuresTo((error) =>
  logger.error('Work for after the commit failed. It ran at once, outside of a transaction.', stackOf(error)),
);

/** Does what waits for a COMMIT, without holding up the response, and knows when all of it is done. */
export class AfterCommit {
  readonly #running = new Set<Promise<void>>();

  /** Tells subscribers, gives the connection back, then runs the handler's own work in order. */
  start(
    connection: PooledConnection,
    event: EndOfTransaction,
    announced: readonly Announced[],
    work: readonly AfterCommitWork[],
  ): void {
    if (announced.length === 0) connection.release();
    if (announced.length > 0 || work.length > 0) {
      this.#track(async () => {
        if (announced.length > 0) await this.tell(connection, event, announced);
        await this.#runAll(work);
      });
    }
  }

  /** Runs the handler's own work in order, where no transaction of ours was committed. */
  run(work: readonly AfterCommitWork[]): void {
    if (work.length > 0) this.#track(() => this.#runAll(work));
  }

  /**
   * Tells subscribers and gives the connection back, not before all were told: a subscriber may query through the
   * event's runner. A connection that is broken or still in the transaction goes first.
   */
  async tell(
    connection: PooledConnection,
    event: EndOfTransaction,
    announced: readonly Announced[],
    usable = true,
  ): Promise<void> {
    if (!usable) connection.release(true);
    await runInFrame(undefined, async () => {
      for (const each of announced) {
        if (usable) detachRunner(each.runner, connection.client);
        await this.attempt(() => broadcastEnd(each, event));
        retireRunner(each.runner);
      }
    });
    connection.release();
  }

  /** Resolves when nothing is under way any more. */
  async drained(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  #track(work: () => Promise<void>): void {
    const running = runInFrame(undefined, work).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  async #runAll(work: readonly AfterCommitWork[]): Promise<void> {
    for (const each of work) await this.attempt(each);
  }

  /** Runs what can no longer change what becomes of the request. */
  async attempt(work: AfterCommitWork): Promise<void> {
    try {
      await work();
    } catch (error) {
      logger.error(
        'A subscriber, or work for after the commit, failed; what becomes of the request was settled before.',
        stackOf(error),
      );
    }
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
