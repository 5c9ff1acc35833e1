import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { Claim } from '../../../lib/core/store.js';
import { AfterCommit } from '../../../lib/store/after-commit.js';
import { LeaseExecution } from '../../../lib/store/lease/execution.js';
import type { LeaseStatements } from '../../../lib/store/lease/statements.js';
import type { PostgresStoreOptions } from '../../../lib/store/store-options.js';
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

type Said = Pick<LeaseStatements, 'extend' | 'complete' | 'lapse' | 'free' | 'takeBack'>;

/** Nobody asks for a connection here. */
const OPTIONS = {} as PostgresStoreOptions;
const OWED = { isOwed: () => true, onReleased: () => undefined };

/** An attempt whose statements the test answers: what a database says at such moments cannot be timed. */
function execution(
  duration: number,
  said: Partial<Said>,
  afterCommit = new AfterCommit(),
  owed: ConstructorParameters<typeof LeaseExecution>[4] = OWED,
): LeaseExecution {
  const none = (): never => {
    throw new Error('it is not expected');
  };
  const statements = {
    extend: none,
    complete: none,
    lapse: none,
    free: none,
    takeBack: none,
    ...said,
  } as unknown as LeaseStatements;
  const lease = { duration, since: performance.now() };
  const claimed = { createdAt: new Date(), attempt: 1 };
  return new LeaseExecution(CLAIM, claimed, lease, statements, owed, OPTIONS, afterCommit);
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
    let lapses = 0;
    const given = execution(60_000, {
      lapse: async () => {
        lapses += 1;
        throw new Error('the database is gone');
      },
    });
    given.enterHandler();
    await given.giveUp('unsettled');
    await given.giveUp('unsettled');
    expect(lapses).toBe(1);
  });

  it('makes a claim undone whose handler never began, and frees what its handler did nothing with', async () => {
    const said: string[] = [];
    const saying = {
      takeBack: async () => said.push('take back') > 0,
      free: async () => void said.push('free'),
    };
    await execution(60_000, saying).release();
    await execution(60_000, saying).giveUp('unsettled');
    const began = execution(60_000, saying);
    began.enterHandler();
    await began.release();
    expect(said).toEqual(['take back', 'take back', 'free']);
  });

  it('owes a release behind its answer, for as long as the store is open', async () => {
    const answered = deferred<boolean>();
    let isWorthwhile: (() => boolean) | undefined;
    let isOpen = true;
    let released = 0;
    const takeBack = (worthwhile: () => boolean): Promise<boolean> => {
      isWorthwhile = worthwhile;
      return answered.promise;
    };
    const owed = { isOwed: () => isOpen, onReleased: () => void (released += 1) };
    const away = execution(40, { takeBack, extend: async () => true }, new AfterCommit(), owed);
    // It waits no longer than the lease holds.
    await away.release();
    expect([isWorthwhile!(), released]).toEqual([true, 0]);
    isOpen = false;
    expect(isWorthwhile!()).toBe(false);
    answered.resolve(true);
    await eventually(() => released === 1);
  });

  it('does not say that it was released when it was not', async () => {
    let released = 0;
    const takeBack = async (): Promise<never> => {
      throw new Error('the database is gone');
    };
    const owed = { isOwed: () => true, onReleased: () => void (released += 1) };
    await execution(60_000, { takeBack }, new AfterCommit(), owed).release();
    await new Promise(setImmediate);
    expect(released).toBe(0);
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
      lapse: async () => void (lapses += 1),
    });
    completed.enterHandler();
    const { signal } = completed.execution;
    await completed.complete({ status: 201, headers: [], body: Buffer.alloc(0) }, 'returned');
    await completed.giveUp('unsettled');
    expect({ aborted: signal.aborted, lapses }).toEqual({ aborted: false, lapses: 0 });
  });
});
