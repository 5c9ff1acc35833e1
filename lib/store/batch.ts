import type { Connection, Submittable } from 'pg';
import type { Client } from '../join/port.js';

/**
 * A value as PostgreSQL writes it: text, whatever parsers an application has set. The statements ask for what has one spelling
 * whatever a session has set: times as microseconds, bytes as hexadecimal digits.
 */
export type Raw = string | null;

/** What a parameter may be. */
type Value = string | number | Date | Buffer | readonly string[] | null | undefined;

/** One statement with its parameters. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly Value[];
}

/** What the server answered to one statement. */
export interface Answer {
  readonly command: string;
  /** Rows that it returned or changed. */
  readonly count: number;
  readonly rows: Readonly<Record<string, Raw>>[];
}

/** What became of several statements. */
export interface Answers {
  /** Of those that succeeded, in their order. */
  readonly results: readonly Answer[];
  /** How many were sent, and may have been executed. */
  readonly sent: number;
  /** Why there are no more results: the error of the next statement, or the end of the connection. */
  readonly error?: unknown;
}

type Callback = (error: Error | null | undefined, answers?: Answers) => void;

/** The members of node-postgres' client that are not in its types. */
interface ClientInternals {
  readonly connection?: Connection & ConnectionInternals;
  readonly pipeline?: boolean;
}

/** Each of these methods makes a message of the protocol, and hands it to `_send`. */
interface ConnectionInternals {
  readonly parsedStatements: Readonly<Record<string, string>>;
  parse(this: Outbox, statement: { text: string; name: string }): void;
  bind(this: Outbox, portal: { statement: string; values: readonly (string | Buffer | null)[] }): void;
  describe(this: Outbox, portal: { type: 'P'; name: '' }): void;
  execute(this: Outbox, portal: object): void;
  sync(this: Outbox): void;
  _send(message: Buffer): void;
}

const MESSAGES = ['parse', 'bind', 'describe', 'execute', 'sync', '_send'] as const;

/** A column of what comes back of a statement. */
interface Field {
  readonly name: string;
}

/** The columns of what comes back, by name. */
type Columns = readonly string[];

/**
 * Whether several statements can be sent at once: not through the native bindings, nor where somebody put another client or
 * stream in their place. A client that pipelines by itself takes no queries but its own.
 */
export function canSendAtOnce(client: Client): boolean {
  const { connection, pipeline } = client as ClientInternals;
  return (
    pipeline !== true &&
    MESSAGES.every((message) => typeof connection?.[message] === 'function') &&
    typeof connection?.parsedStatements === 'object' &&
    typeof (connection.stream as { write?: unknown } | undefined)?.write === 'function'
  );
}

/**
 * Sends statements in one piece: one write, one wake-up of the server, one answer. They share the one Sync at their end, so
 * that after an error the server skips the rest: a COMMIT behind a statement that failed is never executed.
 *
 * Never rejects.
 *
 * @param names - Under which the server keeps statements prepared, by their texts.
 */
export function sendAtOnce(
  client: Client,
  statements: readonly Statement[],
  names: ReadonlyMap<string, string> = new Map(),
): Promise<Answers> {
  return new Promise((resolve) => {
    const fail = (error: unknown): void => resolve({ results: [], sent: statements.length, error });
    const batch = new Batch(statements, names, (error, answers) =>
      answers ? resolve(answers) : fail(error),
    );
    try {
      (client as unknown as { query(batch: Submittable): unknown }).query(batch);
    } catch (error) {
      // Of something that wraps the client; by then the client may have sent it.
      fail(error);
    }
  });
}

/**
 * A query of node-postgres' that consists of several. Tracing tools put objects of their own in a query's place that inherit
 * from it, which is why nothing here is a `#private` member.
 */
