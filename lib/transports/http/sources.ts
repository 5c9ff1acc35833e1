import type { Readable } from 'node:stream';

/** What is piped into a held response. */
export class Sources {
  readonly #piped = new Set<Readable>();

  /** `onGone` is called for a source that fails or closes early: it leaves a body that only looks complete. */
  constructor(private readonly onGone: () => void) {}

  add(source: Readable): void {
    this.#piped.add(source);
    const onGone = (): void => {
      if (this.#piped.has(source) && !source.readableEnded) this.onGone();
    };
    source.once('error', onGone);
    source.once('close', onGone);
  }

  /** One that is piped elsewhere, or nowhere, concerns the response no more. */
  delete(source: Readable): void {
    this.#piped.delete(source);
  }

  destroy(): void {
    for (const source of this.#piped) source.destroy();
  }
}
