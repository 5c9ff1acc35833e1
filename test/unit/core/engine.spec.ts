import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { derivedKey } from '../../../lib/core/derived-key.js';
import { FINGERPRINT_VERSION } from '../../../lib/core/fingerprint.js';
import { IdempotencyEngine, type Decision, type DuplicatePolicy } from '../../../lib/core/engine.js';
import { idempotencyError, IdempotencyFailure } from '../../../lib/core/errors.js';
import type { IdempotencyEvent } from '../../../lib/core/events.js';
import { FORMAT_VERSION, type IdempotencyRecord, type RecordedResponse } from '../../../lib/core/record.js';
import type { Reconciliation, UnresolvedOutcome } from '../../../lib/core/reconcile.js';
import type { Claim, ClaimOutcome, Execution, IdempotencyStore } from '../../../lib/core/store.js';

const FINGERPRINT = Buffer.from([1, 2, 3]);
const RESPONSE: RecordedResponse = { status: 201, headers: [], body: Buffer.from('made') };

const CLAIM: Claim = {
  identity: { client: 'c', endpoint: 'e', key: 'k' },
  fingerprint: FINGERPRINT,
  ttl: 1_000,
  maxDuration: 60_000,
  mode: { kind: 'lease', lease: 30_000 },
};

const RECORD: IdempotencyRecord = {
  fingerprint: FINGERPRINT,
  status: 'completed',
  formatVersion: FORMAT_VERSION,
  response: RESPONSE,
  createdAt: new Date(0),
};

const WAIT: DuplicatePolicy = { wait: 60_000, onOutcomeUnknown: 'refuse' };
const WHERE = { client: 'c', endpoint: 'e' };
const REJECT: DuplicatePolicy = { wait: 0, onOutcomeUnknown: 'refuse' };

/** An execution that notes how it ended. */
class NotedExecution implements Execution {
  readonly createdAt = new Date(0);
  readonly handlerBegan = true;
  readonly ends: string[] = [];

  constructor(readonly attempt = 1) {}

  run<T>(work: () => T): T {
    return work();
  }

  explain(error: unknown): unknown {
    return error;
  }

  async complete({ status }: RecordedResponse, handler: string): Promise<void> {
    this.ends.push(`complete ${status} ${handler}`);
  }

  async release(): Promise<void> {
    this.ends.push('release');
  }

  async giveUp(why: string): Promise<void> {
    this.ends.push(`give up ${why}`);
  }

  abandon(): void {
    this.ends.push('abandon');
  }
}

/** A store that answers from a list, and then always with the last. */
function storeOf(...outcomes: readonly (ClaimOutcome | Error)[]): IdempotencyStore & { claims: number } {
  return {
    claims: 0,
    async claim() {
      const outcome = outcomes[Math.min(this.claims++, outcomes.length - 1)];
      if (!outcome || outcome instanceof Error) throw outcome ?? new Error('nothing to answer with');
      return outcome;
    },
  };
}

function engineOn(
  store: IdempotencyStore,
  maxWaiters = 10,
): { engine: IdempotencyEngine; events: IdempotencyEvent[] } {
  const events: IdempotencyEvent[] = [];
  return { engine: new IdempotencyEngine(store, (event) => void events.push(event), maxWaiters), events };
}

const decideOn = (outcome: ClaimOutcome | Error, policy = REJECT): Promise<Decision> =>
  engineOn(storeOf(outcome)).engine.decide(CLAIM, policy);

const decideOnRecord = (facts: Partial<IdempotencyRecord>): Promise<Decision> =>
  decideOn({ kind: 'recorded', record: { ...RECORD, ...facts } });

const rejection = (code: string): unknown => ({
  kind: 'reject',
  error: expect.objectContaining({ code }) as unknown,
});

/** An attempt whose outcome is unknown, and the execution that takes over from it. */
function unresolved(fingerprint = FINGERPRINT): { outcome: ClaimOutcome; successor: NotedExecution } {
  const successor = new NotedExecution(2);
  const takeOver = async (): Promise<ClaimOutcome> => ({ kind: 'claimed', execution: successor });
  const attempt = { fingerprint, attempt: 1, createdAt: new Date(0), takeOver };
  return { outcome: { kind: 'unresolved', attempt }, successor };
}

