import { Logger } from '@nestjs/common';
import { reportFailuresTo, runInFrame, type AfterCommitWork } from '../core/ambient.js';
import { stackOf, unheard } from '../join/unheard.js';

const logger = new Logger('Idempotency');

reportFailuresTo((error) =>
  logger.error('Work for after the commit failed. It ran at once, outside of a transaction.', stackOf(error)),
);

/** Does what waits for a COMMIT, without holding up the response, and knows when all of it is done. */
export class AfterCommit {
  readonly #running = new Set<Promise<void>>();

  /** Runs work in order, outside of all transactions. */
  run(work: readonly AfterCommitWork[], before: Promise<void> = Promise.resolve()): void {
    const running = runInFrame(undefined, () => runAll(before, work)).finally(() =>
      this.#running.delete(running),
    );
    this.#running.add(running);
  }

  /** Resolves when nothing is under way any more. */
  async drained(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}

async function runAll(before: Promise<void>, work: readonly AfterCommitWork[]): Promise<void> {
  await before;
  for (const each of work) await unheard(each);
}
