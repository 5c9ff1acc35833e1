import { EventEmitter } from 'node:events';
import { describe, expect, it } from '@jest/globals';
import type { Client } from '../../../lib/join/port.js';
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
  text: string | undefined;
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

function setUp(onForgotten: () => void = () => undefined): {
  wire: Wire;
  queue: StatementQueue;
  client: { query(...args: unknown[]): unknown };
} {
  const wire = new Wire();
  const queue = new StatementQueue(refusal, onForgotten);
  return { wire, queue, client: queue.guard(wire as unknown as Client) };
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

  describe('does not send what ends the transaction', () => {
    const cursorOf = (text: string): FakeCursor => Object.assign(new FakeCursor(), { text });
    const streamOf = (text: string): FakeCursor => Object.assign(new FakeCursor(), { cursor: { text } });
    const NOT_YOURS = expect.objectContaining({ code: 'IDEMPOTENCY_TRANSACTION_NOT_YOURS' });

    it.each<[string, unknown[]]>([
      ['text', ['COMMIT']],
      ['text with values', ['ROLLBACK', []]],
      ['settings', [{ text: 'end', values: [] }]],
      ['several statements', ['SELECT 1; COMMIT; BEGIN']],
    ])('as %s', async (_how, args) => {
      const { wire, client } = setUp();
      await expect(client.query(...args)).rejects.toEqual(NOT_YOURS);
      expect(wire.statements).toEqual([]);
      void client.query('SELECT 1');
      expect(wire.statements).toEqual(['SELECT 1']);
    });

    it('with a callback', async () => {
      const { wire, client } = setUp();
      const answered = deferred<unknown>();
      client.query('COMMIT', (error: unknown) => answered.resolve(error));
      expect(await answered.promise).toEqual(NOT_YOURS);
      expect(wire.statements).toEqual([]);
    });

    it.each([cursorOf('COMMIT'), streamOf('COMMIT')])('as %p', (submittable) => {
      const { wire, client } = setUp();
      expect(() => client.query(submittable)).toThrow(NOT_YOURS);
      expect(wire.statements).toEqual([]);
    });

    it('and sends what it cannot read, and what ends a part of it', async () => {
      const { wire, client } = setUp();
      const sent = [{}, undefined, { text: 7 }, 'ROLLBACK TO SAVEPOINT a'];
      for (const statement of sent) {
        void client.query(statement);
        wire.sent.at(-1)!.answer.resolve(undefined);
        await turn();
      }
      expect(wire.statements).toEqual(sent);
    });
  });

  it('tells before it sends that a session will forget what it has prepared', async () => {
    const told: unknown[][] = [];
    const { wire, client } = setUp(() => told.push(wire.statements));
    void client.query('SELECT 1');
    void client.query('DEALLOCATE ALL');
    wire.sent[0]!.answer.resolve(undefined);
    await turn();
    expect(told).toEqual([['SELECT 1']]);
    expect(wire.statements).toEqual(['SELECT 1', 'DEALLOCATE ALL']);
    wire.sent[1]!.answer.resolve(undefined);
    await turn();
    void client.query('SELECT 2');
    expect(told).toHaveLength(1);
  });

  describe('knows what aborted the transaction', () => {
    const [first, second] = [new Error('first'), new Error('second')];

    it('by the first error, until the transaction works again', async () => {
      const { wire, queue, client } = setUp();
      expect(queue.abortedBy).toBeUndefined();
      for (const error of [first, second]) {
        const failing = client.query('x') as Promise<unknown>;
        wire.sent.at(-1)!.answer.reject(error);
        await expect(failing).rejects.toBe(error);
        await turn();
      }
      expect(queue.abortedBy).toBe(first);
      const working = client.query('ROLLBACK TO SAVEPOINT a');
      wire.sent.at(-1)!.answer.resolve(undefined);
      await working;
      expect(queue.abortedBy).toBeUndefined();
    });

    it('by that of a cursor as well', async () => {
      const { queue, client } = setUp();
      const [failing, failing2, working] = [new FakeCursor(), new FakeCursor(), new FakeCursor()];
      client.query(failing);
      failing.handleError(first);
      await turn();
      client.query(failing2);
      failing2.handleError(second);
      await turn();
      expect(queue.abortedBy).toBe(first);
      client.query(working);
      working.handleReadyForQuery();
      await turn();
      expect(queue.abortedBy).toBeUndefined();
    });
  });

  it('leaves everything else of the client as it is', () => {
    const { wire, client } = setUp();
    expect((client as unknown as Wire).sent).toBe(wire.sent);
    expect(client).toBeInstanceOf(EventEmitter);
  });
});
