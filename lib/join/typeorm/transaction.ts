import { setImmediate } from 'node:timers/promises';
import type { DataSource, QueryRunner } from 'typeorm';
import { runInFrame, type AfterCommitWork, type AmbientFrame } from '../../core/ambient.js';
import type { IsolationLevel } from '../../core/store.js';
import { finishedError } from '../late-work.js';
import type {
  BegunTransaction,
  Client,
  JoinedTransaction,
  TransactionEnd,
  TransactionEvent,
} from '../port.js';
import { unheard } from '../unheard.js';
import { StatementQueue } from '../statement-queue.js';
import { TransactionFrame, type Announced, type FrameOwner } from './frame.js';
import { broadcast, broadcastEnd, detachRunner, joinRunner, retireRunner } from './query-runner.js';

/** What TypeORM's subscribers are told, in order. */
const EVENTS: Readonly<Record<TransactionEvent, readonly string[]>> = {
  begin: ['BeforeTransactionStart', 'AfterTransactionStart'],
  'before-commit': ['BeforeTransactionCommit'],
  'before-rollback': ['BeforeTransactionRollback'],
};
const ENDS: Readonly<Record<TransactionEnd, string>> = {
  committed: 'AfterTransactionCommit',
  'rolled-back': 'AfterTransactionRollback',
};

/** A transaction of the store's that code joins through the DataSource. What still comes after it was closed is refused. */
export class TypeOrmTransaction implements JoinedTransaction, FrameOwner {
  /** The connection as TypeORM may use it. */
  readonly client: Client;
  readonly #root = new TransactionFrame(this);
  readonly #queue: StatementQueue;
  #isOpen = true;
  #savepoints = 0;
  #rootRunner: QueryRunner | undefined;

  constructor(
    readonly dataSource: DataSource,
    private readonly begun: BegunTransaction,
  ) {
    this.#queue = new StatementQueue(finishedError, begun.onForgotten);
    this.client = this.#queue.guard(begun.client);
  }

  get root(): AmbientFrame {
    return this.#root;
  }

  get deferred(): readonly AfterCommitWork[] {
    return this.#root.deferred;
  }

  /** Of a runner of its own, as TypeORM gives it to the work of a transaction. */
  get handle(): unknown {
    return this.dataSource.createQueryRunner().manager;
  }

  get abortedBy(): unknown {
    return this.#queue.abortedBy;
  }

  get isWatched(): boolean {
    return this.#rootRunner !== undefined;
  }

  get isolation(): IsolationLevel {
    return this.begun.isolation;
  }

  get patience(): number {
    return this.begun.patience;
  }

  get execution(): object {
    return this.begun.execution;
  }

  enterHandler(): void {
    // A pipe may take so long that the request has ended meanwhile.
    this.assertOpen();
    this.begun.enterHandler();
  }

  assertOpen(): void {
    if (!this.#isOpen) throw finishedError();
  }

  nextSavepoint(): string {
    return `idempotency_nested_${++this.#savepoints}`;
  }

  async announce(event: TransactionEvent): Promise<void> {
    if (event === 'begin') this.#watch();
    const runner = this.#rootRunner;
    if (!runner) return;
    for (const each of EVENTS[event]) await runInFrame(this.#root, () => broadcast(runner, each));
  }

  /** Has a runner that stands for the transaction, where subscribers may ask for one. */
  #watch(): void {
    if (this.dataSource.subscribers.length === 0) return;
    this.#rootRunner = runInFrame(undefined, () => this.dataSource.createQueryRunner('master'));
    joinRunner(this.#rootRunner, this.#root, this.client);
  }

  shut(): void {
    this.#isOpen = false;
    this.#queue.shut();
  }

  async close(): Promise<string[]> {
    this.shut();
    await this.#queue.close();
    // One that has just ended has not heard of it yet.
    if (this.#root.openSavepoint) await setImmediate();
    // A nested transaction that nobody awaited is half done.
    const { openSavepoint } = this.#root;
    return openSavepoint ? [`ROLLBACK TO SAVEPOINT ${openSavepoint}`] : [];
  }

  /** Not before all were told may the connection be given back: a subscriber may query through the event's runner. */
  async tell(end: TransactionEnd, isUsable: boolean): Promise<void> {
    const runner = this.#rootRunner;
    if (!runner) return;
    const { released, data } = this.#root;
    const announced: Announced[] = [...released, { runner, data }];
    await runInFrame(undefined, async () => {
      for (const each of announced) {
        if (isUsable) detachRunner(each.runner, this.begun.client);
        await unheard(() => broadcastEnd(each, ENDS[end]));
        retireRunner(each.runner);
      }
    });
  }
}