function runOf(decision: Decision): Execution {
  if (decision.kind !== 'run') throw new Error(`expected to run, not to ${decision.kind}`);
  return decision.execution;
}

describe('a decision', () => {
  it('runs what was claimed, and ends the execution it was given', async () => {
    const execution = new NotedExecution();
    await runOf(await decideOn({ kind: 'claimed', execution })).complete(RESPONSE, 'returned');
    expect(execution.ends).toEqual(['complete 201 returned']);
  });

  it('replays what was recorded for the same request', async () => {
    expect(await decideOnRecord({})).toEqual({ kind: 'replay', record: RECORD });
  });

  it('rejects another request under the same key', async () => {
    expect(await decideOnRecord({ fingerprint: Buffer.from([1, 2, 4]) })).toEqual(
      rejection('IDEMPOTENCY_KEY_REUSED'),
    );
  });

  it('rejects where the response could not be kept', async () => {
    expect(await decideOnRecord({ response: undefined })).toEqual(rejection('IDEMPOTENCY_RESPONSE_NOT_KEPT'));
    expect(await decideOnRecord({ response: undefined, fingerprint: Buffer.from([1]) })).toEqual(
      rejection('IDEMPOTENCY_KEY_REUSED'),
    );
  });

  it('rejects while the original is running, with what is known of its end', async () => {
    expect(await decideOn({ kind: 'in-progress' })).toMatchObject({
      error: { code: 'IDEMPOTENCY_IN_PROGRESS', retryAfter: 1 },
    });
    expect(await decideOn({ kind: 'in-progress', remaining: 6_500 })).toMatchObject({
      error: { code: 'IDEMPOTENCY_IN_PROGRESS', retryAfter: 7 },
    });
  });

  it.each<[string, Partial<IdempotencyRecord>]>([
    ['format', { formatVersion: FORMAT_VERSION + 1 }],
    ['fingerprint', { fingerprint: Buffer.from([2, 2, 3]) }],
  ])('neither replays nor refuses a record with a newer %s', async (_what, facts) => {
    expect(await decideOnRecord(facts)).toEqual(rejection('IDEMPOTENCY_RECORD_UNREADABLE'));
  });

  it('rejects with the failure of the store and its cause', async () => {
    const cause = new Error('connection refused');
    const failure = new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'), { cause });
    expect(await decideOn(failure)).toEqual({ kind: 'reject', error: failure.error, cause });
  });

  it('lets mistakes of its own through, and does not keep the identity for them', async () => {
    const { engine } = engineOn(
      storeOf(new TypeError('a bug'), { kind: 'claimed', execution: new NotedExecution() }),
    );
    await expect(engine.decide(CLAIM, WAIT)).rejects.toThrow('a bug');
    expect(await engine.decide(CLAIM, WAIT)).toMatchObject({ kind: 'run' });
  });
});

