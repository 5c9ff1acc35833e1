import { derivedKey } from './derived-key.js';
import { idempotencyError, IdempotencyFailure, outcomeUnresolved, type IdempotencyError } from './errors.js';
import type { Notify } from './events.js';
import { FINGERPRINT_VERSION } from './fingerprint.js';
import { Flights, type Flight, type FlightEnd, type OnDeparture, type WaitEnd } from './flights.js';
import { FORMAT_VERSION, type IdempotencyRecord, type RecordedResponse } from './record.js';
import type { OutcomeUnknownPolicy } from './reconcile.js';
import { recordedFrom } from './settled-response.js';
import type { Claim, ClaimOutcome, Execution, IdempotencyStore, UnresolvedAttempt } from './store.js';
import { TrackedExecution } from './tracked-execution.js';
import { inTime } from './in-time.js';
import { pauseBefore, retryAfter } from './waiting.js';

/** What is to be done with a request. */
export type Decision =
  | { readonly kind: 'run'; readonly execution: Execution }
  | { readonly kind: 'replay'; readonly record: ReplayedRecord }
  | { readonly kind: 'reject'; readonly error: IdempotencyError; readonly cause?: unknown };

/** A record whose response was kept. */
export type ReplayedRecord = IdempotencyRecord & { readonly response: RecordedResponse };

/** How a route treats duplicates. */
export interface DuplicatePolicy {
  /** Milliseconds a duplicate waits for a running request; 0 to be refused at once. */
  readonly wait: number;
  readonly onOutcomeUnknown: OutcomeUnknownPolicy;
}

/** Who asks for a decision. */
export interface Asker {
  /** Whether it is part of an execution that runs, and that a shutdown lets end. */
  readonly isNested?: boolean;
  /** One that goes away stops waiting. */
  readonly onDeparture?: OnDeparture;
}

/** A request on its way to a decision. Times are those of the monotonic clock. */
interface Visit {
  readonly claim: Claim;
  readonly policy: DuplicatePolicy;
  /** When it stops waiting. */
  readonly deadline: number;
  readonly asker: Asker;
  /** Undefined until it waits for another. */
  waitingSince: number | undefined;
}

/** A claim's outcome that ends the matter for the request that made it. */
type Settled =
  Exclude<ClaimOutcome, { kind: 'claimed' | 'unresolved' }> | Extract<Decision, { kind: 'run' | 'reject' }>;

/** Decides what becomes of a request: run, replay or reject. */
export class IdempotencyEngine {
  readonly #flights: Flights;

  constructor(
    private readonly store: IdempotencyStore,
    private readonly notify: Notify,
    maxWaiters: number,
  ) {
    this.#flights = new Flights(maxWaiters);
  }

  /** Waits for a running duplicate as long as the policy says, and never throws for what the store reports. */
  async decide(claim: Claim, policy: DuplicatePolicy, asker: Asker = {}): Promise<Decision> {
    const deadline = performance.now() + policy.wait;
    const visit: Visit = { claim, policy, deadline, asker, waitingSince: undefined };
    const decision = await this.#decide(visit);
    const { waitingSince } = visit;
    if (waitingSince !== undefined) {
      this.notify({ type: 'waited', ...where(claim), duration: performance.now() - waitingSince });
    }
    if (decision.kind === 'replay') {
      this.notify({ type: 'replayed', ...where(claim), status: decision.record.response.status });
    } else if (decision.kind === 'reject') {
      this.notify({ type: 'rejected', ...where(claim), code: decision.error.code });
    }
    return decision;
  }

  /** Sends away who waits, refuses what comes, and resolves when everything that runs has ended. */
  async shutdown(): Promise<void> {
    this.#flights.close();
    await this.#flights.landed();
  }

