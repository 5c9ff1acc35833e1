import { IdempotencyUsageError } from '../core/errors.js';
import type { Client } from './port.js';
import { intrusionOf } from './scanner.js';

type Send = (...args: unknown[]) => unknown;
type Callback = (error: unknown, result?: unknown) => void;

/**
 * Sends the handler's statements one at a time, in the order they were asked for. A handler may well run several at
 * once; node-postgres is about to refuse that on one connection. Once closed, nothing more reaches the connection,
 * which by then may serve another request.
 */
export class StatementQueue {
  #tail: Promise<unknown> | undefined;
  #closed = false;
  #abortedBy: unknown;

  constructor(
    /** The error of what comes, or fails, when the transaction has ended. */
    private readonly refusal: (cause?: unknown) => Error,
    /** Called before a statement makes the session forget what it keeps prepared. */
    private readonly onForgotten: () => void,
  ) {}

  /** The connection as the handler's ORM sees it: everything but `query` is the client's own. */
  guard<C extends Client>(client: C): C {
    const send = client.query.bind(client) as unknown as Send;
    const guarded = Object.create(client) as { query: Send };
    guarded.query = (...args) => this.#query(send, args);
    return guarded as unknown as C;
  }

  /** From now on every statement that has not been sent yet is refused. */
  shut(): void {
    this.#closed = true;
  }

  /** Refuses every statement that has not been sent yet, and resolves when the one under way has ended. */
  async close(): Promise<void> {
    this.shut();
    await this.#tail;
  }

  get busy(): boolean {
    return this.#tail !== undefined;
  }

  /** The first error since the transaction last worked: PostgreSQL refuses what comes behind it, in words that do not tell why. */
  get abortedBy(): unknown {
    return this.#abortedBy;
  }

  #query(send: Send, args: unknown[]): unknown {
    if (isSubmittable(args[0])) return this.#submit(send, args[0]);
    const callback = args.at(-1);
    if (typeof callback !== 'function') return this.#enqueue(() => this.#send(send, args));
    this.#enqueue(() => this.#send(send, args.slice(0, -1))).then(
      (result) => (callback as Callback)(null, result),
      callback as Callback,
    );
    return undefined;
  }

  async #enqueue(send: () => unknown): Promise<unknown> {
    if (this.#closed) throw this.refusal();
    const result = this.#tail ? this.#tail.then(() => this.#sendIfOpen(send)) : Promise.resolve(send());
    this.#occupy(result);
    // One that ends with the transaction fails because of that, whatever the server calls it.
    return result.catch((error: unknown) => {
      throw this.#closed ? this.refusal(error) : error;
    });
  }

  #sendIfOpen(send: () => unknown): unknown {
    if (this.#closed) throw this.refusal();
    return send();
  }

  async #send(send: Send, args: unknown[]): Promise<unknown> {
    this.#inspect(args[0]);
    try {
      const result = await send(...args);
      this.#abortedBy = undefined;
      return result;
    } catch (error) {
      this.#abortedBy ??= error;
      throw error;
    }
  }

  /** @throws IdempotencyUsageError for what would end the transaction, and with it the lock that keeps every other attempt out. */
  #inspect(query: unknown): void {
    const text = textOf(query);
    const intrusion = text === undefined ? undefined : intrusionOf(text);
    if (intrusion === 'ends') throw notYoursError();
    if (intrusion === 'forgets') this.onForgotten();
  }

  /**
   * A cursor, a stream or a query made by hand: it is handed out at once, sent in its turn, and what follows waits until it is
   * through.
   */
  #submit(send: Send, submittable: Submittable): unknown {
    if (this.#closed) throw this.refusal();
    this.#inspect(submittable);
    const start = (): unknown => {
      if (submittable.destroyed) return undefined;
      if (this.#closed) return submittable.handleError(this.refusal());
      const through = endOf(submittable);
      send(submittable);
      return through.then((error) => {
        this.#abortedBy = error === undefined ? undefined : (this.#abortedBy ?? error);
      });
    };
    this.#occupy(this.#tail ? this.#tail.then(start) : Promise.resolve(start()));
    return submittable;
  }

  #occupy(work: Promise<unknown>): void {
    const tail = work
      .catch(() => undefined)
      .then(() => {
        if (this.#tail === tail) this.#tail = undefined;
      });
    this.#tail = tail;
  }
}

/** Of a text, a query's settings, a query made by hand, or a stream, which keeps its cursor. */
function textOf(query: unknown): string | undefined {
  if (typeof query === 'string') return query;
  const { text, cursor } = (query ?? {}) as { text?: unknown; cursor?: { text?: unknown } };
  const found = text ?? cursor?.text;
  return typeof found === 'string' ? found : undefined;
}

function notYoursError(): IdempotencyUsageError {
  return new IdempotencyUsageError(
    'IDEMPOTENCY_TRANSACTION_NOT_YOURS',
    'a statement that ends the transaction was sent inside an @Idempotent() handler, whose transaction is committed when it ' +
      'returns. It was not executed. Throw an error to roll back; use dataSource.transaction(work) for a part that may fail.',
  );
}

/** What node-postgres needs of a query that it did not make itself. */
interface Submittable {
  submit(connection: unknown): void;
  handleError(...args: unknown[]): unknown;
  handleReadyForQuery(...args: unknown[]): unknown;
  /** Set on streams that were given up. */
  readonly destroyed?: boolean;
}

function isSubmittable(value: unknown): value is Submittable {
  return typeof (value as Partial<Submittable> | undefined)?.submit === 'function';
}

/** Resolves when the server is through with it, with its error if it had one; cursors have no event that all of them emit. */
function endOf(submittable: Submittable): Promise<unknown> {
  const handleError = submittable.handleError.bind(submittable);
  const handleReadyForQuery = submittable.handleReadyForQuery.bind(submittable);
  return new Promise((resolve) => {
    Object.assign(submittable, {
      handleError: (...args: unknown[]) => {
        resolve(args[0]);
        return handleError(...args);
      },
      handleReadyForQuery: (...args: unknown[]) => {
        resolve(undefined);
        return handleReadyForQuery(...args);
      },
    });
  });
}
