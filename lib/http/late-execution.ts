import { currentFrame, runInFrame, type LateFrame } from '../core/ambient.js';
import type { RecordedResponse } from '../core/record.js';
import type { Execution, GiveUp } from '../core/store.js';

/** An execution whose identity is claimed while the interceptors around its handler run already. */
export class LateExecution implements Execution {
  readonly #frame: LateFrame = { later: undefined };
  #claimed: Execution | undefined;
  #ended = false;

  get createdAt(): Date {
    return this.#claimedOne.createdAt;
  }

  get attempt(): number {
    return this.#claimedOne.attempt;
  }

  get handlerBegan(): boolean {
    return this.#claimed?.handlerBegan ?? false;
  }

  /** False when the request has ended before; then the claim is given back. */
  async claimed(execution: Execution): Promise<boolean> {
    if (this.#ended) {
      await execution.release();
      return false;
    }
    this.#claimed = execution;
    this.#frame.later = execution.run(currentFrame);
    return true;
  }

  run<T>(work: () => T): T {
    return runInFrame(this.#frame, work);
  }

  explain(error: unknown): unknown {
    return this.#claimed ? this.#claimed.explain(error) : error;
  }

  complete(response: RecordedResponse, handler: 'returned' | 'threw'): Promise<void> {
    return this.#claimedOne.complete(response, handler);
  }

  async release(): Promise<void> {
    this.#ended = true;
    await this.#claimed?.release();
  }

  async giveUp(why: GiveUp): Promise<void> {
    this.#ended = true;
    await this.#claimed?.giveUp(why);
  }

  abandon(): void {
    this.#claimed?.abandon();
  }

  /** Nothing is completed, and nothing recorded, before a handler began. */
  get #claimedOne(): Execution {
    if (!this.#claimed) throw new TypeError('the identity is not claimed yet');
    return this.#claimed;
  }
}
