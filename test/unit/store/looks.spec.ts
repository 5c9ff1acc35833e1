import { EventEmitter } from 'node:events';
import { describe, expect, it } from '@jest/globals';
import type { Pool } from '../../../lib/join/port.js';
import { Looks } from '../../../lib/store/looks.js';
import { statementsFor } from '../../../lib/store/sql.js';
import type { PostgresStoreOptions } from '../../../lib/store/store-options.js';

const statements = statementsFor({
  ...{ schema: 'public', name: 'records', isPartitioned: false, serverVersion: 180_000 },
});

/** One that answers every look with nothing, one statement after the other, and remembers what it was sent. */
class EmptyServer extends EventEmitter {
  readonly texts: string[] = [];

  readonly pool: Pool = {
    connect: (callback) => callback(undefined, this as never, () => undefined),
  };

  async query({ text }: { text: string }): Promise<unknown> {
    this.texts.push(text);
    return { command: text.trim().split(' ', 1)[0], rowCount: 0, rows: [] };
  }
}

const claimOf = (key: string): Parameters<Looks['find']>[0] => ({
  ...{ identity: { client: 'c', endpoint: 'e', key }, fingerprint: Buffer.of(1), ttl: 1, maxDuration: 1 },
  mode: { kind: 'transaction', isolation: undefined, storesErrors: true },
});

function setUp(capacity?: number): { looks: Looks; server: EmptyServer; isKnown: (lock: string) => boolean } {
  const server = new EmptyServer();
  const options = { pool: server.pool, statements, acquireTimeout: 1_000 } as unknown as PostgresStoreOptions;
  const looks = new Looks(options, capacity);
  return { looks, server, isKnown: (lock) => looks.find(claimOf(lock), lock) !== undefined };
}

describe('what this process remembers as completed', () => {
  it('is asked for, and nothing else', async () => {
    const { looks, server } = setUp();
    looks.remember('1');
    expect(looks.find(claimOf('2'), '2')).toBeUndefined();
    expect(server.texts).toEqual([]);
    expect(await looks.find(claimOf('1'), '1')).toBeUndefined();
    expect(server.texts).toEqual([expect.stringContaining('BEGIN'), statements.look, 'COMMIT']);
  });

  it('is forgotten when it is not there any more', async () => {
    const { looks, isKnown } = setUp();
    looks.remember('1');
    await looks.find(claimOf('1'), '1');
    expect(isKnown('1')).toBe(false);
    looks.remember('1');
    expect(isKnown('1')).toBe(true);
  });

  it('is bounded, and the oldest goes first', () => {
    const { looks, isKnown } = setUp(3);
    for (const lock of ['1', '2', '3', '3', '4', '5']) looks.remember(lock);
    expect(['1', '2', '3', '4', '5'].filter(isKnown)).toEqual(['3', '4', '5']);
  });

  it('is ten thousand unless another number is given', () => {
    const { looks, isKnown } = setUp();
    for (let lock = 0; lock <= 10_000; lock++) looks.remember(String(lock));
    expect([isKnown('0'), isKnown('1')]).toEqual([false, true]);
  });
});

describe('who asks at the same time', () => {
  it('alone, is asked for alone, and together by one statement', async () => {
    const { looks, server } = setUp();
    for (const lock of ['1', '2', '3']) looks.remember(lock);
    await Promise.all(['1', '2'].map(async (lock) => looks.find(claimOf(lock), lock)));
    await looks.find(claimOf('3'), '3');
    expect(server.texts.filter((text) => text.includes('SELECT'))).toEqual([
      statements.lookForAll,
      statements.look,
    ]);
  });

  it('is more than one statement from the thirty-third on', async () => {
    const { looks, server } = setUp();
    const locks = Array.from({ length: 34 }, (_, lock) => String(lock));
    for (const lock of locks) looks.remember(lock);
    await Promise.all(locks.map(async (lock) => looks.find(claimOf(lock), lock)));
    expect(server.texts.filter((text) => text === statements.lookForAll)).toHaveLength(2);
  });
});
