import type { QueryRunner } from 'typeorm';
import type { AfterCommitWork, AmbientFrame } from '../core/ambient.js';
import { IdempotencyUsageError } from '../core/errors.js';
import type { IsolationLevel } from '../core/store.js';

/** What the frames of one transaction share. */
export interface FrameOwner {
  readonly isolation: IsolationLevel;
  /** Milliseconds a nested transaction waits for one that was begun by hand. */
  readonly patience: number;
  enterHandler(): void;
  /** @throws IdempotencyUsageError once the handler has ended. */
  assertOpen(): void;
  /** A savepoint name that no sibling has. */
  nextSavepoint(): string;
}

/** Who has a frame's place for a nested transaction. */
interface Occupant {
  /** Begun by `dataSource.transaction(work)`: whoever belongs to it runs in its frame. */
  readonly structured: boolean;
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
  /** Runners whose nested transactions are done but not yet committed; their subscribers wait for the COMMIT. */
  readonly released: QueryRunner[] = [];
  readonly deferred: AfterCommitWork[] = [];
  #occupant: Occupant | undefined;
  /** The savepoint of a nested transaction in progress; undone when the handler ends without waiting for it. */
  openSavepoint: string | undefined;

  constructor(
    readonly owner: FrameOwner,
    readonly parent?: TransactionFrame,
  ) {}

  enterHandler(): void {
    this.owner.enterHandler();
  }

  defer(work: AfterCommitWork): void {
    this.owner.assertOpen();
    this.deferred.push(work);
  }

  /** Resolves when a statement of this frame may be sent: not while a nested transaction that it is no part of runs. */
  async turn(): Promise<void> {
    while (this.#occupant?.structured) await this.#occupant.left;
    this.owner.assertOpen();
  }

  /** Takes the place for a nested transaction, waiting for its turn. */
  async enterNested(structured: boolean): Promise<NestedPlace> {
    const deadline = performance.now() + this.owner.patience;
    for (let occupant = this.#occupant; occupant; occupant = this.#occupant) {
      await (occupant.structured ? occupant.left : leftBefore(deadline, occupant.left));
    }
    this.owner.assertOpen();
    let leave!: () => void;
    const left = new Promise<void>((resolve) => (leave = resolve));
    const place = new NestedPlace(
      this,
      new TransactionFrame(this.owner, this),
      this.owner.nextSavepoint(),
      () => {
        this.#occupant = undefined;
        this.openSavepoint = undefined;
        leave();
      },
    );
    this.#occupant = { structured, left };
    this.openSavepoint = place.savepoint;
    return place;
  }

  /** Forgets what a rollback undid. */
  forget(): QueryRunner[] {
    this.deferred.length = 0;
    return this.released.splice(0);
  }
}

/** A nested transaction's place in its parent frame. */
export class NestedPlace {
  constructor(
    private readonly parent: TransactionFrame,
    readonly frame: TransactionFrame,
    readonly savepoint: string,
    readonly leave: () => void,
  ) {}

  /** What was kept for after the commit now waits with the parent. */
  keep(runner: QueryRunner): void {
    this.parent.deferred.push(...this.frame.deferred);
    this.parent.released.push(...this.frame.released, runner);
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
