import type { ClientBase } from 'pg';
import { IdempotencyUsageError, type IdempotencyFailure } from '../core/errors.js';
import { isPreparable, type HandlerStatements } from './handler-statements.js';
import { failureOfPrepared } from './sqlstate.js';

type Send = (...args: unknown[]) => unknown;
type Callback = (error: unknown, result?: unknown) => void;

/** What would end the transaction, and with it the lock that keeps every other attempt out; comments may stand before it. */
const ENDING =
  /^(?:\s|--.*\n|\/\*[^]*?\*\/)*(?:commit|end|abort|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b/i;

/**
 * Sends the handler's statements one at a time, in the order they were asked for. A handler may well run several at
 * once; node-postgres is about to refuse that on one connection. Once closed, nothing more reaches the connection,
 * which by then may serve another request.
 */
export class StatementQueue {
  #tail: Promise<unknown> | undefined;
  #closed = false;
  #spoiled: IdempotencyFailure | undefined;

  constructor(
    /** The error of what comes, or fails, when the transaction has ended. */
    private readonly refusal: (cause?: unknown) => Error,
    /** Which statements are sent under a name; undefined: none. */
    private readonly statements?: HandlerStatements,
  ) {}

  /** The connection as the handler's ORM sees it: everything but `query` is the client's own. */
  guard(client: ClientBase): ClientBase {
    const send = client.query.bind(client) as unknown as Send;
    const guarded = Object.create(client) as { query: Send };
    guarded.query = (...args) => this.#query(send, args);
    return guarded as unknown as ClientBase;
  }

  /** Refuses every statement that has not been sent yet, and resolves when the one under way has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#tail;
  }

  get busy(): boolean {
    return this.#tail !== undefined;
  }

  /**
   * Why nothing of the transaction may be kept: a statement failed because it was prepared, of which the handler knows
   * nothing. What it made of the error was not meant for that.
   */
  get spoiled(): IdempotencyFailure | undefined {
    return this.#spoiled;
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

  #send(send: Send, args: unknown[]): unknown {
    if (!this.statements || !isPreparable(args)) return sendUnlessEnding(send, args);
    const [text, values] = args;
    const name = this.statements.nameOf(text);
    // What has a name was sent without one before, and so ends nothing.
    if (name !== undefined) return this.#sendPrepared(send, { name, text, values });
    const answer = sendUnlessEnding(send, args);
    this.statements.count(text);
    return answer;
  }

  async #sendPrepared(
    send: Send,
    statement: { name: string; text: string; values: unknown[] },
  ): Promise<unknown> {
    try {
      return await send(statement);
    } catch (error) {
      const failure = failureOfPrepared(error);
      if (failure) {
        this.statements?.giveUp(statement.text);
        this.#spoiled ??= failure;
      }
      throw error;
    }
  }

  /** A cursor or stream: it is handed out at once, sent in its turn, and what follows waits until it is through. */
  #submit(send: Send, submittable: Submittable): unknown {
    if (this.#closed) throw this.refusal();
    const start = (): unknown => {
      if (submittable.destroyed) return undefined;
      if (this.#closed) return submittable.handleError(this.refusal());
      const through = endOf(submittable);
      send(submittable);
      return through;
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

function sendUnlessEnding(send: Send, args: unknown[]): unknown {
  const [query] = args;
  const text = typeof query === 'string' ? query : (query as { text?: unknown } | undefined)?.text;
  if (typeof text === 'string' && ENDING.test(text)) throw notYoursError(text.trim());
  return send(...args);
}

function notYoursError(statement: string): IdempotencyUsageError {
  return new IdempotencyUsageError(
    'IDEMPOTENCY_TRANSACTION_NOT_YOURS',
    `${statement} was sent inside an @Idempotent() handler, whose transaction is committed when it returns. Throw an error to ` +
      'roll it back; use dataSource.transaction(work) for a part that may fail.',
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

/** Resolves when the server is through with it; cursors have no event for that which all of them emit. */
function endOf(submittable: Submittable): Promise<void> {
  const handleError = submittable.handleError.bind(submittable);
  const handleReadyForQuery = submittable.handleReadyForQuery.bind(submittable);
  return new Promise((resolve) => {
    Object.assign(submittable, {
      handleError: (...args: unknown[]) => {
        resolve();
        return handleError(...args);
      },
      handleReadyForQuery: (...args: unknown[]) => {
        resolve();
        return handleReadyForQuery(...args);
      },
    });
  });
}
