/** Identities remembered by one process; each takes about 100 bytes. */
const CAPACITY = 10_000;

/**
 * Identities that this process knows to be completed, by the number of their lock, so that the key itself is not kept. Only a
 * hint: a record may have expired or been released since, and two identities may share a number.
 */
export class CompletedHere {
  /** In the order in which they were added. */
  readonly #locks = new Set<string>();

  constructor(private readonly capacity = CAPACITY) {}

  has(lock: string): boolean {
    return this.#locks.has(lock);
  }

  /** Forgets the oldest for it where there are too many. */
  add(lock: string): void {
    this.#locks.add(lock);
    if (this.#locks.size <= this.capacity) return;
    const [oldest] = this.#locks;
    if (oldest !== undefined) this.#locks.delete(oldest);
  }

  delete(lock: string): void {
    this.#locks.delete(lock);
  }
}
