import { IdempotencyFailure } from '../core/errors.js';
import { lockNumber } from '../core/identity.js';
import type { Claim, ClaimOutcome, IsolationLevel } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import {
  existingStatement,
  lockedFinding,
  lockStatement,
  takeOverFinding,
  takeOverStatement,
  type Claimed,
  type Found,
} from './claim-statement.js';
import { ClaimedTransaction } from './claimed-transaction.js';
import { acquire } from './acquire.js';
import type { Answer, Statement } from './batch.js';
import type { PooledConnection } from './pooled-connection.js';
import type { SharedLooks } from './shared-looks.js';
import { ormIsolation, type PostgresStoreOptions } from './store-options.js';
import { failureBeforeCommit, isConflict, LOCK_NOT_AVAILABLE, problemOf } from './sqlstate.js';
import { ROLLBACK, SAVEPOINT } from './statements.js';

/** Times a claim is tried again when it lost a race whose outcome it could not see yet. */
const CLAIM_ATTEMPTS = 3;

/** What is left to find once that which has expired was taken over, or could not be. */
type Settled = Exclude<Found, { kind: 'expired' }>;

/** A claim with the number of its lock, and the attempt that it may take over, of those whose outcome is unknown. */
interface Claiming {
  readonly claim: Claim;
  readonly lock: string;
  readonly lapsed: number | null;
}

/** Claims inside the transaction that the handler will run in. */
export class TransactionClaims {
  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
    private readonly looks: SharedLooks,
  ) {}

  claim(claim: Claim): Promise<ClaimOutcome> {
    const lock = lockNumber(this.options.statements.table, claim.identity);
    return this.#claim({ claim, lock, lapsed: null });
  }

  async #claim(claiming: Claiming): Promise<ClaimOutcome> {
    const since = performance.now();
    const replay = await this.looks.find(claiming.claim, claiming.lock);
    if (replay) return replay;
    // What a look took in vain is part of what the request may wait.
    const patience = Math.max(0, this.options.acquireTimeout - (performance.now() - since));
    const connection = await acquire(this.options, patience);
    // A connection that stays silent must not keep the request waiting; subscribers may take their time.
    const timer = setTimeout(() => connection.release(true), patience);
    const outcome = await this.#attempts(connection, claiming).finally(() => clearTimeout(timer));
    if (!(outcome instanceof ClaimedTransaction)) return outcome;
    await outcome.announce();
    return { kind: 'claimed', execution: outcome };
  }

  async #attempts(
    connection: PooledConnection,
    claiming: Claiming,
  ): Promise<ClaimedTransaction | ClaimOutcome> {
    for (let attempt = 1; ; attempt++) {
      try {
        const finding = await this.#attempt(connection, claiming);
        if (finding.kind === 'claimed') return this.#open(connection, claiming, finding);
        // The answer need not wait for it, so that a replay costs no further round trip.
        void connection.rollBackAndRelease();
        return this.#outcome(finding, claiming);
      } catch (error) {
        const problem = problemOf(error);
        if (problem.kind === 'lost' || !isConflict(problem.sqlState) || attempt === CLAIM_ATTEMPTS) {
          return await failClaim(connection, error);
        }
      }
      await connection.query(ROLLBACK).catch(() => undefined);
    }
  }

  async #attempt(connection: PooledConnection, claiming: Claiming): Promise<Settled> {
    const { claim, lock, lapsed } = claiming;
    const finding = await this.#enter(connection, claiming);
    const isTaken = finding.kind === 'expired' || (finding.kind === 'lapsed' && finding.attempt === lapsed);
    if (!isTaken) return finding;
    const found = finding.kind === 'lapsed' ? finding.attempt : null;
    const takeOver = takeOverStatement(this.options.statements, claim, null, found, lock);
    // The savepoint is made anew: to go back to the first would undo the takeover.
    const [taken] = await connection.sendAll([takeOver, ...savepointOf(claim)]);
    return takeOverFinding(taken) ?? { kind: 'in-progress' };
  }

  /**
   * Begins, tries the lock and looks, in one round trip; the savepoint does no harm where there is nothing to undo. Where
   * statements with parameters cannot be sent at once, all are one text.
   */
  async #enter(connection: PooledConnection, { claim, lock }: Claiming): Promise<Found> {
    const { statements } = this.options;
    const begin = statements.begin(this.#isolation(claim));
    const savepoint = savepointOf(claim);
    if (connection.sendsAtOnce) {
      const look = existingStatement(statements, claim);
      const all = [{ text: begin }, lockStatement(statements, lock, claim), look, ...savepoint];
      const [, locked, existing] = await connection.sendAll(all);
      return lockedFinding(locked, existing);
    }
    const lockAndLook = [statements.lockNow(lock, claim.maxDuration), statements.existingNow(claim.identity)];
    const texts = [begin, ...lockAndLook, ...savepoint.map(({ text }) => text)];
    // Several statements in one text have as many answers.
    const answers = (await connection.query(texts.join(';'))) as unknown as Answer[];
    return lockedFinding(answers[1], answers[2]);
  }

  #outcome(finding: Exclude<Settled, { kind: 'claimed' }>, claiming: Claiming): ClaimOutcome {
    if (finding.kind === 'recorded') this.looks.remember(claiming.lock);
    if (finding.kind !== 'lapsed') return finding;
    const takeOver = (): Promise<ClaimOutcome> => this.#claim({ ...claiming, lapsed: finding.attempt });
    return { kind: 'unresolved', attempt: { ...finding, takeOver } };
  }

  #isolation({ mode }: Claim): IsolationLevel | undefined {
    return (
      (mode.kind === 'transaction' ? mode.isolation : undefined) ?? ormIsolation(this.options.dataSource)
    );
  }

  #open(connection: PooledConnection, { claim, lock }: Claiming, claimed: Claimed): ClaimedTransaction {
    const { dataSource, statements, defaultIsolation, acquireTimeout: patience } = this.options;
    const isolation = this.#isolation(claim) ?? defaultIsolation;
    const context = { dataSource, isolation, patience, afterCommit: this.afterCommit };
    const onCompleted = (): void => this.looks.remember(lock);
    return new ClaimedTransaction(connection, claim, statements, context, claimed, onCompleted);
  }
}

/** To go back to where a handler throws; not needed where its errors are not stored. */
function savepointOf({ mode }: Claim): Statement[] {
  return mode.kind === 'transaction' && mode.storesErrors ? [{ text: SAVEPOINT }] : [];
}

/** Gives up a claim: another's lock stood in the way, or the store cannot say. */
async function failClaim(connection: PooledConnection, error: unknown): Promise<ClaimOutcome> {
  const problem = problemOf(error);
  if (problem.kind === 'lost' && !(error instanceof IdempotencyFailure)) connection.release(true);
  else await connection.rollBackAndRelease();
  if (problem.kind === 'refused' && problem.sqlState === LOCK_NOT_AVAILABLE) return { kind: 'in-progress' };
  throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
}