describe('duplicates in one process', () => {
  it('ask the store once, and replay the answer from memory', async () => {
    const store = storeOf({ kind: 'claimed', execution: new NotedExecution() });
    const { engine, events } = engineOn(store);
    const execution = runOf(await engine.decide(CLAIM, WAIT));
    const duplicates = [engine.decide(CLAIM, WAIT), engine.decide(CLAIM, WAIT)];
    await execution.complete(RESPONSE, 'returned');
    for (const decision of await Promise.all(duplicates)) {
      expect(decision).toMatchObject({ kind: 'replay', record: { response: RESPONSE } });
    }
    expect(store.claims).toBe(1);
    expect(events.map(({ type }) => type)).toEqual(['executed', 'waited', 'replayed', 'waited', 'replayed']);
  });

  it('are judged each by its own fingerprint', async () => {
    const { engine } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }));
    const execution = runOf(await engine.decide(CLAIM, WAIT));
    const other = engine.decide({ ...CLAIM, fingerprint: Buffer.from([1, 9]) }, WAIT);
    await execution.complete(RESPONSE, 'returned');
    expect(await other).toEqual(rejection('IDEMPOTENCY_KEY_REUSED'));
  });

  it.each(['release', 'giveUp'] as const)(
    'run one after the other when the first ends by %s',
    async (end) => {
      const store = storeOf({ kind: 'claimed', execution: new NotedExecution() });
      const { engine } = engineOn(store);
      const execution = runOf(await engine.decide(CLAIM, WAIT));
      const duplicates = [engine.decide(CLAIM, WAIT), engine.decide(CLAIM, WAIT)];
      await (end === 'release' ? execution.release() : execution.giveUp('unsettled'));
      const next = runOf(await Promise.race(duplicates));
      expect(store.claims).toBe(2);
      await next.complete(RESPONSE, 'returned');
      expect((await Promise.all(duplicates)).map(({ kind }) => kind).sort()).toEqual(['replay', 'run']);
    },
  );

  it('fail together when the store fails, having asked once', async () => {
    const store = storeOf(new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE')));
    const { engine } = engineOn(store);
    const decisions = await Promise.all([1, 2, 3].map(() => engine.decide(CLAIM, WAIT)));
    expect(decisions).toEqual(decisions.map(() => rejection('IDEMPOTENCY_STORE_UNAVAILABLE')));
    expect(store.claims).toBe(1);
  });

  it('ask for themselves when the first may not wait', async () => {
    const { engine } = engineOn(
      storeOf({ kind: 'in-progress' }, { kind: 'claimed', execution: new NotedExecution() }),
    );
    const first = engine.decide(CLAIM, REJECT);
    const second = engine.decide(CLAIM, WAIT);
    expect(await first).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(await second).toMatchObject({ kind: 'run' });
  });

  it('ask for themselves when the first was another request', async () => {
    const { engine } = engineOn(storeOf(unresolved().outcome));
    const policy: DuplicatePolicy = { ...WAIT, onOutcomeUnknown: 'rerun' };
    const other = engine.decide({ ...CLAIM, fingerprint: Buffer.from([1, 9]) }, policy);
    const same = engine.decide(CLAIM, policy);
    expect(await other).toEqual(rejection('IDEMPOTENCY_KEY_REUSED'));
    expect(await same).toMatchObject({ kind: 'run' });
  });

  it('are refused past the cap, and did not wait', async () => {
    const { engine, events } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }), 1);
    const execution = runOf(await engine.decide(CLAIM, WAIT));
    const waiting = engine.decide(CLAIM, WAIT);
    expect(await engine.decide(CLAIM, WAIT)).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(events.map(({ type }) => type)).toEqual(['rejected']);
    await execution.complete(RESPONSE, 'returned');
    expect(await waiting).toMatchObject({ kind: 'replay' });
  });
});

describe('duplicates of another process', () => {
  it('look again until the answer is there', async () => {
    const store = storeOf(
      { kind: 'in-progress' },
      { kind: 'in-progress' },
      { kind: 'recorded', record: RECORD },
    );
    const { engine, events } = engineOn(store);
    const decisions = await Promise.all([engine.decide(CLAIM, WAIT), engine.decide(CLAIM, WAIT)]);
    expect(decisions.map(({ kind }) => kind)).toEqual(['replay', 'replay']);
    expect(store.claims).toBe(3);
    expect(events.filter(({ type }) => type === 'waited')).toHaveLength(2);
  });

  it('look a last time when the wait is over', async () => {
    const store = storeOf({ kind: 'in-progress' }, { kind: 'recorded', record: RECORD });
    expect(await engineOn(store).engine.decide(CLAIM, { ...WAIT, wait: 15 })).toMatchObject({
      kind: 'replay',
    });
    expect(store.claims).toBe(2);
  });

  it('look once where nobody else may wait', async () => {
    const store = storeOf({ kind: 'in-progress' });
    const { engine, events } = engineOn(store, 0);
    expect(await engine.decide(CLAIM, WAIT)).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(store.claims).toBe(1);
    expect(events.map(({ type }) => type)).toEqual(['rejected']);
  });

  it('look once where they are not to wait', async () => {
    const store = storeOf({ kind: 'in-progress' });
    expect(await engineOn(store).engine.decide(CLAIM, REJECT)).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(store.claims).toBe(1);
  });
});

