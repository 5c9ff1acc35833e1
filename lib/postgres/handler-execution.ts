import type { EntityManager } from 'typeorm';
import { derivedKey } from '../core/derived-key.js';
import type { Claim } from '../core/store.js';
import type { IdempotencyExecution } from './idempotency-execution.js';
import { failure } from './sqlstate.js';

/** What differs between the modes. */
interface ModeParts {
  readonly signal: () => AbortSignal;
  readonly manager: () => EntityManager;
  readonly transaction: <T>(work: (manager: EntityManager) => Promise<T>) => Promise<T>;
}

/** Why the signal of an execution is aborted that ends without having been answered by its handler. */
export function overReason(isOverdue: boolean): Error {
  return isOverdue
    ? failure('IDEMPOTENCY_MAX_DURATION_EXCEEDED')
    : new Error('the execution of this @Idempotent() handler is over');
}

/** What a handler is given to know of its execution, and to act in it. */
export class HandlerExecution implements IdempotencyExecution {
  constructor(
    private readonly claim: Claim,
    private readonly attempted: { readonly attempt: number; readonly createdAt: Date },
    private readonly parts: ModeParts,
  ) {}

  get mode(): 'transaction' | 'lease' {
    return this.claim.mode.kind;
  }

  get attempt(): number {
    return this.attempted.attempt;
  }

  get createdAt(): Date {
    return this.attempted.createdAt;
  }

  get signal(): AbortSignal {
    return this.parts.signal();
  }

  get manager(): EntityManager {
    return this.parts.manager();
  }

  // Bound, because handlers take an execution apart: `({ deriveKey, signal }) => …`.
  readonly transaction = <T>(work: (manager: EntityManager) => Promise<T>): Promise<T> =>
    this.parts.transaction(work);

  readonly deriveKey = (name: string): string => derivedKey(this.claim.identity, name);
}
