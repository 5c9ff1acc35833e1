import { IdempotencyFailure } from '../core/errors.js';
import type { Claim, ClaimOutcome, IsolationLevel } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import { sendClaim, sendTakeOver, type Finding } from './claim-statement.js';
import { ClaimedTransaction } from './claimed-transaction.js';
import { acquire } from './acquire.js';
import type { PooledConnection } from './pooled-connection.js';
import { ormIsolation, type PostgresStoreOptions } from './store-options.js';
import { failureBeforeCommit, isConflict, LOCK_NOT_AVAILABLE, problemOf } from './sqlstate.js';
import { ROLLBACK, SAVEPOINT } from './statements.js';

/** Times a claim is tried again when it lost a race whose outcome it could not see yet. */
const CLAIM_ATTEMPTS = 3;

/** What is left to find once that which has expired was taken over, or could not be. */
type Found = Exclude<Finding, { kind: 'expired' }>;

/** Claims inside the transaction that the handler will run in. */
export class TransactionClaims {
  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
  ) {}

  claim(claim: Claim): Promise<ClaimOutcome> {
    return this.#claim(claim, null);
  }

  /** @param lapsed - The attempt that may be taken over, of those whose outcome is unknown. */
  async #claim(claim: Claim, lapsed: number | null): Promise<ClaimOutcome> {
    const connection = await acquire(this.options);
    // A connection that stays silent must not keep the request waiting; subscribers may take their time.
    const timer = setTimeout(() => connection.release(true), this.options.acquireTimeout);
    const outcome = await this.#attempts(connection, claim, lapsed).finally(() => clearTimeout(timer));
    if (!(outcome instanceof ClaimedTransaction)) return outcome;
    await outcome.announce();
    return { kind: 'claimed', execution: outcome };
  }

  async #attempts(
    connection: PooledConnection,
    claim: Claim,
    lapsed: number | null,
  ): Promise<ClaimedTransaction | ClaimOutcome> {
    for (let attempt = 1; attempt <= CLAIM_ATTEMPTS; attempt++) {
      try {
        const finding = await this.#attempt(connection, claim, lapsed);
        if (finding.kind === 'claimed') return await this.#open(connection, claim, finding);
        if (finding.kind !== 'again') {
          // The answer need not wait for it, so that a replay costs no further round trip.
          void connection.rollBackAndRelease();
          return this.#outcome(finding, claim);
        }
      } catch (error) {
        const problem = problemOf(error);
        if (problem.kind === 'lost' || !isConflict(problem.sqlState) || attempt === CLAIM_ATTEMPTS) {
          return await failClaim(connection, error);
        }
      }
      await connection.query(ROLLBACK).catch(() => undefined);
    }
    connection.release();
    return { kind: 'in-progress' };
  }

  async #attempt(connection: PooledConnection, claim: Claim, lapsed: number | null): Promise<Found> {
    const { statements } = this.options;
    await connection.query(statements.begin(this.#isolation(claim)));
    const finding = await sendClaim(connection, statements, claim, null);
    const isTaken = finding.kind === 'expired' || (finding.kind === 'lapsed' && finding.attempt === lapsed);
    if (!isTaken) return finding;
    const found = finding.kind === 'lapsed' ? finding.attempt : null;
    return (await sendTakeOver(connection, statements, claim, null, found)) ?? { kind: 'in-progress' };
  }

  #outcome(finding: Exclude<Found, { kind: 'claimed' | 'again' }>, claim: Claim): ClaimOutcome {
    switch (finding.kind) {
      case 'lapsed': {
        const takeOver = (): Promise<ClaimOutcome> => this.#claim(claim, finding.attempt);
        return { kind: 'unresolved', attempt: { ...finding, takeOver } };
      }
      default:
        return finding;
    }
  }

  #isolation({ mode }: Claim): IsolationLevel | undefined {
    return (
      (mode.kind === 'transaction' ? mode.isolation : undefined) ?? ormIsolation(this.options.dataSource)
    );
  }

  async #open(
    connection: PooledConnection,
    claim: Claim,
    claimed: { createdAt: Date; attempt: number },
  ): Promise<ClaimedTransaction> {
    const { mode } = claim;
    if (mode.kind === 'transaction' && mode.storesErrors) await connection.query(SAVEPOINT);
    const { dataSource, statements, defaultIsolation, acquireTimeout: patience } = this.options;
    const isolation = this.#isolation(claim) ?? defaultIsolation;
    const context = { dataSource, isolation, patience, afterCommit: this.afterCommit };
    return new ClaimedTransaction(connection, claim, statements, context, claimed);
  }
}

/** Gives up a claim: another's lock stood in the way, or the store cannot say. */
async function failClaim(connection: PooledConnection, error: unknown): Promise<ClaimOutcome> {
  const problem = problemOf(error);
  if (problem.kind === 'lost' && !(error instanceof IdempotencyFailure)) connection.release(true);
  else await connection.rollBackAndRelease();
  if (problem.kind === 'refused' && problem.sqlState === LOCK_NOT_AVAILABLE) return { kind: 'in-progress' };
  throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
}
