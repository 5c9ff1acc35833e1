/** What a run of kills did. */
export class KillTally {
  kills = 0;
  effects = 0;
  #requests = 0;
  #retries = 0;

  /** Counts one request that was answered after so many attempts. */
  count(attempts: number): void {
    this.#requests++;
    this.#retries += attempts - 1;
  }

  get figures(): { requests: number; kills: number; retries: number; effects: number } {
    const { kills, effects } = this;
    return { requests: this.#requests, kills, retries: this.#retries, effects };
  }
}

/** Does some work for each of the items, for so many at a time. */
export async function concurrently<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
