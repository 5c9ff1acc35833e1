import type { DataSource } from 'typeorm';
import { idempotencyError, IdempotencyFailure } from '../core/errors.js';
import { lockNumber } from '../core/identity.js';
import {
  FORMAT_VERSION,
  type IdempotencyRecord,
  type RecordedHeader,
  type RecordStatus,
} from '../core/record.js';
import type { Claim, ClaimOutcome, IdempotencyStore, IsolationLevel } from '../core/store.js';
import { AfterCommit } from './after-commit.js';
import { ClaimedTransaction } from './claimed-transaction.js';
import { PooledConnection } from './pooled-connection.js';
import { failure, failureBeforeCommit, isConflict, LOCK_NOT_AVAILABLE, problemOf } from './sqlstate.js';
import { ROLLBACK, SAVEPOINT, type Statements } from './statements.js';

/** Milliseconds the claim may wait for a lock that our own advisory locks do not cover, such as a table's. */
const LOCK_TIMEOUT = '2000';
/** Times a claim is tried again when it lost a race whose outcome it could not see yet. */
const CLAIM_ATTEMPTS = 3;

/** What the store is told at boot. Times are milliseconds. */
export interface PostgresStoreOptions {
  readonly dataSource: DataSource;
  readonly statements: Statements;
  readonly defaultIsolation: IsolationLevel;
  readonly acquireTimeout: number;
}

/** The row that the claim statement answers with. */
interface ClaimRow {
  free: boolean;
  claimed_at: Date | null;
  fingerprint: Buffer | null;
  status: RecordStatus;
  mode: string;
  format_version: number;
  response_status: number | null;
  response_headers: RecordedHeader[] | null;
  response_body: Buffer | null;
  created_at: Date;
  live: boolean;
}

type Attempt =
  { kind: 'claimed'; createdAt: Date } | Exclude<ClaimOutcome, { kind: 'claimed' }> | { kind: 'again' };

/** Records in a PostgreSQL table, claimed and completed inside the transaction that the handler runs in. */
export class PostgresStore implements IdempotencyStore {
  readonly #afterCommit = new AfterCommit();

  constructor(private readonly options: PostgresStoreOptions) {}

  async claim(claim: Claim): Promise<ClaimOutcome> {
    const connection = await this.#acquire();
    // A server that vanished without closing the connection would leave the request waiting for hours.
    const watchdog = setTimeout(() => connection.release(true), claim.maxDuration);
    try {
      return await this.#claimOn(connection, claim);
    } finally {
      clearTimeout(watchdog);
    }
  }

  /** Resolves when what waited for a COMMIT has run. */
  drained(): Promise<void> {
    return this.#afterCommit.drained();
  }

  async #acquire(): Promise<PooledConnection> {
    try {
      return await PooledConnection.acquire(this.options.dataSource, this.options.acquireTimeout);
    } catch (error) {
      throw failure('IDEMPOTENCY_STORE_UNAVAILABLE', error);
    }
  }

  async #claimOn(connection: PooledConnection, claim: Claim): Promise<ClaimOutcome> {
    for (let attempt = 1; attempt <= CLAIM_ATTEMPTS; attempt++) {
      try {
        const outcome = await this.#attempt(connection, claim);
        if (outcome.kind === 'claimed') return await this.#open(connection, claim, outcome.createdAt);
        if (outcome.kind !== 'again') {
          // The answer need not wait for it, so that a replay costs no further round trip.
          void connection.rollBackAndRelease();
          return outcome;
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

  async #attempt(connection: PooledConnection, claim: Claim): Promise<Attempt> {
    const { statements } = this.options;
    const { client, endpoint, key } = claim.identity;
    await connection.query(statements.begin(claim.isolation));
    const { rows } = await connection.query<ClaimRow>(statements.claim, [
      lockNumber(statements.table, claim.identity),
      LOCK_TIMEOUT,
      String(claim.maxDuration),
      client,
      endpoint,
      key,
      claim.fingerprint,
      'transaction',
      FORMAT_VERSION,
      claim.ttl,
    ]);
    const outcome = interpret(rows[0]);
    return outcome.kind === 'expired' ? this.#takeOver(connection, claim) : outcome;
  }

  async #takeOver(connection: PooledConnection, claim: Claim): Promise<Attempt> {
    const { client, endpoint, key } = claim.identity;
    const values = [client, endpoint, key, claim.fingerprint, 'transaction', FORMAT_VERSION, claim.ttl];
    const { rows } = await connection.query<{ claimed_at: Date }>(this.options.statements.takeOver, values);
    // Skipped: the purge is deleting it this very moment.
    return rows[0] ? { kind: 'claimed', createdAt: rows[0].claimed_at } : { kind: 'in-progress' };
  }

  async #open(connection: PooledConnection, claim: Claim, createdAt: Date): Promise<ClaimOutcome> {
    if (claim.storesErrors) await connection.query(SAVEPOINT);
    const { dataSource, statements, defaultIsolation, acquireTimeout: patience } = this.options;
    const isolation = claim.isolation ?? defaultIsolation;
    const context = { dataSource, statements, isolation, patience, afterCommit: this.#afterCommit };
    const execution = new ClaimedTransaction(connection, claim, context, createdAt);
    await execution.announce();
    return { kind: 'claimed', execution };
  }
}

/** What the claim's row means. Not free and nothing to be seen: whoever holds the lock has not committed. */
function interpret(row: ClaimRow | undefined): Attempt | { kind: 'expired' } {
  if (!row) throw failure('IDEMPOTENCY_STORE_UNAVAILABLE');
  if (row.claimed_at) return { kind: 'claimed', createdAt: row.claimed_at };
  if (row.fingerprint === null) return { kind: row.free ? 'again' : 'in-progress' };
  if (!row.live) return { kind: row.free ? 'expired' : 'in-progress' };
  return { kind: 'recorded', record: recordOf(row, row.fingerprint) };
}

function recordOf(row: ClaimRow, fingerprint: Buffer): IdempotencyRecord {
  if (row.response_status === null && row.format_version <= FORMAT_VERSION) {
    throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RECORD_UNREADABLE'));
  }
  return {
    fingerprint,
    status: row.status,
    mode: row.mode,
    formatVersion: row.format_version,
    createdAt: row.created_at,
    response: {
      status: row.response_status ?? 0,
      headers: row.response_headers ?? [],
      body: row.response_body ?? Buffer.alloc(0),
    },
  };
}

/** Gives up a claim: another's lock stood in the way, or the store cannot say. */
async function failClaim(connection: PooledConnection, error: unknown): Promise<ClaimOutcome> {
  const problem = problemOf(error);
  if (problem.kind === 'lost' && !(error instanceof IdempotencyFailure)) connection.release(true);
  else await connection.rollBackAndRelease();
  if (problem.kind === 'refused' && problem.sqlState === LOCK_NOT_AVAILABLE) return { kind: 'in-progress' };
  throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
}
