import { AsyncResource } from 'node:async_hooks';
import type { Identity } from '../core/identity.js';
import type { Claim } from '../core/store.js';
import { within, type PooledConnection } from './connection.js';
import { acquire } from './once.js';
import { AcquireTimeoutError, isForbidden, problemOf } from './problems.js';
import { recordedFinding, replayFinding, type Recorded, type ReplayRow } from './rows.js';
import { BEGIN_LOOK } from './sql.js';
import type { PostgresStoreOptions } from './store-options.js';

/**
 * Identities that one statement asks for at most. What a statement costs by itself is hardly felt any more when so many share
 * it, and with more of them the first would wait longer for the answers of the others, which may be large.
 */
const MOST = 32;
/** Milliseconds after which a statement keeps those who come later waiting no longer: they share one on another connection. */
const OVERDUE = 100;
/** Identities remembered by one process; each takes about 100 bytes. */
const CAPACITY = 10_000;

/** A request that waits to be told whether there is a record to replay. */
interface Waiting {
  readonly identity: Identity;
  readonly lock: string;
  /** Until when it waits for a connection, by the monotonic clock. */
  readonly until: number;
  readonly resolve: (found: Recorded | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Finds what is to be replayed, where this process knows of it, by one statement for all who ask at the same time. One is
 * under way at a time, on one connection of the pool; who comes meanwhile goes along with the next, so that nobody waits for
 * company, and the more come, the more share a statement. Who is alone is asked for alone, which is quicker.
 *
 * It decides nothing but a replay: whatever else there is, and whatever happens to a statement, the claim judges, each by
 * itself. That a connection breaks under many requests does not fail them.
 */
export class Looks {
  /**
   * Identities that this process knows to be completed, by the number of their lock, so that the key itself is not kept, the
   * oldest first. Only a hint: a record may have expired or been released since, and two identities may share a number.
   */
  readonly #completedHere = new Set<string>();
  /** In the order of their arrival. */
  readonly #waiting: Waiting[] = [];
  /** Whether somebody is about to send, or has sent, the statement that those who come wait for. */
  #isTurnTaken = false;
  /** In the context of whoever made this: a statement belongs to none of the requests that share it. */
  readonly #take = AsyncResource.bind(() => void this.#send());

  constructor(
    private readonly options: PostgresStoreOptions,
    private readonly capacity = CAPACITY,
  ) {}

  /** That there is a record of the identity with this lock. Forgets the oldest for it where there are too many. */
  remember(lock: string): void {
    const known = this.#completedHere;
    known.add(lock);
    if (known.size <= this.capacity) return;
    for (const oldest of known) {
      known.delete(oldest);
      break;
    }
  }

  /**
   * The record of a claim's identity, where this process knows of one; undefined where the claim has to judge.
   *
   * @throws IdempotencyFailure for a record that a newer release wrote, and when no connection is to be had in time.
   */
  find({ identity }: Claim, lock: string): Promise<Recorded | undefined> | undefined {
    if (!this.#completedHere.has(lock)) return undefined;
    return new Promise<Recorded | undefined>((resolve, reject) => {
      const until = performance.now() + this.options.acquireTimeout;
      this.#waiting.push({ identity, lock, until, resolve, reject });
      if (!this.#isTurnTaken) this.#passTurn();
    });
  }

  /** Requests whose bytes have arrived together come one after the other in one turn of the event loop, and go together. */
  #passTurn(): void {
    this.#isTurnTaken = this.#waiting.length > 0;
    if (this.#isTurnTaken) setImmediate(this.#take);
  }

  async #send(): Promise<void> {
    const connection = await this.#connect();
    if (connection) await within(OVERDUE, this.#ask(connection, this.#waiting.splice(0, MOST)));
    this.#passTurn();
  }

  /** A connection for those who wait; undefined where there is none, and those whom that concerns have been told. */
  async #connect(): Promise<PooledConnection | undefined> {
    const patience = Math.max(0, (this.#waiting[0]?.until ?? 0) - performance.now());
    try {
      return await acquire(this.options, patience);
    } catch (error) {
      if (isExhausted(error)) this.#giveUp(error);
      // Refused at once: one that somebody gives back may still be had by a claim.
      else for (const each of this.#waiting.splice(0)) each.resolve(undefined);
      return undefined;
    }
  }

  /** Those have waited for a connection as long as a request does; who came later goes on waiting. */
  #giveUp(error: unknown): void {
    const now = performance.now();
    const due = this.#waiting.findIndex(({ until }) => until > now);
    for (const each of this.#waiting.splice(0, due < 0 ? Infinity : due)) each.reject(error);
  }

  /** Half the patience for the answer: a connection that died unnoticed leaves the claims time for another. Never rejects. */
  async #ask(connection: PooledConnection, all: readonly Waiting[]): Promise<void> {
    const timer = setTimeout(() => connection.release(true), this.options.acquireTimeout / 2);
    try {
      const found = await this.#look(connection, all);
      connection.release();
      for (const [index, each] of all.entries()) this.#answer(each, found.get(index));
    } catch (error) {
      if (problemOf(error).kind === 'lost' || isForbidden(error)) connection.release(true);
      else await connection.rollBackAndRelease();
      for (const each of all) each.resolve(undefined);
    } finally {
      clearTimeout(timer);
    }
  }

  #answer({ lock, resolve, reject }: Waiting, found: (() => Recorded | undefined) | undefined): void {
    try {
      const recorded = found?.();
      if (!recorded) this.#completedHere.delete(lock);
      resolve(recorded);
    } catch (error) {
      reject(error);
    }
  }

  /** What there is to replay, by the places of those who asked. */
  async #look(
    connection: PooledConnection,
    all: readonly Waiting[],
  ): Promise<Map<number, () => Recorded | undefined>> {
    const { look, lookForAll } = this.options.statements;
    const identities = all.map(({ identity }) => identity);
    const [only] = identities;
    if (only && identities.length === 1) {
      const values = [only.client, only.endpoint, only.key];
      const { rows } = await connection.sendAlone({ text: look, values }, BEGIN_LOOK);
      const [row] = rows as unknown as Parameters<typeof replayFinding>;
      return new Map([[0, () => replayFinding(row)]]);
    }
    const values = [
      identities.map(({ client }) => client),
      identities.map(({ endpoint }) => endpoint),
      identities.map(({ key }) => key),
    ];
    const { rows } = await connection.sendAlone({ text: lookForAll, values }, BEGIN_LOOK);
    const found = rows as unknown as (ReplayRow & { place: string })[];
    return new Map(found.map((row) => [Number(row.place) - 1, () => recordedFinding(row)]));
  }
}

/** Whether every connection of the pool was taken. */
function isExhausted(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof AcquireTimeoutError;
}
