import { currentFrame, runInFrame, type AmbientFrame } from '../../core/ambient.js';
import type { AfterCommit } from '../after-commit.js';
import type { PooledConnection } from '../connection.js';
import { acquire } from '../once.js';
import {
  endsSession,
  failure,
  failureBeforeCommit,
  failureOfAborted,
  isAborted,
  isForgotten,
  SERIALIZATION_FAILURE,
  serverErrorWithin,
} from '../problems.js';
import { ROLLBACK } from '../sql.js';
import type { PostgresStoreOptions } from '../store-options.js';
import { OpenTransaction } from '../transaction/open-transaction.js';
import type { LeaseStatements } from './statements.js';

/** What a fenced transaction belongs to. */
interface FencedBy {
  readonly options: PostgresStoreOptions;
  readonly statements: LeaseStatements;
  readonly afterCommit: AfterCommit;
  /** That of the execution, which is in no transaction. */
  readonly frame: AmbientFrame;
  /** Takes what was thrown because the connection was lost. */
  readonly broken: WeakSet<object>;
  /** Those that have not ended. */
  readonly open: Set<OpenTransaction>;
}

/** Times a fence is tried again when its row changed after the transaction's snapshot. */
const FENCE_ATTEMPTS = 3;

/**
 * Runs work in a transaction of its own that a stale owner cannot commit: it shares the identity's advisory lock, which a
 * takeover needs for itself alone, and only then looks whether the lease is still ours. Its isolation is named, because how
 * the fence looks depends on it.
 */
export async function fencedTransaction<T>(by: FencedBy, work: (handle: never) => Promise<T>): Promise<T> {
  const { options, afterCommit, frame, broken, open } = by;
  const { host, isolation, acquireTimeout: patience } = options;
  const { execution } = frame;
  const around = currentFrame();
  // Inside another one of the same execution it is a savepoint of that.
  if (around !== frame && around?.execution === execution) return host.nest(work);
  const connection = await begin(by);
  const context = { host, afterCommit, isolation, patience, execution, enterHandler: () => undefined };
  const transaction = new OpenTransaction(connection, context);
  open.add(transaction);
  try {
    await transaction.announce();
    const result = await transaction.run((handle) => work(handle() as never));
    await transaction.commit(await transaction.keepAndClose());
    return result;
  } catch (error) {
    const isLost = connection.lost || endsSession(error);
    if (isLost && typeof error === 'object' && error !== null) broken.add(error);
    const { abortedBy } = transaction;
    await transaction.rollBack();
    throw isAborted(serverErrorWithin(error)) ? failureOfAborted(abortedBy ?? error) : error;
  } finally {
    open.delete(transaction);
  }
}

/** A connection inside a transaction that holds the fence. */
async function begin({ options, statements }: FencedBy): Promise<PooledConnection> {
  const connection = await runInFrame(undefined, () => acquire(options));
  // A connection that stays silent must not keep the handler waiting.
  const timer = setTimeout(() => connection.release(true), options.acquireTimeout);
  try {
    for (let attempt = 1; ; attempt++) {
      const isOurs = await statements.beginFenced(connection, options.isolation).catch((error: unknown) => {
        const isTriedAgain = serverErrorWithin(error)?.code === SERIALIZATION_FAILURE || isForgotten(error);
        if (attempt === FENCE_ATTEMPTS || !isTriedAgain) throw error;
        return undefined;
      });
      if (isOurs) return connection;
      if (isOurs === false) throw failure('IDEMPOTENCY_LEASE_LOST');
      await connection.sendAll([{ text: ROLLBACK }]);
    }
  } catch (error) {
    await connection.rollBackAndRelease();
    throw failureBeforeCommit(connection.reasonOf(error));
  } finally {
    clearTimeout(timer);
  }
}
