import { IdempotencyFailure, idempotencyError } from '../core/errors.js';
import { lockNumber } from '../core/identity.js';
import {
  FORMAT_VERSION,
  type IdempotencyRecord,
  type RecordedHeader,
  type RecordStatus,
} from '../core/record.js';
import type { Claim } from '../core/store.js';
import type { Answer, Statement } from './batch.js';
import type { PooledConnection } from './pooled-connection.js';
import { headersOf, timeOf, type Time } from './row-values.js';
import type { Statements } from './statements.js';

/**
 * Milliseconds the claim may wait for a lock that our own advisory locks do not cover: that of a row which somebody wrote by
 * hand. For the table's own it waits before the statement that sets this begins; that ends with `acquireTimeout`.
 */
const LOCK_TIMEOUT = '2000';
/** An unresolved lease is kept at least this long, in milliseconds, however short its time to live: 30 days. */
const UNRESOLVED_RETENTION = 30 * 86_400_000;

/** Who claims: in lease mode the token that marks the row as the owner's, otherwise null. */
export type OwnerToken = string | null;

/** The row of who claimed: in the table already, or to be written by the transaction that began then. */
type ClaimedRow = { readonly kind: 'processing' } | { readonly kind: 'none'; readonly began: string };

const PROCESSING: ClaimedRow = { kind: 'processing' };

/** A record to replay. */
export interface Recorded {
  readonly kind: 'recorded';
  readonly record: IdempotencyRecord;
}

/** What a claim found. */
export type Finding =
  | {
      readonly kind: 'claimed';
      readonly createdAt: Date;
      readonly attempt: number;
      readonly row: ClaimedRow;
    }
  | Recorded
  | { readonly kind: 'in-progress'; readonly remaining?: number }
  | { readonly kind: 'expired' }
  | {
      readonly kind: 'lapsed';
      readonly fingerprint: Buffer;
      readonly attempt: number;
      readonly createdAt: Date;
    }
  /** A rival committed after the statement's snapshot. */
  | { readonly kind: 'again' };

/** What a look behind the lock found: no rival can have committed unseen. */
export type Found = Exclude<Finding, { kind: 'again' }>;

export type Claimed = Extract<Finding, { kind: 'claimed' }>;

/** What a replay is made of. */
export interface ReplayRow {
  fingerprint: Buffer;
  status: RecordStatus;
  mode: string;
  format_version: number;
  response_status: number | null;
  response_headers: RecordedHeader[] | string | null;
  response_body: Buffer | null;
  created_at: Time;
}

/** The row of an identity. */
interface ExistingRow extends ReplayRow {
  attempt: number;
  live: boolean;
  remaining: number | null;
}

/** What the lock statement answers with. */
interface LockRow {
  free: boolean;
  locked_at: Time;
  /** As text, because a Date has no microseconds. */
  began: string;
}

/** The row that the claim statement answers with. */
interface ClaimRow extends Omit<ExistingRow, 'fingerprint'> {
  free: boolean;
  claimed_at: Time | null;
  fingerprint: Buffer | null;
  mine: boolean | null;
}

/** The statement that takes an identity for a transaction; {@link lockedFinding} reads its answer. */
export function lockStatement(statements: Statements, lock: string, { maxDuration }: Claim): Statement {
  return { text: statements.lock, values: [lock, String(maxDuration)] };
}

/** The statement that looks at an identity, sent behind the lock. */
export function existingStatement(statements: Statements, { identity }: Claim): Statement {
  return { text: statements.existing, values: [identity.client, identity.endpoint, identity.key] };
}

/** What the answers to both mean. */
export function lockedFinding(locked: Answer | undefined, existing: Answer | undefined): Found {
  const guard = locked?.rows[0] as LockRow | undefined;
  if (!guard || !existing) throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'));
  const [row] = existing.rows as ExistingRow[];
  if (row) return existingFinding(row, guard.free);
  // Whoever holds the lock has not committed.
  if (!guard.free) return { kind: 'in-progress' };
  return {
    kind: 'claimed',
    createdAt: timeOf(guard.locked_at),
    attempt: 1,
    row: { kind: 'none', began: guard.began },
  };
}

/** The claim; {@link claimFinding} reads its answer. */
function claimStatement(
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
  lock = lockNumber(statements.table, claim.identity),
): Statement {
  const { client, endpoint, key } = claim.identity;
  const values = [
    lock,
    LOCK_TIMEOUT,
    String(claim.maxDuration),
    client,
    endpoint,
    key,
    claim.fingerprint,
    claim.mode.kind,
    FORMAT_VERSION,
    expiry(claim),
    token,
    leaseOf(claim),
  ];
  return { text: statements.claim, values };
}

