import type { DataSource, QueryRunner } from 'typeorm';
import type { AfterCommitWork, AmbientFrame } from '../../core/ambient.js';
import { IdempotencyUsageError } from '../../core/errors.js';
import type { IsolationLevel } from '../../core/store.js';
import { nestedFinishedError } from '../late-work.js';
import type { Client } from '../port.js';

/** What the frames of one transaction share. */
export interface FrameOwner {
  readonly dataSource: DataSource;
  /** The connection as the application's ORM may use it. */
  readonly client: Client;
  /** What code inside may know of its execution. */
  readonly execution: object;
  readonly isolation: IsolationLevel;
  /** Milliseconds a nested transaction waits for one that was begun by hand. */
  readonly patience: number;
  enterHandler(): void;
  /** @throws IdempotencyUsageError once the handler has ended. */
  assertOpen(): void;
  /** A savepoint name that no sibling has. */
  nextSavepoint(): string;
}

/** A transaction as its subscribers know it: by its runner, and by the data they have put there. */
export interface Announced {
  readonly runner: QueryRunner;
  readonly data: Record<string, unknown>;
}

/** Who has a frame's place for a nested transaction. */
interface Occupant {
  /** Begun by `dataSource.transaction(work)`: whoever belongs to it runs in its frame. */
  readonly structured: boolean;
  readonly frame: TransactionFrame;
  readonly left: Promise<void>;
}

/**
 * One level of the ambient transaction: the handler's own, or a nested `dataSource.transaction(...)`, which is a
 * savepoint. Savepoints are a stack, so siblings that the handler starts together must take turns: otherwise rolling
 * one back would take the other's writes with it, without anybody noticing.
 */
export class TransactionFrame implements AmbientFrame {
  /** Shared with subscribers, as TypeORM's `queryRunner.data` is within one transaction. */
  readonly data: Record<string, unknown> = {};
  /** Nested transactions that are done but not yet committed; their subscribers wait for the COMMIT. */
  readonly released: Announced[] = [];
  readonly deferred: AfterCommitWork[] = [];
  #occupant: Occupant | undefined;
  #closed = false;
  /** The savepoint of a nested transaction in progress; undone when the handler ends without waiting for it. */
  openSavepoint: string | undefined;

  constructor(
    readonly owner: FrameOwner,
    readonly parent?: TransactionFrame,
  ) {}

  get execution(): object {
    return this.owner.execution;
  }

  enterHandler(): void {
    this.owner.enterHandler();
  }

  defer(work: AfterCommitWork): void {
    const { active } = this;
    active.#assertOpen();
    active.deferred.push(work);
  }

  enterNestedRun(): void {
    this.active.#assertOpen();
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_NESTED_RUN',
      'IdempotencyService.run() was called inside a transaction that may still be rolled back, and what it records could ' +
        'not be. Do the work in that transaction, without a run of its own; or run it by itself, whatever becomes of the ' +
        "transaction: outside(() => idempotency.run(…)). Steps that are recorded one by one belong in mode 'lease'.",
    );
  }

  /** Where the work of this frame belongs now: a nested transaction begun by hand takes in all that happens meanwhile. */
  get active(): TransactionFrame {
    return this.#occupant?.structured === false ? this.#occupant.frame.active : this;
  }

  /** Whether this is `other` or nested in it. */
  isWithin(other: TransactionFrame): boolean {
    return this === other || (this.parent?.isWithin(other) ?? false);
  }

  /** Resolves when a statement of this frame may be sent: not while a nested transaction that it is no part of runs. */
  async turn(): Promise<void> {
    while (this.#occupant?.structured) await this.#occupant.left;
    this.#assertOpen();
  }

  /** From now on what still comes from this frame's work is refused, as it would end up in the parent. */
  close(): void {
    this.#closed = true;
  }

  #assertOpen(): void {
    this.owner.assertOpen();
    if (this.#closed) throw nestedFinishedError();
  }

  /** Takes the place for a nested transaction, waiting for its turn. */
  async enterNested(structured: boolean): Promise<NestedPlace> {
    const deadline = performance.now() + this.owner.patience;
    for (let occupant = this.#occupant; occupant; occupant = this.#occupant) {
      await (occupant.structured ? occupant.left : leftBefore(deadline, occupant.left));
    }
    this.#assertOpen();
    let resolveLeft!: () => void;
    const left = new Promise<void>((resolve) => (resolveLeft = resolve));
    const leave = (): void => {
      this.#occupant = undefined;
      resolveLeft();
    };
    const frame = new TransactionFrame(this.owner, this);
    const place = new NestedPlace(this, frame, structured, this.owner.nextSavepoint(), leave);
    this.#occupant = { structured, frame, left };
    return place;
  }

  /** Forgets what a rollback undid. */
  forget(): Announced[] {
    this.deferred.length = 0;
    return this.released.splice(0);
  }
}

/** A nested transaction's place in its parent frame. */
export class NestedPlace {
  /** The runner's data before it. */
  outerData: Record<string, unknown> = {};

  constructor(
    private readonly parent: TransactionFrame,
    readonly frame: TransactionFrame,
    readonly structured: boolean,
    readonly savepoint: string,
    readonly leave: () => void,
  ) {}

  /** Notes that the savepoint is there. */
  opened(): void {
    this.parent.openSavepoint = this.savepoint;
  }

  /** Notes that the savepoint was released or rolled back to; until then the end of the handler undoes it. */
  ended(): void {
    this.parent.openSavepoint = undefined;
  }

  /** What was kept for after the commit now waits with the parent. */
  keep(own: Announced): void {
    this.parent.deferred.push(...this.frame.deferred);
    this.parent.released.push(...this.frame.released, own);
  }
}

/**
 * A transaction begun by hand on a query runner cannot be told from the code around it, so a second one may wait for
 * the very code that waits for it. That ends here with a remedy instead of at the handler's maximum duration.
 */
async function leftBefore(deadline: number, left: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(nestedTooLong()), Math.max(0, deadline - performance.now()));
  });
  try {
    await Promise.race([left, late]);
  } finally {
    clearTimeout(timer);
  }
}

function nestedTooLong(): IdempotencyUsageError {
  return new IdempotencyUsageError(
    'IDEMPOTENCY_NESTED_TRANSACTION_BLOCKED',
    'this transaction waited for another that was begun with queryRunner.startTransaction() in the same handler. ' +
      'Use dataSource.transaction(work) for both, or commit the first before beginning the second.',
  );
}
