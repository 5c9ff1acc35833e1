import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { IdempotencyFailure } from '../core/errors.js';
import { lockNumber } from '../core/identity.js';
import type { Claim, ClaimOutcome } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import { sendClaim, sendTakeOver, type Finding } from './claim-statement.js';
import { LeaseExecution } from './lease-execution.js';
import { LeaseStatements } from './lease-statements.js';
import type { PooledConnection } from './pooled-connection.js';
import type { SharedLooks } from './shared-looks.js';
import { repeatedly } from './single-statement.js';
import type { PostgresStoreOptions } from './store-options.js';
import { failureBeforeCommit, LOCK_NOT_AVAILABLE, problemOf } from './sqlstate.js';

/** Times a claim is tried again when a rival committed after its snapshot. */
const CLAIM_ATTEMPTS = 3;

/** Milliseconds between two tries to take a claim back. */
const TAKING_BACK_PAUSE = 1_000;
/** Milliseconds for which a claim that nobody heard of is taken back. */
const FORGETTING = 60_000;

type Claimed = Extract<Finding, { kind: 'claimed' }>;

/** Takes back a claim that nobody heard of. */
type Undo = (owner: LeaseStatements, isWorthwhile: () => boolean) => Promise<boolean>;

/** Nothing was there that still counts. */
const free: Undo = (owner, isWorthwhile) => owner.free(isWorthwhile);
/** An earlier attempt was there, whose outcome is as unknown as before. */
const lapse: Undo = (owner, isWorthwhile) => owner.lapse(false, isWorthwhile);

/** What holds the identity from the moment it is sent. */
interface Sending {
  readonly claim: Claim;
  /** The number of its lock. */
  readonly lock: string;
  /** One token for all repetitions: a claim whose acknowledgement was lost finds its own. */
  readonly token: string;
  /** When it was first sent, by the monotonic clock. */
  sentAt: number | undefined;
  /** How often it was sent. */
  copies: number;
}

/** Claims that are committed before the handler runs, and hold for as long as their owner extends them. */
export class LeaseClaims {
  #closed = false;

  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
    private readonly looks: SharedLooks,
  ) {}

  /** Takes nothing back any more. */
  close(): void {
    this.#closed = true;
  }

  claim(claim: Claim): Promise<ClaimOutcome> {
    const { statements } = this.options;
    const lock = lockNumber(statements.table, claim.identity);
    const sending = sendingOf(claim, lock);
    return unlessLocked(async () => {
      const replay = await this.looks.find(claim, lock);
      if (replay) return replay;
      for (let attempt = 1; attempt <= CLAIM_ATTEMPTS; attempt++) {
        const finding = await this.#send(
          sending,
          (connection) => sendClaim(connection, statements, claim, sending.token),
          free,
        );
        if (finding.kind !== 'again') return this.#outcome(finding, sending);
      }
      return { kind: 'in-progress' };
    });
  }

  async #outcome(finding: Exclude<Finding, { kind: 'again' }>, sending: Sending): Promise<ClaimOutcome> {
    const { claim, lock } = sending;
    switch (finding.kind) {
      case 'recorded':
        this.looks.remember(lock);
        return finding;
      case 'claimed':
        return this.#hold(finding, sending);
      case 'expired':
        return this.#takeOver(sendingOf(claim, lock), null, free);
      case 'lapsed': {
        const takeOver = (): Promise<ClaimOutcome> =>
          unlessLocked(() => this.#takeOver(sendingOf(claim, lock), finding.attempt, lapse));
        return { kind: 'unresolved', attempt: { ...finding, takeOver } };
      }
      default:
        return finding;
    }
  }

  async #takeOver(sending: Sending, lapsed: number | null, undo: Undo): Promise<ClaimOutcome> {
    const { claim, token } = sending;
    const { statements } = this.options;
    const send = async (connection: PooledConnection): Promise<Claimed | undefined> => {
      const taken = await sendTakeOver(connection, statements, claim, token, lapsed);
      if (taken) return taken;
      // Either a rival was faster, or this very takeover succeeded and its acknowledgement was lost.
      const finding = await sendClaim(connection, statements, claim, token);
      return finding.kind === 'claimed' ? finding : undefined;
    };
    const claimed = await this.#send(sending, send, undo);
    return claimed ? this.#hold(claimed, sending) : { kind: 'in-progress' };
  }

  /**
   * Nothing that was not sent can be ours; what was sent is asked for as long as a request may wait. Where that is in vain
   * it is taken back by `undo`, behind the answer: otherwise it would look like an attempt that began.
   */
  async #send<T>(
    sending: Sending,
    work: (connection: PooledConnection) => Promise<T>,
    undo: Undo,
  ): Promise<T> {
    const deadline = performance.now() + this.options.acquireTimeout;
    const send = (connection: PooledConnection): Promise<T> => {
      sending.sentAt ??= performance.now();
      sending.copies += 1;
      return work(connection);
    };
    try {
      return await repeatedly(this.options, send, (sent) => sent && performance.now() < deadline);
    } catch (error) {
      if (sending.sentAt !== undefined && isUnavailable(error)) {
        const until = performance.now() + FORGETTING;
        const isWorthwhile = (): boolean => !this.#closed && performance.now() < until;
        void takeBack(sending.copies, () => undo(this.#owner(sending), isWorthwhile), isWorthwhile);
      }
      throw error;
    }
  }

  #owner({ claim, lock, token }: Sending): LeaseStatements {
    return new LeaseStatements(this.options, claim, token, leaseOf(claim), () => this.looks.remember(lock));
  }

  #hold(claimed: Claimed, sending: Sending): ClaimOutcome {
    const { claim, sentAt } = sending;
    const lease = { duration: leaseOf(claim), since: sentAt ?? performance.now() };
    const execution = new LeaseExecution(claim, claimed, lease, this.#owner(sending), this.afterCommit);
    return { kind: 'claimed', execution };
  }
}

/**
 * The claim may still be on its way, in the buffers of a network that was silent, and arrive after it was taken back. Each
 * of its copies may: one that finds the identity free again claims it once more.
 */
async function takeBack(
  copies: number,
  undo: () => Promise<boolean>,
  isWorthwhile: () => boolean,
): Promise<void> {
  for (let found = 0; found < copies && isWorthwhile();) {
    if (await undo().catch(() => false)) found += 1;
    else await delay(TAKING_BACK_PAUSE, undefined, { ref: false });
  }
}

function leaseOf({ mode, maxDuration }: Claim): number {
  return mode.kind === 'lease' ? mode.lease : maxDuration;
}

function isUnavailable(error: unknown): boolean {
  return error instanceof IdempotencyFailure && error.error.code === 'IDEMPOTENCY_STORE_UNAVAILABLE';
}

function sendingOf(claim: Claim, lock: string): Sending {
  return { claim, lock, token: randomUUID(), sentAt: undefined, copies: 0 };
}

/** @throws IdempotencyFailure when the store cannot say. */
async function unlessLocked(work: () => Promise<ClaimOutcome>): Promise<ClaimOutcome> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof IdempotencyFailure) throw error;
    const problem = problemOf(error);
    if (problem.kind === 'refused' && problem.sqlState === LOCK_NOT_AVAILABLE) return { kind: 'in-progress' };
    throw failureBeforeCommit(error);
  }
}
