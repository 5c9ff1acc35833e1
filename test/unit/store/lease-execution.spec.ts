import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { Claim } from '../../../lib/core/store.js';
import { AfterCommit } from '../../../lib/store/after-commit.js';
import { LeaseExecution } from '../../../lib/store/lease/execution.js';
import type { LeaseStatements } from '../../../lib/store/lease/statements.js';
import { failure } from '../../../lib/store/problems.js';
import { deferred, eventually } from '../../helpers/conditions.js';

const CLAIM: Claim = {
  identity: { client: 'c', endpoint: 'e', key: 'k' },
  fingerprint: Buffer.of(1),
  ttl: 1_000,
  maxDuration: 60_000,
  mode: { kind: 'lease', lease: 1_000 },
};
const LOST = expect.objectContaining({ error: expect.objectContaining({ code: 'IDEMPOTENCY_LEASE_LOST' }) });

type Said = Pick<LeaseStatements, 'extend' | 'complete' | 'lapse' | 'free'>;

/** An attempt whose statements the test answers: what a database says at such moments cannot be timed. */
function execution(duration: number, said: Partial<Said>, afterCommit = new AfterCommit()): LeaseExecution {
  const none = (): never => {
    throw new Error('it is not expected');
  };
  const statements = {
    extend: none,
    complete: none,
    lapse: none,
    free: none,
    ...said,
  } as unknown as LeaseStatements;
  const lease = { duration, since: performance.now() };
  return new LeaseExecution(CLAIM, { createdAt: new Date(), attempt: 1 }, lease, statements, afterCommit);
}

describe('LeaseExecution', () => {
  it('does not let the handler begin once the lease is lost', async () => {
    const lost = execution(60, { extend: async () => false });
    await once(lost.execution.signal, 'abort');
    // Somebody took it: the database was there to say so.
    expect(lost.execution.signal.reason).toMatchObject({
      error: { detail: expect.not.stringContaining('could not be reached') },
    });
    expect(() => lost.enterHandler()).toThrow(LOST);
    expect(lost.handlerBegan).toBe(false);
  });

  it('goes on recording when an extension finds the completion that nobody has heard of', async () => {
    const extending = deferred();
    const extended = deferred();
    const answered = deferred();
    let isWorthwhile: (() => boolean) | undefined;
    const completing = execution(1_000, {
      extend: async () => {
        extending.resolve();
        await extended.promise;
        return false;
      },
      complete: async (_status, _response, worthwhile) => {
        isWorthwhile = worthwhile;
        await answered.promise;
        return true;
      },
    });
    completing.enterHandler();
    const completed = completing.complete({ status: 201, headers: [], body: Buffer.alloc(0) }, 'returned');
    await extending.promise;
    extended.resolve();
    await new Promise(setImmediate);
    expect(isWorthwhile!()).toBe(true);
    expect(completing.execution.signal.aborted).toBe(false);
    answered.resolve();
    await completed;
  });

  it('gives up recording when the lease is over', async () => {
    const answered = deferred();
    let isWorthwhile: (() => boolean) | undefined;
    const completing = execution(50, {
      extend: () => new Promise(() => undefined),
      complete: async (_status, _response, worthwhile) => {
        isWorthwhile = worthwhile;
        await answered.promise;
        return true;
      },
    });
    completing.enterHandler();
    const completed = completing.complete({ status: 201, headers: [], body: Buffer.alloc(0) }, 'returned');
    await eventually(() => isWorthwhile !== undefined && !isWorthwhile());
    answered.resolve();
    await completed;
  });

  it('does after its completion what it was asked to, and nothing else', async () => {
    const afterwards: unknown[] = [];
    const afterCommit = new AfterCommit();
    afterCommit.run = (work) => afterwards.push(...work);
    const response = { status: 201, headers: [], body: Buffer.alloc(0) };
    const complete = async (): Promise<boolean> => true;
    await execution(60_000, { complete }, afterCommit).complete(response, 'returned');
    expect(afterwards).toEqual([]);
    const deferring = execution(60_000, { complete }, afterCommit);
    const work = (): void => undefined;
    deferring.defer(work);
    await deferring.complete(response, 'returned');
    expect(afterwards).toEqual([work]);
  });

  it('says once that its outcome is unknown: a lease that nobody extends says so by itself', async () => {
    let isWorthwhile: (() => boolean) | undefined;
    const given = execution(60_000, {
      lapse: async (_handlerBegan, worthwhile) => {
        isWorthwhile = worthwhile;
        throw new Error('the database is gone');
      },
    });
    given.enterHandler();
    await given.giveUp('unsettled');
    expect(isWorthwhile!()).toBe(false);
  });

  it('explains a failure as one that may have come too late, but for that of the lease', () => {
    const explaining = execution(60_000, {});
    const lost = failure('IDEMPOTENCY_LEASE_LOST');
    expect(explaining.explain(lost)).toBe(lost);
    expect(explaining.explain(failure('IDEMPOTENCY_TRANSACTION_CONFLICT'))).toMatchObject({
      error: {
        code: 'IDEMPOTENCY_TRANSACTION_CONFLICT',
        detail: expect.stringContaining('not known whether it took effect'),
      },
    });
    explaining.abandon();
  });

  it('neither aborts nor ends what has been recorded when it is given up afterwards', async () => {
    let lapses = 0;
    const completed = execution(60_000, {
      complete: async () => true,
      lapse: async () => ++lapses > 0,
    });
    completed.enterHandler();
    const { signal } = completed.execution;
    await completed.complete({ status: 201, headers: [], body: Buffer.alloc(0) }, 'returned');
    await completed.giveUp('unsettled');
    expect({ aborted: signal.aborted, lapses }).toEqual({ aborted: false, lapses: 0 });
  });
});
