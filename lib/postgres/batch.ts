import type { ClientBase, Connection, CustomTypesConfig, QueryResult, Submittable } from 'pg';

/** One statement with its parameters. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  /** Under which the server keeps it prepared. */
  readonly name?: string | undefined;
}

/** What became of several statements. */
export interface Answers {
  /** Of those that succeeded, in their order. */
  readonly results: readonly QueryResult[];
  /** How many were sent, and may have been executed. */
  readonly sent: number;
  /** Why there are no more results: the error of the next statement, or the end of the connection. */
  readonly error?: unknown;
}

type Callback = (error: Error | null | undefined, answers?: Answers) => void;

/** What node-postgres' own query does for one statement: `prepare` sends it, the others take in its answer. */
interface StatementQuery {
  readonly text: string;
  readonly name?: string;
  binary?: boolean;
  prepare(connection: Connection): void;
  handleRowDescription(message: unknown): void;
  handleDataRow(message: unknown): void;
  handleCommandComplete(message: unknown, connection: Connection): void;
  handleReadyForQuery(connection: Connection): void;
}

type QueryClass = new (
  config: { text: string; values: unknown[]; name?: string; types: CustomTypesConfig },
  callback: (error: Error | null | undefined, result?: QueryResult) => void,
) => StatementQuery;

/** The members of node-postgres' client that are not in its types. */
interface ClientInternals {
  readonly connection?: Partial<Record<keyof Connection, unknown>>;
  readonly pipeline?: boolean;
}

const MESSAGES = ['parse', 'bind', 'describe', 'execute', 'sync'] as const;

/**
 * Whether several statements can be sent at once: not through the native bindings, nor where somebody put another client or
 * stream in their place. A client that pipelines by itself takes no queries but its own.
 */
export function canSendAtOnce(client: ClientBase): boolean {
  const { connection, pipeline } = client as ClientInternals;
  const stream = connection?.stream as { cork?: unknown; uncork?: unknown } | undefined;
  return (
    pipeline !== true &&
    typeof (queryClassOf(client)?.prototype as Partial<StatementQuery> | undefined)?.prepare === 'function' &&
    MESSAGES.every((message) => typeof connection?.[message] === 'function') &&
    typeof stream?.cork === 'function' &&
    typeof stream.uncork === 'function'
  );
}

/** That of the very copy of node-postgres which the client is from. */
function queryClassOf(client: ClientBase): QueryClass | undefined {
  return (client.constructor as { Query?: QueryClass }).Query;
}

/**
 * Sends statements in one piece: one write, one wake-up of the server, one answer. They share the one Sync at their end, so
 * that after an error the server skips the rest: a COMMIT behind a statement that failed is never executed.
 *
 * Never rejects.
 */
export function sendAtOnce(client: ClientBase, statements: readonly Statement[]): Promise<Answers> {
  return new Promise((resolve) => {
    const batch = new Batch(client, statements, (error, answers) =>
      resolve(answers ?? { results: [], sent: statements.length, error }),
    );
    client.query(batch);
  });
}

/**
 * A query of node-postgres' that consists of several: each prepares itself and reads its answer, and only the Sync and the
 * writing are the batch's own. Tracing tools put objects of their own in a query's place that inherit from it, which is
 * why nothing here is a `#private` member.
 */
class Batch implements Submittable {
  private readonly queries: readonly StatementQuery[];
  private readonly results: QueryResult[] = [];
  /** The statement whose answer is awaited. */
  private current = 0;
  private sent = 0;
  /** What one of them could not be sent for, or not be understood. */
  private failure: unknown;

  constructor(
    client: ClientBase,
    statements: readonly Statement[],
    /** By this name the client finds it, and puts its own in front where a `query_timeout` is set. */
    public callback: Callback,
  ) {
    const Query = queryClassOf(client) as QueryClass;
    this.queries = statements.map(({ text, values = [], name }, index) => {
      // By the client's own type parsers.
      const config = { text, values: [...values], ...(name === undefined ? {} : { name }), types: client };
      return new Query(config, (error, result) => {
        if (error) this.failure ??= error;
        // What comes after one that failed is no answer to it.
        else if (result && index === this.results.length) this.results.push(result);
      });
    });
  }

  /** With the name, what the client keeps in mind as prepared once the server says so. */
  get text(): string | undefined {
    return this.queries[this.current]?.text;
  }

  get name(): string | undefined {
    return this.queries[this.current]?.name;
  }

  submit(connection: Connection): void {
    const { stream } = connection;
    // Without the Sync with which each would end itself; and the server may skip what is prepared here by name, so that
    // only its answer counts as a proof that it was.
    const open = Object.create(connection, {
      sync: { value: () => undefined },
      submittedNamedStatements: { value: {} },
    }) as Connection;
    stream.cork();
    try {
      for (const query of this.queries) {
        this.sent += 1;
        query.prepare(open);
        // A parameter that cannot be sent: what comes after it must not be executed either.
        if (this.failure !== undefined) break;
      }
      connection.sync();
    } finally {
      stream.uncork();
    }
  }

  handleRowDescription(message: unknown): void {
    this.queries[this.current]?.handleRowDescription(message);
  }

  handleDataRow(message: unknown): void {
    this.queries[this.current]?.handleDataRow(message);
  }

  handleCommandComplete(message: unknown, connection: Connection): void {
    const query = this.queries[this.current];
    query?.handleCommandComplete(message, connection);
    // As far as it is concerned.
    query?.handleReadyForQuery(connection);
    this.current += 1;
  }

  handleReadyForQuery(): void {
    this.end(this.failure);
  }

  /** Of the server, in place of the answer to the current statement; or of the connection, at any time. */
  handleError(error: Error): void {
    this.end(error);
  }

  private end(error: unknown): void {
    const { results, sent } = this;
    this.callback(error as Error | undefined, { results, sent, error });
  }
}
