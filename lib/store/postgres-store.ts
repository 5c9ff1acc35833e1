import type { Claim, ClaimOutcome, IdempotencyStore } from '../core/store.js';
import { AfterCommit } from './after-commit.js';
import { LeaseClaims } from './lease/claims.js';
import { Looks } from './looks.js';
import type { PostgresStoreOptions } from './store-options.js';
import { TransactionClaims } from './transaction/claims.js';

/** Records in one PostgreSQL table, claimed and completed as their mode asks. */
export class PostgresStore implements IdempotencyStore {
  readonly #afterCommit = new AfterCommit();
  readonly #transactions: TransactionClaims;
  readonly #leases: LeaseClaims;

  constructor(options: PostgresStoreOptions) {
    const looks = new Looks(options);
    this.#transactions = new TransactionClaims(options, this.#afterCommit, looks);
    this.#leases = new LeaseClaims(options, this.#afterCommit, looks);
  }

  claim(claim: Claim): Promise<ClaimOutcome> {
    return claim.mode.kind === 'transaction' ? this.#transactions.claim(claim) : this.#leases.claim(claim);
  }

  /** Resolves when what waited for a COMMIT has run. */
  drained(): Promise<void> {
    return this.#afterCommit.drained();
  }

  /** Ends what goes on behind the answers. Claims that were being taken back lapse by themselves. */
  async close(): Promise<void> {
    this.#leases.close();
    await this.drained();
  }
}