  async #decide(visit: Visit): Promise<Decision> {
    const flights = this.#flights;
    const { identity, fingerprint, maxDuration } = visit.claim;
    for (;;) {
      if (flights.closed && !visit.asker.isNested) return reject('IDEMPOTENCY_SHUTTING_DOWN');
      const flight = flights.find(identity);
      // At once, so that of all who come together one leads and the others find its flight.
      if (!flight) return this.#lead(visit, flights.begin(identity, maxDuration));
      const end = await this.#wait(visit, Infinity, flight);
      if (end.kind === 'open') continue;
      if (end.kind === 'recorded') return judge(end.record, fingerprint);
      if (end.kind === 'unresolved') {
        return end.fingerprint.equals(fingerprint)
          ? { kind: 'reject', error: end.error }
          : reject('IDEMPOTENCY_KEY_REUSED');
      }
      if (end.kind === 'failed') return { kind: 'reject', error: end.error };
      return end.kind === 'shutdown' ? reject('IDEMPOTENCY_SHUTTING_DOWN') : inProgress(flight);
    }
  }

  /** Waits as long as that, and no longer than the request waits at all. */
  #wait(visit: Visit, milliseconds: number, flight?: Flight): WaitEnd | Promise<WaitEnd> {
    const since = performance.now();
    const { claim, asker, deadline } = visit;
    const waiter = { client: claim.identity.client, onDeparture: asker.onDeparture };
    const end = this.#flights.wait(waiter, Math.min(milliseconds, deadline - since), flight);
    if (end instanceof Promise) visit.waitingSince ??= since;
    return end;
  }

  /** Asks the store, for this request and every duplicate of it that comes meanwhile. */
  async #lead(visit: Visit, flight: Flight): Promise<Decision> {
    let end: FlightEnd | undefined = { kind: 'open' };
    try {
      const settled = await this.#settle(visit, flight);
      switch (settled.kind) {
        case 'run':
          // It lands when the execution ends.
          end = undefined;
          return settled;
        case 'recorded':
          end = settled;
          return judge(settled.record, visit.claim.fingerprint);
        case 'in-progress':
          return inProgress(flight, settled.remaining);
        default:
          if (settled.error.code === 'IDEMPOTENCY_OUTCOME_UNRESOLVED') {
            end = { kind: 'unresolved', fingerprint: visit.claim.fingerprint, error: settled.error };
          }
          return settled;
      }
    } catch (error) {
      if (!(error instanceof IdempotencyFailure)) throw error;
      end = { kind: 'failed', error: error.error };
      return { kind: 'reject', error: error.error, cause: error.cause };
    } finally {
      if (end) flight.land(end);
    }
  }

  /** Looks again, with growing pauses and without a connection in between, while another process runs it. */
  async #settle(visit: Visit, flight: Flight): Promise<Settled> {
    const { claim, policy } = visit;
    for (let look = 0; ; look++) {
      const settled = await this.#resolve(await this.store.claim(claim), claim, policy, flight);
      if (settled.kind !== 'in-progress') return settled;
      // One last look comes when the time is up.
      const isLast = performance.now() >= visit.deadline;
      const end = await this.#wait(visit, pauseBefore(look, Math.random()));
      if (end.kind === 'shutdown') return reject('IDEMPOTENCY_SHUTTING_DOWN');
      if (isLast || end.kind === 'refused') return settled;
    }
  }

  async #resolve(
    outcome: ClaimOutcome,
    claim: Claim,
    policy: DuplicatePolicy,
    flight: Flight,
  ): Promise<Settled> {
    if (outcome.kind === 'claimed') return this.#run(outcome.execution, claim, flight);
    if (outcome.kind !== 'unresolved') return outcome;
    const { attempt } = outcome;
    if (isNewer(attempt.fingerprint)) return reject('IDEMPOTENCY_RECORD_UNREADABLE');
    if (!attempt.fingerprint.equals(claim.fingerprint)) return reject('IDEMPOTENCY_KEY_REUSED');
    if (policy.onOutcomeUnknown === 'refuse') return unresolved(attempt.attempt);
    const next = await attempt.takeOver();
    if (next.kind !== 'claimed') return next.kind === 'unresolved' ? { kind: 'in-progress' } : next;
    this.notify({ type: 'taken-over', ...where(claim), attempt: next.execution.attempt });
    if (policy.onOutcomeUnknown === 'rerun') return this.#run(next.execution, claim, flight);
    // It is for the one who leads to say what came of it, so that not everybody who waits asks as well.
    const { execution } = this.#run(next.execution, claim, { ...flight, land: () => undefined });
    const settled = await this.#reconcile(attempt, execution, claim, policy.onOutcomeUnknown);
    return settled.kind === 'run' ? this.#run(next.execution, claim, flight) : settled;
  }

  async #reconcile(
    attempt: UnresolvedAttempt,
    execution: Execution,
    claim: Claim,
    handler: Exclude<OutcomeUnknownPolicy, string>,
  ): Promise<Settled> {
    const { identity, fingerprint } = claim;
    const { createdAt } = execution;
    const deriveKey = (name: string): string => derivedKey(identity, name);
    try {
      const asked = handler({ ...identity, attempt: attempt.attempt, createdAt, deriveKey });
      // One that hangs must not keep its identity for ever.
      const found = await inTime(claim.maxDuration, 'the reconcile handler', asked);
      if (found.outcome === 'released') return { kind: 'run', execution };
      if (found.outcome === 'completed') {
        const response = recordedFrom(found.response);
        await execution.complete(response, 'returned');
        return {
          kind: 'recorded',
          record: { status: 'completed', fingerprint, formatVersion: FORMAT_VERSION, response, createdAt },
        };
      }
    } catch (cause) {
      await execution.giveUp('unsettled');
      return { ...unresolved(attempt.attempt), cause };
    }
    await execution.giveUp('unsettled');
    return unresolved(attempt.attempt);
  }

  #run(execution: Execution, claim: Claim, flight: Flight): { kind: 'run'; execution: Execution } {
    return { kind: 'run', execution: new TrackedExecution(execution, claim, flight, this.notify) };
  }
}

function judge(record: IdempotencyRecord, fingerprint: Buffer): Decision {
  const { response } = record;
  if (record.formatVersion > FORMAT_VERSION || isNewer(record.fingerprint)) {
    return reject('IDEMPOTENCY_RECORD_UNREADABLE');
  }
  if (!record.fingerprint.equals(fingerprint)) return reject('IDEMPOTENCY_KEY_REUSED');
  return response
    ? { kind: 'replay', record: { ...record, response } }
    : reject('IDEMPOTENCY_RESPONSE_NOT_KEPT');
}

/** A fingerprint of rules that this release does not know can be neither equal nor different. */
function isNewer(fingerprint: Buffer): boolean {
  return (fingerprint[0] ?? 0) > FINGERPRINT_VERSION;
}

function reject(...args: Parameters<typeof idempotencyError>): Extract<Decision, { kind: 'reject' }> {
  return { kind: 'reject', error: idempotencyError(...args) };
}

function inProgress({ startedAt, maxDuration }: Flight, remaining?: number): Decision {
  const elapsed = performance.now() - startedAt;
  const seconds = retryAfter(remaining ?? elapsed, remaining ?? maxDuration - elapsed);
  return reject('IDEMPOTENCY_IN_PROGRESS', { retryAfter: seconds });
}

function unresolved(attempt: number): Extract<Decision, { kind: 'reject' }> {
  return { kind: 'reject', error: outcomeUnresolved(attempt) };
}

function where({ identity: { client, endpoint } }: Claim): { client: string; endpoint: string } {
  return { client, endpoint };
}
