import { derivedKey } from '../core/derived-key.js';
import type { Claim } from '../core/store.js';
import { failure } from './problems.js';

/** What differs between the modes. */
interface ModeParts {
  readonly manager: () => unknown;
  readonly transaction: <T>(work: (handle: never) => Promise<T>) => Promise<T>;
}

/** What a handler is given to know of its execution, and to act in it. */
export class HandlerExecution {
  /** Made when a handler asks for it: few do, and it is not cheap. */
  #controller: AbortController | undefined;
  #abortReason: (() => Error) | undefined;

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
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#abortReason) this.#controller.abort(this.#abortReason());
    }
    return this.#controller.signal;
  }

  get manager(): unknown {
    return this.parts.manager();
  }

  // Bound, because handlers take an execution apart: `({ deriveKey, signal }) => …`.
  readonly transaction = <T>(work: (handle: never) => Promise<T>): Promise<T> => this.parts.transaction(work);

  readonly deriveKey = (name: string): string => derivedKey(this.claim.identity, name);

  /** Aborts the signal. Only the first reason counts. */
  abort(reason: () => Error): void {
    if (this.#abortReason) return;
    this.#abortReason = reason;
    this.#controller?.abort(reason());
  }

  /** Aborts the signal of an execution that ends without having been answered by its handler. */
  end(isOverdue: boolean): void {
    this.abort(() =>
      isOverdue
        ? failure('IDEMPOTENCY_MAX_DURATION_EXCEEDED')
        : new Error('the execution of this @Idempotent() handler is over'),
    );
  }
}