describe('what is told', () => {
  it('names where it happened, and for how long a duplicate waited', async () => {
    const { engine, events } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }));
    const began = performance.now();
    const execution = runOf(await engine.decide(CLAIM, WAIT));
    const waiting = engine.decide(CLAIM, WAIT);
    await engine.decide(CLAIM, REJECT);
    await execution.complete(RESPONSE, 'returned');
    await waiting;
    expect(events.filter(({ type }) => type !== 'executed')).toEqual([
      { type: 'rejected', ...WHERE, code: 'IDEMPOTENCY_IN_PROGRESS' },
      { type: 'waited', ...WHERE, duration: expect.any(Number) },
      { type: 'replayed', ...WHERE, status: 201 },
    ]);
    const waited = events.find(({ type }) => type === 'waited') as { duration: number };
    expect(waited.duration).toBeGreaterThanOrEqual(0);
    expect(waited.duration).toBeLessThanOrEqual(performance.now() - began);
  });
});

describe('time', () => {
  beforeEach(() => void jest.useFakeTimers({ doNotFake: ['nextTick', 'setImmediate', 'queueMicrotask'] }));

  afterEach(() => void jest.useRealTimers());

  it('is advised by how long a request has run, but not beyond its end', async () => {
    const { engine, events } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }));
    jest.advanceTimersByTime(7_000);
    await engine.decide(CLAIM, REJECT);
    const advised = async (): Promise<unknown> => {
      const decision = await engine.decide(CLAIM, REJECT);
      return decision.kind === 'reject' && 'retryAfter' in decision.error && decision.error.retryAfter;
    };
    jest.advanceTimersByTime(20_000);
    expect(await advised()).toBe(20);
    jest.advanceTimersByTime(30_000);
    expect(await advised()).toBe(10);
    expect(events.map(({ type }) => type)).toEqual(['rejected', 'rejected']);
  });

  it('between two looks grows, and the last look is when the wait is over', async () => {
    const store = storeOf({ kind: 'in-progress' });
    const looks: number[] = [];
    const began = performance.now();
    const noting: IdempotencyStore = {
      claim: (claim) => {
        looks.push(performance.now() - began);
        return store.claim(claim);
      },
    };
    const decided = engineOn(noting).engine.decide(CLAIM, { ...WAIT, wait: 5_000 });
    await jest.advanceTimersByTimeAsync(6_000);
    expect(await decided).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    // 20 to 40 ms at first, half a second to a second in the end.
    expect(looks.length).toBeGreaterThan(8);
    expect(looks.length).toBeLessThan(20);
    expect(looks.at(-1)).toBe(5_000);
  });

  it('that a duplicate may wait ends also when nothing else does', async () => {
    const { engine } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }));
    await engine.decide(CLAIM, WAIT);
    const decided = engine.decide(CLAIM, { ...WAIT, wait: 3_000 });
    await jest.advanceTimersByTimeAsync(3_000);
    expect(await decided).toMatchObject({ error: { code: 'IDEMPOTENCY_IN_PROGRESS', retryAfter: 3 } });
  });
});

