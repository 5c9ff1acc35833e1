import { AsyncResource } from 'node:async_hooks';
import type { Identity } from '../core/identity.js';
import type { Claim } from '../core/store.js';
import { acquire } from './acquire.js';
import { recordedFinding, type Recorded, type ReplayRow } from './claim-statement.js';
import { CompletedHere } from './completed-here.js';
import { AcquireTimeoutError, within, type PooledConnection } from './pooled-connection.js';
import { problemOf } from './sqlstate.js';
import type { PostgresStoreOptions } from './store-options.js';

/**
 * Identities that one statement asks for at most. What a statement costs by itself is hardly felt any more when so many share
 * it, and with more of them the first would wait longer for the answers of the others, which may be large.
 */
const MOST = 32;
/** Milliseconds after which a statement keeps those who come later waiting no longer: they share one on another connection. */
const OVERDUE = 100;

/** A request that waits to be told whether there is a record to replay. */
interface Look {
  readonly identity: Identity;
  readonly lock: string;
  /** Until when it waits for a connection, by the monotonic clock. */
  readonly until: number;
  readonly resolve: (row: ReplayRow | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Finds what is to be replayed, where this process knows of it, by one statement for all who ask at the same time. One is
 * under way at a time, on one connection of the pool; who comes meanwhile goes along with the next, so that nobody waits for
 * company, and the more come, the more share a statement.
 *
 * It decides nothing but a replay: whatever else there is, and whatever happens to a statement, the claim judges, each by
 * itself. That a connection breaks under many requests does not fail them.
 */
export class SharedLooks {
  readonly #completedHere = new CompletedHere();
  /** In the order of their arrival. */
  readonly #waiting: Look[] = [];
  /** Whether somebody is about to send, or has sent, the statement that those who come wait for. */
  #isTurnTaken = false;
  /** In the context of whoever made this: a statement belongs to none of the requests that share it. */
  readonly #take = AsyncResource.bind(() => void this.#send());

  constructor(private readonly options: PostgresStoreOptions) {}

  /** That there is a record of the identity with this lock. */
  remember(lock: string): void {
    this.#completedHere.add(lock);
  }

  /**
   * The record of a claim's identity, where this process knows of one; undefined where the claim has to judge.
   *
   * @throws IdempotencyFailure for a record that a newer release wrote, and when no connection is to be had in time.
   */
  async find({ identity }: Claim, lock: string): Promise<Recorded | undefined> {
    if (!this.#completedHere.has(lock)) return undefined;
    const row = await new Promise<ReplayRow | undefined>((resolve, reject) => {
      const until = performance.now() + this.options.acquireTimeout;
      this.#waiting.push({ identity, lock, until, resolve, reject });
      if (!this.#isTurnTaken) this.#passTurn();
    });
    return row && recordedFinding(row);
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
      else for (const look of this.#waiting.splice(0)) look.resolve(undefined);
      return undefined;
    }
  }

  /** Those have waited for a connection as long as a request does; who came later goes on waiting. */
  #giveUp(error: unknown): void {
    const now = performance.now();
    const due = this.#waiting.findIndex(({ until }) => until > now);
    for (const look of this.#waiting.splice(0, due < 0 ? Infinity : due)) look.reject(error);
  }

  /** Half the patience for the answer: a connection that died unnoticed leaves the claims time for another. Never rejects. */
  async #ask(connection: PooledConnection, looks: readonly Look[]): Promise<void> {
    const timer = setTimeout(() => connection.release(true), this.options.acquireTimeout / 2);
    try {
      const rows = await ask(connection, this.options.statements.look, looks);
      connection.release();
      for (const [index, look] of looks.entries()) {
        const row = rows.get(index + 1);
        if (!row) this.#completedHere.delete(look.lock);
        look.resolve(row);
      }
    } catch (error) {
      connection.release(problemOf(error).kind === 'lost');
      for (const look of looks) look.resolve(undefined);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Whether every connection of the pool was taken. */
function isExhausted(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof AcquireTimeoutError;
}

/** What was found, by the places of those who asked. */
async function ask(
  connection: PooledConnection,
  statement: string,
  looks: readonly Look[],
): Promise<Map<number, ReplayRow>> {
  const identities = looks.map(({ identity }) => identity);
  const { rows } = await connection.query<ReplayRow & { place: unknown }>(statement, [
    identities.map(({ client }) => client),
    identities.map(({ endpoint }) => endpoint),
    identities.map(({ key }) => key),
  ]);
  // A bigint, which applications may have set to be read as a string, a number or a BigInt.
  return new Map(rows.map((row) => [Number(row.place), row]));
}