class Batch implements Submittable {
  private readonly results: Answer[] = [];
  private readonly columns: (Columns | undefined)[] = [];
  /** Of the current statement. */
  private rows: Answer['rows'] = [];
  /** The statement whose answer is awaited. */
  private current = 0;
  private sent = 0;
  /** What one of them could not be sent for. */
  private failure: unknown;

  constructor(
    private readonly statements: readonly Statement[],
    private readonly names: ReadonlyMap<string, string>,
    /** By this name the client finds it, and puts its own in front where a `query_timeout` is set. */
    public callback: Callback,
  ) {}

  /** With the name, what the client keeps in mind as prepared once the server says so. */
  get text(): string | undefined {
    return this.statements[this.current]?.text;
  }

  get name(): string | undefined {
    const { text } = this;
    return text === undefined ? undefined : this.names.get(text);
  }

  submit(connection: Connection): void {
    const messages = connection as Connection & ConnectionInternals;
    const outbox = new Outbox();
    try {
      for (const statement of this.statements) {
        this.sent += 1;
        this.put(statement, messages, outbox);
      }
    } catch (error) {
      // A parameter that cannot be sent: what comes after it must not be executed either.
      this.failure = error;
    }
    messages.sync.call(outbox);
    if (connection.stream.writable) connection.stream.write(outbox.bytes());
  }

  private put({ text, values = [] }: Statement, connection: ConnectionInternals, outbox: Outbox): void {
    const encoded = values.map(encode);
    const name = this.names.get(text) ?? '';
    // The server may skip what is prepared here, so that only its answer counts as a proof that it was.
    const isPrepared = name !== '' && connection.parsedStatements[name] !== undefined;
    if (!isPrepared) connection.parse.call(outbox, { text, name });
    connection.bind.call(outbox, { statement: name, values: encoded });
    const known = isPrepared ? describedBy(connection).get(name) : undefined;
    this.columns.push(known);
    if (!known) connection.describe.call(outbox, { type: 'P', name: '' });
    connection.execute.call(outbox, {});
  }

  handleRowDescription({ fields }: { fields: readonly Field[] }): void {
    this.columns[this.current] = fields.map(({ name }) => name);
  }

  handleDataRow({ fields }: { fields: readonly Raw[] }): void {
    const row: Record<string, Raw> = {};
    for (const [index, name] of (this.columns[this.current] ?? []).entries())
      row[name] = fields[index] ?? null;
    this.rows.push(row);
  }

  handleCommandComplete({ text }: { text: string }, connection: Connection): void {
    const { current, name, rows } = this;
    if (name !== undefined) describedBy(connection).set(name, (this.columns[current] ??= []));
    this.results.push({ command: text.split(' ', 1)[0] ?? '', count: countOf(text), rows });
    this.rows = [];
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

/** Stands in for a connection while messages are made, so that all of them become one write. */
class Outbox {
  private readonly messages: Buffer[] = [];

  _send(message: Buffer): void {
    this.messages.push(message);
  }

  bytes(): Buffer {
    return Buffer.concat(this.messages);
  }
}

const described = new WeakMap<object, Map<string, Columns>>();

/** What a session has said of its prepared statements: it need not say it again, for it does not change. */
function describedBy(connection: object): Map<string, Columns> {
  let columns = described.get(connection);
  if (!columns) {
    columns = new Map();
    described.set(connection, columns);
  }
  return columns;
}

/** The number at the end of what the server says of a statement that succeeded, such as `INSERT 0 1`. */
function countOf(tag: string): number {
  return Number(/\d+$/.exec(tag)?.[0] ?? 0);
}

/** As PostgreSQL reads it, whatever a session has set. */
export function encode(value: Value): string | Buffer | null {
  if (value === null || value === undefined) return null;
  if (typeof value === 'string' || Buffer.isBuffer(value)) return value;
  if (typeof value === 'number') return String(value);
  if (value instanceof Date) return value.toISOString();
  return `{${value.map((element) => `"${element.replaceAll(/[\\"]/g, '\\$&')}"`).join(',')}}`;
}
