import { Logger } from '@nestjs/common';
import type { QueryRunner } from 'typeorm';
import { runInFrame, type AfterCommitWork } from '../core/ambient.js';
import { broadcast, detachRunner, retireRunner } from './joined-query-runner.js';
import type { PooledConnection } from './pooled-connection.js';

/** Does what waits for a COMMIT, without holding up the response, and knows when all of it is done. */
export class AfterCommit {
  readonly #logger = new Logger('Idempotency');
  readonly #running = new Set<Promise<void>>();

  /** Tells subscribers, gives the connection back, then runs the handler's own work in order. */
  start(
    connection: PooledConnection,
    runners: readonly QueryRunner[],
    work: readonly AfterCommitWork[],
  ): void {
    if (runners.length === 0) connection.release();
    if (runners.length === 0 && work.length === 0) return;
    const running = runInFrame(undefined, async () => {
      if (runners.length > 0) await this.#tellSubscribers(connection, runners);
      for (const each of work) await this.#attempt(each);
    }).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /** Resolves when nothing is under way any more. */
  async drained(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** A subscriber may query through the event's runner, so the connection is kept until all were told. */
  async #tellSubscribers(connection: PooledConnection, runners: readonly QueryRunner[]): Promise<void> {
    for (const runner of runners) {
      detachRunner(runner, connection.client);
      await this.#attempt(() => broadcast(runner, 'AfterTransactionCommit'));
      retireRunner(runner);
    }
    connection.release();
  }

  async #attempt(work: AfterCommitWork): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#logger.error('Work after COMMIT failed; the request itself has taken effect.', stackOf(error));
    }
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
