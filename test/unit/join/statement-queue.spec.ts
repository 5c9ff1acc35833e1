import { EventEmitter } from 'node:events';
import { describe, expect, it } from '@jest/globals';
import type { ClientBase } from 'pg';
import { StatementQueue } from '../../../lib/join/statement-queue.js';
import { deferred, type Deferred } from '../../helpers/conditions.js';

/** Stands for the driver only: who gets to send when is decided before any server is asked. */
class Wire extends EventEmitter {
  readonly sent: { statement: unknown; answer: Deferred<unknown> }[] = [];

  query(statement: unknown): unknown {
    const answer = deferred<unknown>();
    this.sent.push({ statement, answer });
    return isSubmittable(statement) ? statement : answer.promise;
  }

  get statements(): unknown[] {
    return this.sent.map(({ statement }) => statement);
  }
}

class FakeCursor {
  error: unknown;
  destroyed = false;

  submit(): void {
    throw new Error('only the driver submits');
  }

  handleError(error: unknown): void {
    this.error = error;
  }

  handleReadyForQuery(): string {
    return 'its own';
  }
}

const isSubmittable = (value: unknown): boolean => value instanceof FakeCursor;
const refusal = (): Error => new Error('closed');
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

function setUp(): { wire: Wire; queue: StatementQueue; client: { query(...args: unknown[]): unknown } } {
  const wire = new Wire();
  const queue = new StatementQueue(refusal);
  return { wire, queue, client: queue.guard(wire as unknown as ClientBase) };
}

describe('StatementQueue', () => {
  it('sends the first statement at once and the next when its answer is there', async () => {
    const { wire, client } = setUp();
    const first = client.query('1');
    const second = client.query('2');
    expect(wire.statements).toEqual(['1']);
    wire.sent[0]!.answer.resolve('one');
    expect(await first).toBe('one');
    await turn();
    expect(wire.statements).toEqual(['1', '2']);
    wire.sent[1]!.answer.resolve('two');
    expect(await second).toBe('two');
  });

  it('goes on after a statement that failed', async () => {
    const { wire, client } = setUp();
    const first = client.query('1');
    const second = client.query('2');
    wire.sent[0]!.answer.reject(new Error('syntax'));
    await expect(first).rejects.toThrow('syntax');
    await turn();
    wire.sent[1]!.answer.resolve('two');
    expect(await second).toBe('two');
  });

  it('answers callbacks as the client does', async () => {
    const { wire, client } = setUp();
    const answered = deferred<unknown[]>();
    expect(client.query('1', (...args: unknown[]) => answered.resolve(args))).toBeUndefined();
    wire.sent[0]!.answer.resolve('one');
    expect(await answered.promise).toEqual([null, 'one']);
  });

  it('hands out a cursor at once, sends it in its turn, and holds what follows until the server is through', async () => {
    const { wire, client } = setUp();
    const cursor = new FakeCursor();
    void client.query('1');
    expect(client.query(cursor)).toBe(cursor);
    void client.query('2');
    expect(wire.statements).toEqual(['1']);
    wire.sent[0]!.answer.resolve(undefined);
    await turn();
    expect(wire.statements).toEqual(['1', cursor]);
    expect(cursor.handleReadyForQuery()).toBe('its own');
    await turn();
    expect(wire.statements).toEqual(['1', cursor, '2']);
  });

  it('does not send a stream that was given up while it waited', async () => {
    const { wire, client } = setUp();
    const cursor = new FakeCursor();
    void client.query('1');
    client.query(cursor);
    cursor.destroyed = true;
    void client.query('2');
    wire.sent[0]!.answer.resolve(undefined);
    await turn();
    expect(wire.statements).toEqual(['1', '2']);
  });

  it('once closed refuses what was not sent, and waits for what was', async () => {
    const { wire, queue, client } = setUp();
    const cursor = new FakeCursor();
    const first = client.query('1');
    const second = client.query('2') as Promise<unknown>;
    client.query(cursor);
    const refused = expect(second).rejects.toThrow('closed');
    let closed = false;
    const closing = queue.close().then(() => (closed = true));
    await expect(client.query('3')).rejects.toThrow('closed');
    expect(() => client.query(new FakeCursor())).toThrow('closed');
    await turn();
    expect(closed).toBe(false);
    wire.sent[0]!.answer.resolve('one');
    expect(await first).toBe('one');
    await refused;
    await closing;
    expect(cursor.error).toEqual(refusal());
    expect(wire.statements).toEqual(['1']);
  });

  it('leaves everything else of the client as it is', () => {
    const { wire, client } = setUp();
    expect((client as unknown as Wire).sent).toBe(wire.sent);
    expect(client).toBeInstanceOf(EventEmitter);
  });
});
