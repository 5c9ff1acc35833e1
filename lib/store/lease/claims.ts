import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { IdempotencyFailure } from '../../core/errors.js';
import { lockNumber } from '../../core/identity.js';
import { FORMAT_VERSION } from '../../core/record.js';
import type { Claim, ClaimOutcome } from '../../core/store.js';
import type { AfterCommit } from '../after-commit.js';
import type { Answer, Statement } from '../batch.js';
import type { PooledConnection } from '../connection.js';
import type { Looks } from '../looks.js';
import { repeatedly } from '../once.js';
import { failureBeforeCommit, LOCK_NOT_AVAILABLE, problemOf } from '../problems.js';
import { claimFinding, takeOverFinding, type Claimed, type Finding } from '../rows.js';
import type { PostgresStoreOptions } from '../store-options.js';
import { FORGETTING, LeaseExecution } from './execution.js';
import { LeaseStatements } from './statements.js';

/** Times a claim is tried again when a rival committed after its snapshot. */
const CLAIM_ATTEMPTS = 3;

/** Milliseconds between two tries to take a claim back. */
const TAKING_BACK_PAUSE = 1_000;
/**
 * Milliseconds the claim may wait for a lock that our own advisory locks do not cover: that of a row which somebody wrote by
 * hand. For the table's own it waits before the statement that sets this begins; that ends with `acquireTimeout`.
 */
const LOCK_TIMEOUT = '2000';
/** An unresolved lease is kept at least this long, in milliseconds, however short its time to live: 30 days. */
const UNRESOLVED_RETENTION = 30 * 86_400_000;

/** What holds the identity from the moment it is sent. */
interface Sending {
  readonly claim: Claim;
  /** The number of its lock. */
  readonly lock: string;
  /** One token for all repetitions: a claim whose acknowledgement was lost finds its own. */
  readonly token: string;
  /** When it was first sent, by the monotonic clock. */
  sentAt: number | undefined;
  /** Copies of it that were sent and not answered: each may still be under way. */
  unanswered: number;
}