/** Takes over the attempt that was found lapsed, or with null the record that was found expired. */
export function takeOverStatement(
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
  lapsed: number | null,
  lock = lockNumber(statements.table, claim.identity),
): Statement {
  const { client, endpoint, key } = claim.identity;
  const values = [
    lock,
    client,
    endpoint,
    key,
    claim.fingerprint,
    claim.mode.kind,
    FORMAT_VERSION,
    expiry(claim),
    token,
    leaseOf(claim),
    lapsed,
  ];
  return { text: statements.takeOver, values };
}

/** Sends the claim by itself. */
export async function sendClaim(
  connection: PooledConnection,
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
): Promise<Finding> {
  const [answer] = await connection.sendAll([claimStatement(statements, claim, token)]);
  return claimFinding(answer);
}

/** Sends the takeover by itself; undefined when what was found is gone. */
export async function sendTakeOver(
  connection: PooledConnection,
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
  lapsed: number | null,
): Promise<Claimed | undefined> {
  const [answer] = await connection.sendAll([takeOverStatement(statements, claim, token, lapsed)]);
  return takeOverFinding(answer);
}

function leaseOf({ mode }: Claim): number | null {
  return mode.kind === 'lease' ? mode.lease : null;
}

function expiry({ mode, ttl }: Claim): number {
  return mode.kind === 'lease' ? Math.max(ttl, UNRESOLVED_RETENTION) : ttl;
}

/** What the answer to a claim means. Not free and nothing to be seen: whoever holds the lock has not committed. */
function claimFinding(answer: Answer | undefined): Finding {
  const row = answer?.rows[0] as ClaimRow | undefined;
  if (!row) throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'));
  if (row.claimed_at) {
    return { kind: 'claimed', createdAt: timeOf(row.claimed_at), attempt: 1, row: PROCESSING };
  }
  const { fingerprint, created_at: createdAt, attempt, free } = row;
  if (fingerprint === null) return { kind: free ? 'again' : 'in-progress' };
  // The acknowledgement of this very claim was lost.
  if (row.mine && row.live && row.status === 'processing') {
    return { kind: 'claimed', createdAt: timeOf(createdAt), attempt, row: PROCESSING };
  }
  return existingFinding({ ...row, fingerprint }, free);
}

/** What a row means that was there before. */
function existingFinding(row: ExistingRow, free: boolean): Found {
  if (!row.live) return { kind: free ? 'expired' : 'in-progress' };
  if (row.status !== 'processing') return recordedFinding(row);
  assertReadable(row);
  const { fingerprint, created_at: createdAt, attempt, remaining } = row;
  if (remaining !== null && remaining <= 0) {
    return { kind: 'lapsed', fingerprint, attempt, createdAt: timeOf(createdAt) };
  }
  return remaining === null ? { kind: 'in-progress' } : { kind: 'in-progress', remaining };
}

/** What the answer to a takeover means; undefined when there was nothing to take over any more. */
export function takeOverFinding(answer: Answer | undefined): Claimed | undefined {
  const row = answer?.rows[0] as { claimed_at: Time; attempt: number } | undefined;
  return row && { kind: 'claimed', createdAt: timeOf(row.claimed_at), attempt: row.attempt, row: PROCESSING };
}

/** What a row means that is to be replayed. @throws IdempotencyFailure for what a newer release wrote. */
export function recordedFinding(row: ReplayRow): Recorded {
  assertReadable(row);
  const { response_status: sent, response_headers: headers, response_body: body } = row;
  const response =
    sent === null ? undefined : { status: sent, headers: headersOf(headers), body: body ?? Buffer.alloc(0) };
  const { status, fingerprint, format_version: formatVersion, created_at: createdAt } = row;
  const record: IdempotencyRecord = {
    status: status as IdempotencyRecord['status'],
    fingerprint,
    formatVersion,
    createdAt: timeOf(createdAt),
    response,
  };
  return { kind: 'recorded', record };
}

/** @throws IdempotencyFailure for what a newer release wrote. */
function assertReadable({ format_version: version, mode }: Pick<ReplayRow, 'format_version' | 'mode'>): void {
  if (version > FORMAT_VERSION || (mode !== 'transaction' && mode !== 'lease'))
    throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RECORD_UNREADABLE'));
}
