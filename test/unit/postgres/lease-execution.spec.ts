import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { Claim } from '../../../lib/core/store.js';
import { AfterCommit } from '../../../lib/postgres/after-commit.js';
import { LeaseExecution } from '../../../lib/postgres/lease-execution.js';
import type { LeaseStatements } from '../../../lib/postgres/lease-statements.js';
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
function execution(duration: number, said: Partial<Said>): LeaseExecution {
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
  return new LeaseExecution(
    CLAIM,
    { createdAt: new Date(), attempt: 1 },
    lease,
    statements,
    new AfterCommit(),
  );
}

describe('LeaseExecution', () => {
  it('does not let the handler begin once the lease is lost', async () => {
    const lost = execution(60, { extend: async () => false });
    await once(lost.execution.signal, 'abort');
    expect(() => lost.enterHandler()).toThrow(LOST);
    expect(lost.handlerBegan).toBe(false);
  });

  it('goes on recording when an extension finds the completion that nobody has heard of', async () => {
    const extended = deferred();
    const answered = deferred();
    let isWorthwhile: (() => boolean) | undefined;
    const completing = execution(500, {
      extend: async () => {
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
    await eventually(() => isWorthwhile !== undefined);
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
});