describe('an outcome that is unknown', () => {
  it('is refused, naming the attempt', async () => {
    const { outcome, successor } = unresolved();
    expect(await decideOn(outcome)).toMatchObject({
      kind: 'reject',
      error: {
        code: 'IDEMPOTENCY_OUTCOME_UNRESOLVED',
        detail: expect.stringContaining('Attempt 1') as unknown,
      },
    });
    expect(successor.ends).toEqual([]);
  });

  it('is nothing for another request to take over', async () => {
    const { outcome } = unresolved(Buffer.from([1, 9]));
    expect(await decideOn(outcome, { ...WAIT, onOutcomeUnknown: 'rerun' })).toEqual(
      rejection('IDEMPOTENCY_KEY_REUSED'),
    );
  });

  it('is found out once for all that wait, and another request hears that the key was used', async () => {
    let asked = 0;
    const { outcome } = unresolved();
    const { engine } = engineOn(storeOf(outcome));
    const onOutcomeUnknown = (): { outcome: 'unknown' } => {
      asked += 1;
      return { outcome: 'unknown' };
    };
    const policy = { ...WAIT, onOutcomeUnknown };
    const other = { ...CLAIM, fingerprint: Buffer.from([1, 9]) };
    const decisions = await Promise.all(
      [CLAIM, CLAIM, CLAIM, other].map((claim) => engine.decide(claim, policy)),
    );
    expect(decisions).toEqual([
      ...Array.from({ length: 3 }, () => rejection('IDEMPOTENCY_OUTCOME_UNRESOLVED')),
      rejection('IDEMPOTENCY_KEY_REUSED'),
    ]);
    expect(asked).toBe(1);
  });

  it('is not judged by a fingerprint of rules that this release does not know', async () => {
    const { outcome } = unresolved(Buffer.from([FINGERPRINT_VERSION + 1, 9]));
    expect(await decideOn(outcome, { ...WAIT, onOutcomeUnknown: 'rerun' })).toEqual(
      rejection('IDEMPOTENCY_RECORD_UNREADABLE'),
    );
  });

  it.each<[string, DuplicatePolicy['onOutcomeUnknown']]>([
    ['the policy is to run again', 'rerun'],
    ['the reconcile handler says that nothing happened', async () => ({ outcome: 'released' })],
  ])('runs as the next attempt when %s', async (_when, onOutcomeUnknown) => {
    const { outcome, successor } = unresolved();
    const execution = runOf(await decideOn(outcome, { ...WAIT, onOutcomeUnknown }));
    expect(execution.attempt).toBe(2);
    expect(successor.ends).toEqual([]);
  });

  it('is recorded when the reconcile handler knows the answer, and replayed', async () => {
    const { outcome, successor } = unresolved();
    const decision = await decideOn(outcome, {
      ...WAIT,
      onOutcomeUnknown: ({ client, endpoint, key, attempt }) => ({
        outcome: 'completed',
        response: { status: 202, body: { client, endpoint, key, attempt } },
      }),
    });
    const body = Buffer.from('{"client":"c","endpoint":"e","key":"k","attempt":1}');
    expect(decision).toMatchObject({ kind: 'replay', record: { response: { status: 202, body } } });
    expect(successor.ends).toEqual(['complete 202 returned']);
  });

  it.each<[string, DuplicatePolicy['onOutcomeUnknown']]>([
    ['does not know', () => ({ outcome: 'unknown' })],
    [
      'throws',
      () => {
        throw new Error('the provider is down');
      },
    ],
    ['rejects', () => Promise.reject(new Error('the provider is down'))],
    ['answers what cannot be replayed', () => ({ outcome: 'completed', response: { status: 500 } })],
    ['takes too long', () => new Promise(() => undefined)],
  ])('stays unknown when the reconcile handler %s', async (_what, onOutcomeUnknown) => {
    const { outcome, successor } = unresolved();
    const { engine } = engineOn(storeOf(outcome));
    const decision = await engine.decide({ ...CLAIM, maxDuration: 20 }, { ...WAIT, onOutcomeUnknown });
    expect(decision).toMatchObject(rejection('IDEMPOTENCY_OUTCOME_UNRESOLVED') as object);
    expect(successor.ends).toEqual(['give up unsettled']);
  });

  it('is refused with the reason why the reconcile handler does not know', async () => {
    const cause = new Error('the provider is down');
    const onOutcomeUnknown = (): Promise<never> => Promise.reject(cause);
    expect(await decideOn(unresolved().outcome, { ...WAIT, onOutcomeUnknown })).toMatchObject({ cause });
  });

  it('is asked for with all that identifies it', async () => {
    let asked: UnresolvedOutcome | undefined;
    const onOutcomeUnknown = (unresolvedOutcome: UnresolvedOutcome): { outcome: 'unknown' } => {
      asked = unresolvedOutcome;
      return { outcome: 'unknown' };
    };
    await decideOn(unresolved().outcome, { ...WAIT, onOutcomeUnknown });
    expect(asked).toMatchObject({ ...CLAIM.identity, attempt: 1, createdAt: new Date(0) });
    expect(asked!.deriveKey('charge')).toBe(derivedKey(CLAIM.identity, 'charge'));
  });

  it('once found out is replayed to all that wait, and recorded as any other', async () => {
    const { engine, events } = engineOn(storeOf(unresolved().outcome));
    const onOutcomeUnknown = async (): Promise<Reconciliation> => ({
      outcome: 'completed',
      response: { status: 204 },
    });
    const policy = { ...WAIT, onOutcomeUnknown };
    const decisions = await Promise.all([1, 2].map(() => engine.decide(CLAIM, policy)));
    const record = { ...RECORD, response: { status: 204, headers: [], body: Buffer.alloc(0) } };
    expect(decisions).toEqual([
      { kind: 'replay', record },
      { kind: 'replay', record },
    ]);
    expect(events).toContainEqual({ type: 'taken-over', ...WHERE, attempt: 2 });
  });

  it.each<[string, DuplicatePolicy['onOutcomeUnknown']]>([
    ['rerun', 'rerun'],
    ['released', () => ({ outcome: 'released' })],
  ])('and run again (%s) answers those who wait', async (_how, onOutcomeUnknown) => {
    const { engine } = engineOn(storeOf(unresolved().outcome));
    const policy = { ...WAIT, onOutcomeUnknown };
    const leading = engine.decide(CLAIM, policy);
    const waiting = engine.decide(CLAIM, policy);
    await runOf(await leading).complete(RESPONSE, 'returned');
    expect(await waiting).toMatchObject({ kind: 'replay' });
  });

  it('is for the next to ask about when the store fails in between', async () => {
    const failure = new IdempotencyFailure(idempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE'));
    const { outcome } = unresolved();
    if (outcome.kind !== 'unresolved') throw new Error('it is unresolved');
    const takeOver = (): Promise<ClaimOutcome> => Promise.reject(failure);
    const lost: ClaimOutcome = { kind: 'unresolved', attempt: { ...outcome.attempt, takeOver } };
    const { engine } = engineOn(storeOf(lost, { kind: 'recorded', record: RECORD }));
    const policy: DuplicatePolicy = { ...WAIT, onOutcomeUnknown: 'rerun' };
    expect(await engine.decide(CLAIM, policy)).toEqual(rejection('IDEMPOTENCY_STORE_UNAVAILABLE'));
    expect(await engine.decide(CLAIM, policy)).toMatchObject({ kind: 'replay' });
  });

  it('belongs to whoever is faster', async () => {
    const { outcome } = unresolved();
    if (outcome.kind !== 'unresolved') throw new Error('it is unresolved');
    const found = (next: ClaimOutcome): Promise<Decision> => {
      const lost: ClaimOutcome = {
        kind: 'unresolved',
        attempt: { ...outcome.attempt, takeOver: async () => next },
      };
      return decideOn(lost, { ...REJECT, onOutcomeUnknown: 'rerun' });
    };
    expect(await found(outcome)).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(await found({ kind: 'in-progress' })).toEqual(rejection('IDEMPOTENCY_IN_PROGRESS'));
    expect(await found({ kind: 'recorded', record: RECORD })).toEqual({ kind: 'replay', record: RECORD });
  });
});

describe('shutdown', () => {
  it('sends away who waits and who comes, and lasts until what runs has ended', async () => {
    const { engine } = engineOn(storeOf({ kind: 'claimed', execution: new NotedExecution() }));
    const execution = runOf(await engine.decide(CLAIM, WAIT));
    const waiting = engine.decide(CLAIM, WAIT);
    let isDown = false;
    const down = engine.shutdown().then(() => (isDown = true));
    expect(await waiting).toEqual(rejection('IDEMPOTENCY_SHUTTING_DOWN'));
    const another = { ...CLAIM, identity: { ...CLAIM.identity, key: 'another' } };
    expect(await engine.decide(another, WAIT)).toEqual(rejection('IDEMPOTENCY_SHUTTING_DOWN'));
    expect(isDown).toBe(false);
    await execution.complete(RESPONSE, 'returned');
    await down;
  });

  it('sends away who waits for another process', async () => {
    const { engine } = engineOn(storeOf({ kind: 'in-progress' }));
    const waiting = engine.decide(CLAIM, WAIT);
    await new Promise((resolve) => setImmediate(resolve));
    await engine.shutdown();
    expect(await waiting).toEqual(rejection('IDEMPOTENCY_SHUTTING_DOWN'));
  });
});
