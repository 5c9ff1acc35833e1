import type { EntityManager } from 'typeorm';
import { currentFrame, runInFrame } from '../core/ambient.js';
import { IdempotencyFailure } from '../core/errors.js';
import type { IsolationLevel } from '../core/store.js';
import type { AfterCommit } from './after-commit.js';
import type { LeaseStatements } from './lease-statements.js';
import { OpenTransaction } from './open-transaction.js';
import { acquire } from './acquire.js';
import type { PooledConnection } from './pooled-connection.js';
import {
  endsSession,
  failure,
  failureBeforeCommit,
  SERIALIZATION_FAILURE,
  serverErrorWithin,
} from './sqlstate.js';
import { ROLLBACK } from './statements.js';
import { ormIsolation } from './store-options.js';
import { TransactionFrame } from './transaction-frame.js';

/** What a fenced transaction belongs to. */
interface FencedBy {
  readonly statements: LeaseStatements;
  readonly afterCommit: AfterCommit;
  readonly execution: object;
  /** Takes what was thrown because the connection was lost. */
  readonly broken: WeakSet<object>;
  /** Those that have not ended. */
  readonly open: Set<OpenTransaction>;
}

/** Times a fence is tried again when its row changed after the transaction's snapshot. */
const FENCE_ATTEMPTS = 3;

/**
 * Runs work in a transaction of its own that a stale owner cannot commit: it shares the identity's advisory lock, which a
 * takeover needs for itself alone, and only then looks whether the lease is still ours.
 */
export async function fencedTransaction<T>(
  { statements, afterCommit, execution, broken, open }: FencedBy,
  work: (manager: EntityManager) => Promise<T>,
): Promise<T> {
  const { dataSource, defaultIsolation, acquireTimeout: patience } = statements.options;
  const around = currentFrame();
  // Inside another one of the same execution it is a savepoint of that.
  if (around instanceof TransactionFrame && around.execution === execution)
    return dataSource.transaction(work);
  const isolation = ormIsolation(dataSource) ?? defaultIsolation;
  const connection = await begin(statements, isolation);
  const context = { dataSource, afterCommit, isolation, patience, execution, enterHandler: () => undefined };
  const transaction = new OpenTransaction(connection, context);
  open.add(transaction);
  try {
    await transaction.announce();
    const result = await transaction.run(() => {
      const runner = dataSource.createQueryRunner();
      return work(runner.manager);
    });
    await transaction.commit('AfterTransactionCommit', await transaction.keepAndClose());
    return result;
  } catch (error) {
    const isLost = connection.lost || endsSession(error);
    if (isLost && typeof error === 'object' && error !== null) broken.add(error);
    await transaction.rollBack();
    throw transaction.spoiled ?? error;
  } finally {
    open.delete(transaction);
  }
}

/** A connection inside a transaction that holds the fence. */
async function begin(statements: LeaseStatements, isolation: IsolationLevel): Promise<PooledConnection> {
  const { options } = statements;
  const connection = await runInFrame(undefined, () => acquire(options));
  // A connection that stays silent must not keep the handler waiting.
  const timer = setTimeout(() => connection.release(true), options.acquireTimeout);
  try {
    for (let attempt = 1; ; attempt++) {
      await connection.query(options.statements.begin(ormIsolation(options.dataSource)));
      const isOurs = await statements.fence(connection, isolation).catch((error: unknown) => {
        if (attempt === FENCE_ATTEMPTS || serverErrorWithin(error)?.code !== SERIALIZATION_FAILURE)
          throw error;
        return undefined;
      });
      if (isOurs) return connection;
      if (isOurs === false) throw failure('IDEMPOTENCY_LEASE_LOST');
      await connection.query(ROLLBACK);
    }
  } catch (error) {
    await connection.rollBackAndRelease();
    throw error instanceof IdempotencyFailure ? error : failureBeforeCommit(error);
  } finally {
    clearTimeout(timer);
  }
}
