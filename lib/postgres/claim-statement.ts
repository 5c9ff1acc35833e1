import { IdempotencyFailure, idempotencyError } from '../core/errors.js';
import { lockNumber } from '../core/identity.js';
import {
  FORMAT_VERSION,
  type IdempotencyRecord,
  type RecordedHeader,
  type RecordStatus,
} from '../core/record.js';
import type { Claim } from '../core/store.js';
import type { PooledConnection } from './pooled-connection.js';
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

/** What a claim found. */
export type Finding =
  | { readonly kind: 'claimed'; readonly createdAt: Date; readonly attempt: number }
  | { readonly kind: 'recorded'; readonly record: IdempotencyRecord }
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
  attempt: number;
  live: boolean;
  mine: boolean | null;
  remaining: number | null;
}

/** Sends the claim. */
export async function sendClaim(
  connection: PooledConnection,
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
): Promise<Finding> {
  const { client, endpoint, key } = claim.identity;
  const { rows } = await connection.query<ClaimRow>(statements.claim, [
    lockNumber(statements.table, claim.identity),
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
  ]);
  return interpret(rows[0]);
}

/** Takes over the attempt that was found lapsed, or with null the record that was found expired; undefined when it is gone. */
export async function sendTakeOver(
  connection: PooledConnection,
  statements: Statements,
  claim: Claim,
  token: OwnerToken,
  lapsed: number | null,
): Promise<Extract<Finding, { kind: 'claimed' }> | undefined> {
  const { client, endpoint, key } = claim.identity;
  const { rows } = await connection.query<{ claimed_at: Date; attempt: number }>(statements.takeOver, [
    lockNumber(statements.table, claim.identity),
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
  ]);
  const [row] = rows;
  return row && { kind: 'claimed', createdAt: row.claimed_at, attempt: row.attempt };
}

function leaseOf({ mode }: Claim): number | null {
  return mode.kind === 'lease' ? mode.lease : null;
}

function expiry({ mode, ttl }: Claim): number {
  return mode.kind === 'lease' ? Math.max(ttl, UNRESOLVED_RETENTION) : ttl;
}

/** What the row means. Not free and nothing to be seen: whoever holds the lock has not committed. */
function interpret(row: ClaimRow | undefined): Finding {
  if (!row) throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'));
  if (row.claimed_at) return { kind: 'claimed', createdAt: row.claimed_at, attempt: 1 };
  const { fingerprint, created_at: createdAt, attempt, remaining } = row;
  if (fingerprint === null) return { kind: row.free ? 'again' : 'in-progress' };
  if (!row.live) return { kind: row.free ? 'expired' : 'in-progress' };
  if (row.format_version > FORMAT_VERSION || !isKnownMode(row.mode)) {
    throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RECORD_UNREADABLE'));
  }
  if (row.status !== 'processing')
    return { kind: 'recorded', record: recordOf(row, row.status, fingerprint) };
  // The acknowledgement of this very claim was lost.
  if (row.mine) return { kind: 'claimed', createdAt, attempt };
  if (remaining !== null && remaining <= 0) return { kind: 'lapsed', fingerprint, attempt, createdAt };
  return remaining === null ? { kind: 'in-progress' } : { kind: 'in-progress', remaining };
}

function isKnownMode(mode: string): boolean {
  return mode === 'transaction' || mode === 'lease';
}

function recordOf(
  row: ClaimRow,
  status: IdempotencyRecord['status'],
  fingerprint: Buffer,
): IdempotencyRecord {
  const { response_status: sent, response_headers: headers, response_body: body } = row;
  const response =
    sent === null ? undefined : { status: sent, headers: headers ?? [], body: body ?? Buffer.alloc(0) };
  return { status, fingerprint, formatVersion: row.format_version, createdAt: row.created_at, response };
}
