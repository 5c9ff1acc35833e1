import { lockNumber } from '../core/identity.js';
import type { RecordedResponse } from '../core/record.js';
import type { Claim, IsolationLevel } from '../core/store.js';
import { BEAT } from './heartbeat.js';
import type { PooledConnection } from './pooled-connection.js';
import type { PostgresStoreOptions } from './store-options.js';
import { acquireOnce, repeatedly } from './single-statement.js';
import { FENCE_SAVEPOINT, LEAVE_FENCE_SAVEPOINT } from './statements.js';

/** What the owner of one lease says to the database, each under its token. */
export class LeaseStatements {
  readonly #owner: readonly [client: string, endpoint: string, key: string, token: string];

  constructor(
    readonly options: PostgresStoreOptions,
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
    const { statements } = this.options;
    const values = [...this.#owner, this.lease];
    const send = (connection: PooledConnection): Promise<{ rowCount: number | null }> =>
      connection.query(statements.extend, values);
    // An answer that comes later than the next extension is due is not waited for.
    const { rowCount } = await acquireOnce(this.options, send, this.lease * BEAT);
    return rowCount === 1;
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
    const { statements } = this.options;
    const headers = response ? JSON.stringify(response.headers) : null;
    const values = [...this.#owner, status, response?.status, headers, response?.body, this.claim.ttl];
    const send = async (connection: PooledConnection): Promise<boolean> => {
      const { rows } = await connection.query<{ completed: boolean }>(statements.completeLease, values);
      return rows[0]?.completed === true;
    };
    const isCompleted = await repeatedly(this.options, send, isWorthwhile);
    if (isCompleted) this.onCompleted();
    return isCompleted;
  }

  /**
   * Leaves the outcome open: this attempt's, or where its handler never began that of the one before; tried again while
   * `isWorthwhile`.
   *
   * @returns false when there was no lease of this owner.
   */
  async lapse(handlerBegan: boolean, isWorthwhile: () => boolean): Promise<boolean> {
    const values = [...this.#owner, handlerBegan ? 0 : 1];
    return this.#say(this.options.statements.lapse, values, isWorthwhile);
  }

  /**
   * Gives the identity back; tried again while `isWorthwhile`.
   *
   * @returns false when there was no lease of this owner.
   */
  async free(isWorthwhile: () => boolean): Promise<boolean> {
    return this.#say(this.options.statements.free, [...this.#owner], isWorthwhile);
  }

  async #say(statement: string, values: unknown[], isWorthwhile: () => boolean): Promise<boolean> {
    const send = (connection: PooledConnection): Promise<{ rowCount: number | null }> =>
      connection.query(statement, values);
    const { rowCount } = await repeatedly(this.options, send, isWorthwhile);
    return rowCount === 1;
  }

  /**
   * Inside a transaction of that isolation: keeps takeovers out until it ends.
   *
   * @returns false when the lease is somebody else's by now.
   */
  async fence(connection: PooledConnection, isolation: IsolationLevel): Promise<boolean> {
    const { statements } = this.options;
    const lock = lockNumber(statements.table, this.claim.identity);
    await connection.query(statements.fenceLock, [lock, String(this.claim.maxDuration)]);
    if (isolation === 'READ COMMITTED') {
      const { rowCount } = await connection.query(statements.fence, [...this.#owner]);
      return rowCount === 1;
    }
    await connection.query(FENCE_SAVEPOINT);
    const { rowCount } = await connection.query(statements.fenceSnapshot, [...this.#owner]);
    await connection.query(LEAVE_FENCE_SAVEPOINT);
    return rowCount === 1;
  }
}
