import type { DataSource, EntityManager, QueryRunner, ReplicationMode } from 'typeorm';
import { currentFrame, runInFrame } from '../../core/ambient.js';
import { joinedSide, joinRunner } from './query-runner.js';
import { TransactionFrame } from './frame.js';

type Work<T> = (manager: EntityManager) => Promise<T>;

/**
 * Lets whatever goes through a DataSource join the transaction of the handler it is called from.
 *
 * Everything in TypeORM that touches the database, repositories and query builders included, asks
 * `dataSource.createQueryRunner()` for a connection unless it was given one. Overriding that method on this one
 * instance is therefore enough, and leaves no repository behind that keeps a handler's runner. `transaction` is
 * overridden besides, so that the work of a nested transaction runs in a frame of its own.
 *
 * @returns a function that undoes it, once everybody who shares the DataSource has called theirs.
 */
export function joinDataSource(dataSource: DataSource): () => void {
  const joined = joinedDataSources.get(dataSource) ?? { by: new Set(), restore: override(dataSource) };
  joinedDataSources.set(dataSource, joined);
  const leave = (): void => {
    if (!joined.by.delete(leave) || joined.by.size > 0) return;
    joinedDataSources.delete(dataSource);
    joined.restore();
  };
  joined.by.add(leave);
  return leave;
}

/** Two applications may share a DataSource: it is joined until the last of them leaves. */
const joinedDataSources = new WeakMap<DataSource, { by: Set<() => void>; restore: () => void }>();

function override(dataSource: DataSource): () => void {
  const createRunner = dataSource.createQueryRunner.bind(dataSource);
  const createManager = dataSource.createEntityManager.bind(dataSource);
  dataSource.createQueryRunner = (mode?: ReplicationMode): QueryRunner => {
    const frame = frameOf(dataSource);
    if (!frame) return createRunner(mode);
    return joinRunner(createRunner('master'), frame, frame.owner.client);
  };
  dataSource.createEntityManager = (runner) => nestInFrames(createManager(runner), dataSource);
  const restoreManager = overrideTransaction(dataSource.manager, dataSource);
  return () => {
    Reflect.deleteProperty(dataSource, 'createQueryRunner');
    Reflect.deleteProperty(dataSource, 'createEntityManager');
    restoreManager();
  };
}

function frameOf(dataSource: DataSource): TransactionFrame | undefined {
  const frame = currentFrame();
  if (!(frame instanceof TransactionFrame)) return undefined;
  return frame.owner.dataSource === dataSource ? frame : undefined;
}

function nestInFrames(manager: EntityManager, dataSource: DataSource): EntityManager {
  overrideTransaction(manager, dataSource);
  return manager;
}

function overrideTransaction(manager: EntityManager, dataSource: DataSource): () => void {
  const transaction = manager.transaction.bind(manager) as (...args: unknown[]) => Promise<unknown>;
  // DataSource.transaction(work) passes a second argument, undefined.
  const override = async (
    ...args: [Work<unknown>, undefined?] | [string, Work<unknown>]
  ): Promise<unknown> => {
    const [isolation, work] = typeof args[0] === 'function' ? [undefined, args[0]] : args;
    const isAmbient = manager.queryRunner ? joinedSide(manager.queryRunner) : frameOf(dataSource);
    if (!isAmbient || typeof work !== 'function') return transaction(...args);
    if (manager.queryRunner) return runNested(manager.queryRunner, isolation, work);
    const runner = dataSource.createQueryRunner();
    try {
      return await runNested(runner, isolation, work);
    } finally {
      // Entities with lazy relations keep the runner they were loaded by, and take another once it is released.
      await runner.release();
    }
  };
  manager.transaction = override;
  return () => Reflect.deleteProperty(manager, 'transaction');
}

async function runNested<T>(runner: QueryRunner, isolation: string | undefined, work: Work<T>): Promise<T> {
  const joined = joinedSide(runner);
  if (!joined) throw new TypeError('the runner does not belong to the ambient transaction');
  const frame = await joined.start(isolation, true);
  try {
    const result = await runInFrame(frame, () => work(runner.manager));
    await joined.commit();
    return result;
  } catch (error) {
    // As in TypeORM: the error of the work matters, not that of the rollback.
    await joined.rollback().catch(() => undefined);
    throw error;
  }
}
