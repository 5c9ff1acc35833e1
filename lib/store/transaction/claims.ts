import { IdempotencyFailure } from '../../core/errors.js';
import { lockNumber } from '../../core/identity.js';
import type { Claim, ClaimOutcome, IsolationLevel } from '../../core/store.js';
import type { AfterCommit } from '../after-commit.js';
import type { Statement } from '../batch.js';
import type { PooledConnection } from '../connection.js';
import type { Looks } from '../looks.js';
import { acquire } from '../once.js';
import {
  failureBeforeCommit,
  isConflict,
  isForbidden,
  isForgotten,
  LOCK_NOT_AVAILABLE,
  problemOf,
} from '../problems.js';
import { guardOf, lockedLook, type Claimed, type Guard, type Look } from '../rows.js';
import { BEGIN_LOOK, COMMIT, ROLLBACK, SAVEPOINT } from '../sql.js';
import type { PostgresStoreOptions } from '../store-options.js';
import { ClaimedTransaction } from './execution.js';

/** Times a claim is tried again when it lost a race whose outcome it could not see yet. */
const CLAIM_ATTEMPTS = 3;

/** What a claim found that is not for it to run. */
type Refusal = Exclude<Look, { kind: 'nothing' | 'expired' }>;

/** A claim with the number of its lock, and the attempt that it may run in place of, of those whose outcome is unknown. */
interface Claiming {
  readonly claim: Claim;
  readonly lock: string;
  readonly lapsed: number | null;
  /** Whether it was refused on a session that may have been left with another role, and is tried on another. */
  readonly isSecond?: boolean;
}

/** Claims inside the transaction that the handler will run in. */
export class TransactionClaims {
  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
    private readonly looks: Looks,
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
        const found = await this.#enter(connection, claiming);
        if (found.kind === 'claimed') return this.#open(connection, claiming, found);
        // The answer need not wait for it, so that a replay costs no further round trip.
        void connection.rollBackAndRelease();
        return this.#outcome(found, claiming);
      } catch (error) {
        if (isForbidden(error) && !claiming.isSecond) {
          connection.release(true);
          return this.#claim({ ...claiming, isSecond: true });
        }
        if (!isTriedAgain(error) || attempt === CLAIM_ATTEMPTS) return await failClaim(connection, error);
      }
      await connection.send([{ text: ROLLBACK }]);
    }
  }

  /**
   * Begins, tries the lock and looks, in one piece; the savepoint does no harm where there is nothing to undo. What is there
   * stays untouched: the record is written over it at the end.
   */
  async #enter(connection: PooledConnection, { claim, lock, lapsed }: Claiming): Promise<Claimed | Refusal> {
    const { begin, lock: lockText, look: lookText } = this.options.statements;
    const { client, endpoint, key } = claim.identity;
    const isolation = this.#isolation(claim);
    const look = { text: lookText, values: [client, endpoint, key] };
    const own = [{ text: begin(isolation) }, { text: lockText, values: [lock, String(claim.maxDuration)] }];
    // A look within would lock the page of the index into which rivals with other keys insert. A rival that commits between
    // the look and the lock is met by the unique constraint.
    const isApart = isolation === 'SERIALIZABLE';
    const piece: Statement[] = isApart
      ? [{ text: BEGIN_LOOK }, look, { text: COMMIT }, ...own, ...savepointOf(claim)]
      : [...own, look, ...savepointOf(claim)];
    const answers = await connection.sendAll(piece);
    const [looked, locked] = isApart ? [1, 4] : [2, 1];
    const guard = guardOf(answers[locked]);
    connection.met(guard.pid);
    return claimedOf(guard, lockedLook(guard, answers[looked]), lapsed);
  }

  #outcome(found: Refusal, claiming: Claiming): ClaimOutcome {
    if (found.kind === 'recorded') this.looks.remember(claiming.lock);
    if (found.kind !== 'lapsed') return found;
    const takeOver = (): Promise<ClaimOutcome> => this.#claim({ ...claiming, lapsed: found.attempt });
    return { kind: 'unresolved', attempt: { ...found, takeOver } };
  }

  #isolation({ mode }: Claim): IsolationLevel {
    return (mode.kind === 'transaction' ? mode.isolation : undefined) ?? this.options.isolation;
  }

  #open(connection: PooledConnection, { claim, lock }: Claiming, claimed: Claimed): ClaimedTransaction {
    const { host, statements, acquireTimeout: patience } = this.options;
    const context = { host, isolation: this.#isolation(claim), patience, afterCommit: this.afterCommit };
    const onCompleted = (): void => this.looks.remember(lock);
    return new ClaimedTransaction(connection, claim, statements, context, claimed, onCompleted);
  }
}

/** Whether what was found is for this claim to run, and over what its record is to be written then. */
function claimedOf(guard: Guard, look: Look, lapsed: number | null): Claimed | Refusal {
  const { began, role } = guard;
  const createdAt = new Date(Number(began) / 1_000);
  switch (look.kind) {
    case 'nothing':
    case 'expired': {
      const over = look.kind === 'nothing' ? 'nothing' : 'expired';
      return { kind: 'claimed', createdAt, attempt: 1, row: { kind: 'unwritten', began, role, over } };
    }
    case 'lapsed':
      if (look.attempt !== lapsed) return look;
      // Whoever holds the lock may be about to take it over.
      if (!guard.free) return { kind: 'in-progress' };
      return {
        kind: 'claimed',
        createdAt: look.createdAt,
        attempt: look.attempt + 1,
        row: { kind: 'unwritten', began, role, over: { lapsed: look.attempt } },
      };
    default:
      return look;
  }
}

/** To go back to where a handler throws; not needed where its errors are not stored. */
function savepointOf({ mode }: Claim): Statement[] {
  return mode.kind === 'transaction' && mode.storesErrors ? [{ text: SAVEPOINT }] : [];
}

/** Whether the claim gave way to another transaction, or its session had forgotten what was prepared. */
function isTriedAgain(error: unknown): boolean {
  const problem = problemOf(error);
  return problem.kind === 'refused' && (isConflict(problem.sqlState) || isForgotten(error));
}

/** Gives up a claim: another's lock stood in the way, or the store cannot say. */
async function failClaim(connection: PooledConnection, error: unknown): Promise<ClaimOutcome> {
  const problem = problemOf(error);
  if (problem.kind === 'lost' && !(error instanceof IdempotencyFailure)) connection.release(true);
  else await connection.rollBackAndRelease();
  if (problem.kind === 'refused' && problem.sqlState === LOCK_NOT_AVAILABLE) return { kind: 'in-progress' };
  throw failureBeforeCommit(connection.reasonOf(error));
}
