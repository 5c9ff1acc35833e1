import { lockNumber } from '../../core/identity.js';
import type { RecordedResponse } from '../../core/record.js';
import type { Claim, IsolationLevel } from '../../core/store.js';
import type { Answer, Statement } from '../batch.js';
import type { PooledConnection } from '../connection.js';
import { acquireOnce, repeatedly } from '../once.js';
import { isTrue } from '../rows.js';
import { FENCE_SAVEPOINT, LEAVE_FENCE_SAVEPOINT } from '../sql.js';
import type { PostgresStoreOptions } from '../store-options.js';
import { BEAT } from './heartbeat.js';

/** What the owner of one lease says to the database, each under its token. */
export class LeaseStatements {
  readonly #owner: readonly [client: string, endpoint: string, key: string, token: string];

  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly claim: Claim,
    token: string,
    private readonly lease: number,
    private readonly onCompleted: () => void,
  ) {
    const { client, endpoint, key } = claim.identity;
    this.#owner = [client, endpoint, key, token];
  }

  /** @returns false when the lease is somebody else's by now. */
  async extend(): Promise<boolean> {
    const statement = { text: this.options.statements.extend, values: [...this.#owner, this.lease] };
    const send = (connection: PooledConnection): Promise<Answer> => connection.sendAlone(statement);
    // An answer that comes later than the next extension is due is not waited for.
    const { count } = await acquireOnce(this.options, send, this.lease * BEAT);
    return count === 1;
  }

  /**
   * Records the response, or a tombstone without one; tried again while `isWorthwhile`.
   *
   * @returns false when the lease is somebody else's by now.
   */
  async complete(
    status: 'completed' | 'failed',
    response: RecordedResponse | undefined,
    isWorthwhile: () => boolean,
  ): Promise<boolean> {
    const headers = response ? JSON.stringify(response.headers) : null;
    const what = [status, response?.status, headers, response?.body, this.claim.ttl];
    const { rows } = await this.#say(this.options.statements.completeLease, isWorthwhile, what);
    const isCompleted = isTrue(rows[0]?.['completed']);
    if (isCompleted) this.onCompleted();
    return isCompleted;
  }

  /** Leaves the outcome open. */
  async lapse(): Promise<void> {
    await this.#say(this.options.statements.lapse, () => false);
  }

  /** Gives the identity back; tried again while `isWorthwhile`. */
  async free(isWorthwhile: () => boolean): Promise<void> {
    await this.#say(this.options.statements.free, isWorthwhile);
  }

  /**
   * Makes the claim undone; tried again while `isWorthwhile`.
   *
   * @returns false when there was no lease of this owner.
   */
  async takeBack(isWorthwhile: () => boolean): Promise<boolean> {
    const { rows } = await this.#say(this.options.statements.takeBack, isWorthwhile);
    return rows.length > 0;
  }

  #say(text: string, isWorthwhile: () => boolean, what: Statement['values'] = []): Promise<Answer> {
    const statement = { text, values: [...this.#owner, ...what] };
    return repeatedly(this.options, (connection) => connection.sendAlone(statement), isWorthwhile);
  }

  /**
   * Begins a transaction and keeps takeovers out until it ends, in one piece.
   *
   * @returns false when the lease is somebody else's by now.
   */
  async beginFenced(connection: PooledConnection, isolation: IsolationLevel): Promise<boolean> {
    const { begin, fenceLock, fence, fenceSnapshot } = this.options.statements;
    const lock = lockNumber(this.options.statements.table, this.claim.identity);
    const entry = [
      { text: begin(isolation) },
      { text: fenceLock, values: [lock, String(this.claim.maxDuration)] },
    ];
    const isOwn =
      isolation === 'READ COMMITTED'
        ? [{ text: fence, values: this.#owner }]
        : [
            { text: FENCE_SAVEPOINT },
            { text: fenceSnapshot, values: this.#owner },
            ...LEAVE_FENCE_SAVEPOINT.map((text) => ({ text })),
          ];
    const answers = await connection.sendAll([...entry, ...isOwn]);
    return answers[isolation === 'READ COMMITTED' ? 2 : 3]?.count === 1;
  }
}
