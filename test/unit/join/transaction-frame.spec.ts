import { describe, expect, it } from '@jest/globals';
import { TransactionFrame, type FrameOwner, type NestedPlace } from '../../../lib/join/typeorm/frame.js';

const FINISHED = expect.objectContaining({ code: 'IDEMPOTENCY_TRANSACTION_FINISHED' });
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

function rootFrame(patience = 1_000): TransactionFrame {
  let savepoints = 0;
  // What a frame hands on without looking at it.
  const { dataSource, client, execution } = {} as FrameOwner;
  const owner: FrameOwner = {
    dataSource,
    client,
    execution,
    isolation: 'READ COMMITTED',
    patience,
    enterHandler: () => undefined,
    assertOpen: () => undefined,
    nextSavepoint: () => `s${++savepoints}`,
  };
  return new TransactionFrame(owner);
}

describe('TransactionFrame', () => {
  it('gives siblings names of their own, and the place to one after the other', async () => {
    const root = rootFrame();
    const order: string[] = [];
    const enter = async (): Promise<NestedPlace> => {
      const place = await root.enterNested(true);
      order.push(place.savepoint);
      return place;
    };
    const [first, second, third] = [enter(), enter(), enter()];
    await turn();
    expect(order).toEqual(['s1']);
    (await first).leave();
    await turn();
    expect(order).toEqual(['s1', 's2']);
    (await second).leave();
    (await third).leave();
    expect(order).toEqual(['s1', 's2', 's3']);
  });

  it('lets a statement wait for a structured nested transaction, but not for one begun by hand', async () => {
    const root = rootFrame();
    const byHand = await root.enterNested(false);
    await root.turn();
    byHand.leave();
    const structured = await root.enterNested(true);
    let sent = false;
    const waiting = root.turn().then(() => (sent = true));
    await structured.frame.turn();
    await turn();
    expect(sent).toBe(false);
    structured.leave();
    await waiting;
  });

  it('counts what happens while a transaction begun by hand is open as part of it', async () => {
    const root = rootFrame();
    const outer = await root.enterNested(false);
    const inner = await outer.frame.enterNested(false);
    expect(root.active).toBe(inner.frame);
    inner.leave();
    expect(root.active).toBe(outer.frame);
    outer.leave();
    const structured = await root.enterNested(true);
    expect(root.active).toBe(root);
    expect(structured.frame.isWithin(root)).toBe(true);
    expect(root.isWithin(structured.frame)).toBe(false);
  });

  it('gives up waiting for one begun by hand when its patience ends', async () => {
    const root = rootFrame(10);
    await root.enterNested(false);
    await expect(root.enterNested(true)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_NESTED_TRANSACTION_BLOCKED',
    });
  });

  it('passes work for after the commit on to the parent, or forgets it', async () => {
    const root = rootFrame();
    const work = (): undefined => undefined;
    const undone = await root.enterNested(true);
    undone.frame.defer(work);
    undone.frame.forget();
    undone.leave();
    expect(root.deferred).toEqual([]);
    const kept = await root.enterNested(true);
    kept.frame.defer(work);
    const announced = { runner: {} as never, data: {} };
    kept.keep(announced);
    expect(root.deferred).toEqual([work]);
    expect(root.released).toEqual([announced]);
  });

  it('refuses what comes after its end', async () => {
    const root = rootFrame();
    const place = await root.enterNested(true);
    place.frame.close();
    await expect(place.frame.turn()).rejects.toEqual(FINISHED);
    await expect(place.frame.enterNested(true)).rejects.toEqual(FINISHED);
    expect(() => place.frame.defer(() => undefined)).toThrow(/nested transaction/);
  });

  it('knows the savepoint that the end of the handler has to undo', async () => {
    const root = rootFrame();
    const place = await root.enterNested(true);
    expect(root.openSavepoint).toBeUndefined();
    place.opened();
    expect(root.openSavepoint).toBe(place.savepoint);
    place.leave();
    expect(root.openSavepoint).toBe(place.savepoint);
    place.ended();
    expect(root.openSavepoint).toBeUndefined();
  });
});
