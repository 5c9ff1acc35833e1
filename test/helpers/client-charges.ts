import { CallError, type CallResult } from 'nestjs-pg-idempotency/client';
import type { Random } from './fault-run.js';
import { MISHAPS, type Mishap, type SeenRequest } from './lossy-http.js';

/** A charge as the sample application answers it. */
export interface Charge {
  readonly id: string;
  readonly amount: number;
  readonly ref: string;
  readonly status: string;
}

/** A charge that is to be made, and what happens to the requests for it, one after the other; then nothing any more. */
export interface PlannedCharge {
  readonly ref: string;
  readonly amount: number;
  readonly mishaps: readonly Mishap[];
}

/** In so many of a hundred charges more attempts fail than a call has, and in so many none does. */
const STUBBORN = 3;
const SMOOTH = 40;
/** Who is kept waiting for nothing waits for long: that happens less often than the rest. */
const PROMPT = MISHAPS.filter((each) => !each.endsWith('-late'));
const DRAWN: readonly Mishap[] = [...MISHAPS, ...PROMPT, ...PROMPT];

/**
 * Draws what is to happen. Each charge has a schedule of its own, so that it does not depend on which charge comes first.
 *
 * @param attempts - How many a call has: some charges need more than one call.
 */
export function planCharges(random: Random, count: number, attempts: number): PlannedCharge[] {
  return Array.from({ length: count }, (_, index) => {
    const own = random.fork();
    const chance = own.below(100);
    const some = chance < 100 - SMOOTH ? 1 + own.below(attempts - 1) : 0;
    const failures = chance < STUBBORN ? attempts + own.below(attempts - 1) : some;
    return {
      ref: `inv_${index}`,
      amount: 1 + own.below(10_000),
      mishaps: Array.from({ length: failures }, () => own.pick(DRAWN)),
    };
  });
}

/** What a proxy saw of the requests for each reference, and the judge that carries the plan out. */
export class ChargeSchedule {
  readonly #left: Map<string, Mishap[]>;
  readonly #seen = new Map<string, string[]>();

  constructor(plan: readonly PlannedCharge[]) {
    this.#left = new Map(plan.map(({ ref, mishaps }) => [ref, [...mishaps]]));
  }

  readonly judge = ({ method, path, headers, body }: SeenRequest): Mishap | undefined => {
    const { ref } = JSON.parse(body.toString()) as Charge;
    const request = [method, path, headers['idempotency-key'], headers['content-type'], body].join('\n');
    this.#seen.set(ref, [...(this.#seen.get(ref) ?? []), request]);
    return this.#left.get(ref)?.shift();
  };

  /** The requests for a reference: method, path, key, type and body of each. */
  requests(ref: string): readonly string[] {
    return this.#seen.get(ref) ?? [];
  }

  get total(): number {
    return [...this.#seen.values()].reduce((sum, requests) => sum + requests.length, 0);
  }
}

/** What became of a planned charge. */
export interface ChargeOutcome {
  readonly planned: PlannedCharge;
  /** The calls that failed before one succeeded. */
  readonly errors: readonly CallError[];
  readonly result: CallResult<Charge>;
}

/** Makes a call, under the key of an earlier one where there was one. */
type MakeCharge = (charge: PlannedCharge, idempotencyKey: string | undefined) => Promise<CallResult<Charge>>;

/**
 * Makes all charges, some at a time. Those whose outcome stays unknown are called again, under their key, when all others are
 * through.
 */
export async function makeCharges(
  plan: readonly PlannedCharge[],
  concurrency: number,
  make: MakeCharge,
): Promise<ChargeOutcome[]> {
  const outcomes: ChargeOutcome[] = [];
  let left = plan.map((planned) => ({ planned, errors: [] as CallError[] }));
  while (left.length > 0) {
    const unknown: typeof left = [];
    const waiting = [...left];
    const caller = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const { planned, errors } = next;
        try {
          outcomes.push({ planned, errors, result: await make(planned, errors[0]?.key) });
        } catch (error) {
          if (!(error instanceof CallError) || error.effect !== 'unknown') throw error;
          unknown.push({ planned, errors: [...errors, error] });
        }
      }
    };
    await Promise.all(Array.from({ length: concurrency }, caller));
    left = unknown;
  }
  return outcomes;
}

/** Mishaps after which the charge has been made, whatever its caller knows. */
const CARRIED_OUT: readonly Mishap[] = ['answer-lost', 'answer-cut', 'answer-late', 'gateway-after'];
/** Mishaps by which nothing was carried out, and nothing will be. */
const NOT_CARRIED_OUT: readonly Mishap[] = ['request-lost', 'gateway-before'];

/**
 * What is wrong with charges that were to be made once each, a line for each fault.
 *
 * @param rows - Every charge that there is.
 */
export function chargeViolations(
  outcomes: readonly ChargeOutcome[],
  rows: readonly Charge[],
  schedule: ChargeSchedule,
): string[] {
  const byRef = new Map<string, Charge[]>();
  for (const row of rows) byRef.set(row.ref, [...(byRef.get(row.ref) ?? []), row]);
  return outcomes.flatMap((outcome) => {
    const { ref } = outcome.planned;
    const made = byRef.get(ref) ?? [];
    const wrong = [
      made.length !== 1 && `was made ${made.length} times`,
      made[0] && made[0].amount !== outcome.planned.amount && `was made of ${made[0].amount}`,
      made[0]?.id !== outcome.result.data.id && `is not the one of the answer`,
      new Set(schedule.requests(ref)).size !== 1 && `was sent in different requests`,
      ...resultFaults(outcome),
    ];
    return wrong.filter((each) => typeof each === 'string').map((what) => `${ref} ${what}`);
  });
}

/** What is wrong with what a result says of its call, by what is known to have happened to it. */
function resultFaults({ planned, errors, result }: ChargeOutcome): (string | false)[] {
  const { mishaps } = planned;
  const attempts = errors.reduce((sum, error) => sum + error.attempts, result.attempts);
  const isMade = mishaps.some((mishap) => CARRIED_OUT.includes(mishap));
  // A request that took longer than its limit, and not by a mishap, leaves open which one was the first.
  const asPlanned = attempts === mishaps.length + 1;
  const isFirst = asPlanned && mishaps.every((mishap) => NOT_CARRIED_OUT.includes(mishap));
  return [
    attempts <= mishaps.length && `took ${attempts} attempts through ${mishaps.join()}`,
    isMade && !result.replayed && `does not tell of the replay after ${mishaps.join()}`,
    isFirst && result.replayed && `tells of a replay after ${mishaps.join()}`,
    result.createdAt === undefined && `does not tell when it was made`,
    errors.some(({ key }) => key !== result.key) && `went on under another key`,
  ];
}