/** Claims that are committed before the handler runs, and hold for as long as their owner extends them. */
export class LeaseClaims {
  #closed = false;

  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly afterCommit: AfterCommit,
    private readonly looks: Looks,
  ) {}

  /** Takes nothing back any more. */
  close(): void {
    this.#closed = true;
  }

  claim(claim: Claim): Promise<ClaimOutcome> {
    const lock = lockNumber(this.options.statements.table, claim.identity);
    return unlessLocked(async () => {
      const replay = await this.looks.find(claim, lock);
      if (replay) return replay;
      const sending = sendingOf(claim, lock);
      const finding = await this.#send(sending, (connection) => this.#claimOn(connection, sending));
      return this.#outcome(finding, sending);
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
        return this.#takeOver(sendingOf(claim, lock), null);
      case 'lapsed': {
        const takeOver = (): Promise<ClaimOutcome> =>
          unlessLocked(() => this.#takeOver(sendingOf(claim, lock), finding.attempt));
        return { kind: 'unresolved', attempt: { ...finding, takeOver } };
      }
      default:
        return finding;
    }
  }

  /** What came of a claim, tried again where a rival committed after its snapshot. */
  async #claimOn(
    connection: PooledConnection,
    sending: Sending,
  ): Promise<Exclude<Finding, { kind: 'again' }>> {
    for (let attempt = 1; attempt <= CLAIM_ATTEMPTS; attempt++) {
      const finding = claimFinding(await this.#sendOn(connection, sending, this.#claimStatement(sending)));
      if (finding.kind !== 'again') return finding;
    }
    return { kind: 'in-progress' };
  }

  async #takeOver(sending: Sending, lapsed: number | null): Promise<ClaimOutcome> {
    const send = async (connection: PooledConnection): Promise<Finding> => {
      const statement = this.#takeOverStatement(sending, lapsed);
      const taken = takeOverFinding(await this.#sendOn(connection, sending, statement));
      if (taken) return taken;
      // Either a rival was faster, or this very takeover succeeded and its acknowledgement was lost.
      const finding = await this.#claimOn(connection, sending);
      return finding.kind === 'claimed' ? finding : { kind: 'in-progress' };
    };
    const finding = await this.#send(sending, send);
    return finding.kind === 'claimed' ? this.#hold(finding, sending) : { kind: 'in-progress' };
  }

  async #sendOn(connection: PooledConnection, sending: Sending, statement: Statement): Promise<Answer> {
    sending.sentAt ??= performance.now();
    sending.unanswered += 1;
    try {
      const answer = await connection.sendAlone(statement);
      const pid = answer.rows[0]?.['pid'];
      if (pid) connection.met(pid);
      sending.unanswered -= 1;
      return answer;
    } catch (error) {
      if (problemOf(error).kind === 'refused') sending.unanswered -= 1;
      throw error;
    }
  }

  /**
   * Nothing that was not sent can be ours; what was sent is asked for as long as a request may wait. Whatever may still be
   * under way when it is known that this claim holds nothing is taken back, behind the answer: when it arrives it would look
   * like an attempt that began.
   */
  async #send<T extends Finding>(
    sending: Sending,
    work: (connection: PooledConnection) => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + this.options.acquireTimeout;
    let isClaimed = false;
    try {
      const finding = await repeatedly(this.options, work, (sent) => sent && performance.now() < deadline);
      isClaimed = finding.kind === 'claimed';
      return finding;
    } finally {
      if (!isClaimed) this.#takeBack(sending);
    }
  }

  /**
   * Takes back each copy that was not answered, in the buffers of a network that was silent: one that finds the identity free
   * claims it.
   */
  #takeBack(sending: Sending): void {
    const { unanswered } = sending;
    if (unanswered === 0) return;
    const until = performance.now() + FORGETTING;
    const isWorthwhile = (): boolean => !this.#closed && performance.now() < until;
    void takeBack(unanswered, () => this.#owner(sending).takeBack(isWorthwhile), isWorthwhile);
  }

  #owner({ claim, lock, token }: Sending): LeaseStatements {
    return new LeaseStatements(this.options, claim, token, leaseOf(claim), () => this.looks.remember(lock));
  }

  #hold(claimed: Claimed, sending: Sending): ClaimOutcome {
    const { claim, sentAt } = sending;
    const lease = { duration: leaseOf(claim), since: sentAt ?? performance.now() };
    const release = {
      isOwed: (): boolean => !this.#closed,
      onReleased: (): void => this.#takeBack(sending),
    };
    const execution = new LeaseExecution(
      claim,
      claimed,
      lease,
      this.#owner(sending),
      release,
      this.options,
      this.afterCommit,
    );
    return { kind: 'claimed', execution };
  }

  #claimStatement({ claim, lock, token }: Sending): Statement {
    const { client, endpoint, key } = claim.identity;
    const values = [
      lock,
      LOCK_TIMEOUT,
      String(claim.maxDuration),
      client,
      endpoint,
      key,
      ...insertedOf(claim, token),
    ];
    return { text: this.options.statements.claim, values };
  }

  /** Takes over the attempt that was found lapsed, or with null the record that was found expired. */
  #takeOverStatement({ claim, lock, token }: Sending, lapsed: number | null): Statement {
    const { client, endpoint, key } = claim.identity;
    const values = [lock, client, endpoint, key, ...insertedOf(claim, token), lapsed];
    return { text: this.options.statements.takeOver, values };
  }
}

/** What a claim writes, in the order of both statements. */
function insertedOf(claim: Claim, token: string): (string | number | Buffer)[] {
  const expiry = Math.max(claim.ttl, UNRESOLVED_RETENTION);
  return [claim.fingerprint, claim.mode.kind, FORMAT_VERSION, expiry, token, leaseOf(claim)];
}

/** As often as there are copies. */
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

function sendingOf(claim: Claim, lock: string): Sending {
  return { claim, lock, token: randomUUID(), sentAt: undefined, unanswered: 0 };
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
