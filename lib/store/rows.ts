import { IdempotencyFailure, idempotencyError } from '../core/errors.js';
import {
  FORMAT_VERSION,
  type IdempotencyRecord,
  type RecordedHeader,
  type RecordedResponse,
  type RecordStatus,
} from '../core/record.js';
import type { Answer, Raw } from './batch.js';

/** A time that was read as microseconds. */
export const timeOf = (microseconds: string): Date => new Date(Number(microseconds) / 1_000);

export const optionalTimeOf = (microseconds: Raw): Date | undefined =>
  microseconds === null ? undefined : timeOf(microseconds);

export const isTrue = (value: Raw | undefined): boolean => value === 't';

const bytesOf = (digits: Raw): Buffer => Buffer.from(digits ?? '', 'hex');

/** The row of who claimed: in the table already, or to be written by the transaction that began then, over what it found. */
export type ClaimedRow =
  | { readonly kind: 'processing' }
  | {
      readonly kind: 'unwritten';
      /** When the transaction began, in microseconds. */
      readonly began: string;
      readonly role: ClaimRole;
      readonly over: 'nothing' | 'expired' | { readonly lapsed: number };
    };

/** Who was in force at the claim. */
interface ClaimRole {
  readonly role: string;
  /** The user of the session. */
  readonly login: string;
}

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

export type Claimed = Extract<Finding, { kind: 'claimed' }>;

/** What is there for a transaction: nothing may be, and the lock is free or not. */
export type Look =
  Exclude<Finding, { kind: 'again' | 'claimed' }> | { readonly kind: 'nothing'; readonly guard: Guard };

/** What the lock statement answers with. */
export interface Guard {
  readonly free: boolean;
  readonly began: string;
  readonly role: ClaimRole;
  /** The process of the server that answered. */
  readonly pid: string;
}

/** What a replay is made of. */
export interface ReplayRow {
  fingerprint: string;
  status: RecordStatus;
  mode: string;
  format_version: string;
  response_status: Raw;
  response_headers: Raw;
  response_body: Raw;
  created_at: string;
}

/** The row of an identity. */
interface ExistingRow extends ReplayRow {
  attempt: string;
  live: string;
  remaining: Raw;
}

/** The row that the claim statement answers with. */
interface ClaimRow extends Omit<ExistingRow, 'fingerprint'> {
  free: string;
  pid: string;
  claimed_at: Raw;
  fingerprint: Raw;
  mine: Raw;
}

/** The answer of the lock statement. */
export function guardOf(answer: Answer | undefined): Guard {
  const row = answer?.rows[0];
  if (!row) throw unanswered();
  const { free = null, began, role, login, pid } = row;
  return {
    free: isTrue(free),
    began: began ?? '',
    role: { role: role ?? '', login: login ?? '' },
    pid: pid ?? '',
  };
}

/** What the answers of lock and look mean together. */
export function lockedLook(guard: Guard, look: Answer | undefined): Look {
  if (!look) throw unanswered();
  const [row] = look.rows as unknown as ExistingRow[];
  if (row) return existingFinding(row, guard.free);
  // Whoever holds the lock has not committed.
  return guard.free ? { kind: 'nothing', guard } : { kind: 'in-progress' };
}

/** What the answer to a claim means. Not free and nothing to be seen: whoever holds the lock has not committed. */
export function claimFinding(answer: Answer | undefined): Finding {
  const row = answer?.rows[0] as unknown as ClaimRow | undefined;
  if (!row) throw unanswered();
  if (row.claimed_at) return claimedAs(row.claimed_at, 1);
  const { fingerprint, created_at: createdAt, attempt } = row;
  const isFree = isTrue(row.free);
  if (fingerprint === null) return { kind: isFree ? 'again' : 'in-progress' };
  // The acknowledgement of this very claim was lost.
  if (isTrue(row.mine) && isTrue(row.live) && row.status === 'processing') {
    return claimedAs(createdAt, Number(attempt));
  }
  return existingFinding({ ...row, fingerprint }, isFree);
}

/** What the answer to a takeover means; undefined when there was nothing to take over any more. */
export function takeOverFinding(answer: Answer | undefined): Claimed | undefined {
  const row = answer?.rows[0] as { claimed_at: string; attempt: string } | undefined;
  return row && claimedAs(row.claimed_at, Number(row.attempt));
}

function claimedAs(createdAt: string, attempt: number): Claimed {
  return { kind: 'claimed', createdAt: timeOf(createdAt), attempt, row: { kind: 'processing' } };
}

/** What a row means that was there before. */
function existingFinding(row: ExistingRow, isFree: boolean): Exclude<Look, { kind: 'nothing' }> {
  if (!isTrue(row.live)) return { kind: isFree ? 'expired' : 'in-progress' };
  if (row.status !== 'processing') return recordedFinding(row);
  assertReadable(row);
  const remaining = row.remaining === null ? undefined : Number(row.remaining);
  if (remaining === undefined) return { kind: 'in-progress' };
  if (remaining > 0) return { kind: 'in-progress', remaining };
  return {
    kind: 'lapsed',
    fingerprint: bytesOf(row.fingerprint),
    attempt: Number(row.attempt),
    createdAt: timeOf(row.created_at),
  };
}

/** The record to replay of a look that claims nothing; undefined where the claim has to judge. */
export function replayFinding(row: ExistingRow | undefined): Recorded | undefined {
  return row && isTrue(row.live) && row.status !== 'processing' ? recordedFinding(row) : undefined;
}

/** What a row means that is to be replayed. @throws IdempotencyFailure for what a newer release wrote. */
export function recordedFinding(row: ReplayRow): Recorded {
  assertReadable(row);
  const record: IdempotencyRecord = {
    status: row.status as IdempotencyRecord['status'],
    fingerprint: bytesOf(row.fingerprint),
    formatVersion: Number(row.format_version),
    createdAt: timeOf(row.created_at),
    response: responseOf(row),
  };
  return { kind: 'recorded', record };
}

/** The recorded answer; undefined while there is none, and for a tombstone. */
export function responseOf({
  response_status: status,
  response_headers: headers,
  response_body: body,
}: Pick<ReplayRow, 'response_status' | 'response_headers' | 'response_body'>): RecordedResponse | undefined {
  if (status === null) return undefined;
  const recorded = JSON.parse(headers ?? '[]') as RecordedHeader[];
  return { status: Number(status), headers: recorded, body: bytesOf(body) };
}

/** @throws IdempotencyFailure for what a newer release wrote. */
function assertReadable({ format_version: version, mode }: Pick<ReplayRow, 'format_version' | 'mode'>): void {
  if (Number(version) > FORMAT_VERSION || (mode !== 'transaction' && mode !== 'lease'))
    throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RECORD_UNREADABLE'));
}

function unanswered(): IdempotencyFailure {
  return new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'));
}
