import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { EventSubscriber, type EntitySubscriberInterface, type TransactionCommitEvent } from 'typeorm';
import { currentFrame } from '../../lib/core/ambient.js';
import type { Execution } from '../../lib/core/store.js';
import type { HandlerExecution } from '../../lib/store/handler-execution.js';
import { eventually } from '../helpers/conditions.js';
import { LEASE, RESPONSE, TestStore } from '../helpers/store.js';

const UNAVAILABLE = 'IDEMPOTENCY_STORE_UNAVAILABLE';

/** Milliseconds within which a fenced transaction must have begun. */
const PATIENCE = 1_000;

/** How often the fence was looked at; sequences are not rolled back. */
const LOOKS = 'SELECT CASE WHEN is_called THEN last_value ELSE 0 END::int AS looks FROM looks';

describe('a fenced transaction', () => {
  let store: TestStore;
  let rival: Client;
  let afterTheCommit: ((event: TransactionCommitEvent) => Promise<void>) | undefined;

  @EventSubscriber()
  class Listener implements EntitySubscriberInterface {
    async afterTransactionCommit(event: TransactionCommitEvent): Promise<void> {
      await afterTheCommit?.(event);
    }
  }

  beforeAll(async () => {
    store = await TestStore.start({ acquireTimeout: PATIENCE, subscribers: [Listener] });
    rival = new Client({ connectionString: store.database.url });
    await rival.connect();
  });

  afterEach(async () => {
    afterTheCommit = undefined;
    await rival.query('ROLLBACK');
    await store.drained();
    await store.idle();
    await store.reset();
  });

  afterAll(async () => {
    await rival.end();
    await store.close();
  });

  /** An execution whose handler began. */
  const begun = async (): Promise<Execution> => {
    const execution = await store.execution(LEASE);
    execution.run(() => currentFrame())!.enterHandler();
    return execution;
  };

  const fenced = <T>(execution: Execution, work: () => Promise<T>): Promise<T> =>
    execution.run(() => (currentFrame()!.execution as HandlerExecution).transaction(work));

  const lock = async (): Promise<unknown> => {
    await rival.query('BEGIN');
    return rival.query('SELECT pg_advisory_xact_lock($1::bigint)', [store.lockOf()]);
  };

  const isWaiting = async (): Promise<boolean> => {
    const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`;
    return (await store.database.query(waiting)).length === 1;
  };

  describe('whose fence fails', () => {
    /** Lets the first looks at the row fail with that error. */
    const failing = async (sqlState: string, times: number, work: () => Promise<void>): Promise<void> => {
      await store.database.query(`
        CREATE SEQUENCE looks;
        CREATE FUNCTION look() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
          IF nextval('looks') <= ${times} THEN RAISE EXCEPTION USING ERRCODE = '${sqlState}'; END IF;
          RETURN true;
        END $$;
        ALTER TABLE idempotency_records RENAME TO elsewhere;
        CREATE VIEW idempotency_records AS SELECT * FROM elsewhere WHERE look()`);
      try {
        await work();
      } finally {
        await store.database.query(`
          DROP VIEW idempotency_records;
          ALTER TABLE elsewhere RENAME TO idempotency_records;
          DROP FUNCTION look;
          DROP SEQUENCE looks`);
      }
    };

    it('begins again for a row that changed meanwhile, at most twice', async () => {
      const execution = await begun();
      await failing('40001', 2, async () => {
        await fenced(execution, () => store.note('third'));
        expect(await store.database.query(LOOKS)).toEqual([{ looks: 3 }]);
      });
      await failing('40001', 3, async () => {
        const begin = fenced(execution, () => store.note('fourth'));
        await expect(begin).rejects.toMatchObject({
          error: { code: 'IDEMPOTENCY_TRANSACTION_CONFLICT' },
          cause: { code: '40001' },
        });
        expect(await store.database.query(LOOKS)).toEqual([{ looks: 3 }]);
      });
      expect(await store.notes()).toEqual(['third']);
      await execution.release();
    });

    it('does not begin again for anything else', async () => {
      const execution = await begun();
      await failing('58030', 1, async () => {
        const begin = fenced(execution, () => store.note('a'));
        await expect(begin).rejects.toMatchObject({ error: { code: UNAVAILABLE }, cause: { code: '58030' } });
        expect(await store.database.query(LOOKS)).toEqual([{ looks: 1 }]);
      });
      expect(await store.notes()).toEqual([]);
      await execution.release();
    });
  });

  it('whose fence does not answer fails, and leaves nobody waiting for it', async () => {
    const execution = await begun();
    await lock();
    await expect(fenced(execution, () => store.note('a'))).rejects.toMatchObject({
      error: { code: UNAVAILABLE },
      cause: { message: 'the connection was given back' },
    });
    await eventually(async () => !(await isWaiting()));
    await rival.query('COMMIT');
    expect(await store.notes()).toEqual([]);
    await execution.release();
  });

  it('may take longer than it may take to begin', async () => {
    const execution = await begun();
    await fenced(execution, async () => {
      const began = performance.now();
      await eventually(() => performance.now() > began + PATIENCE);
      await store.note('a');
    });
    expect(await store.notes()).toEqual(['a']);
    await execution.release();
  });

  describe('whose connection was lost', () => {
    /** Ends the session and waits until that is known. */
    const lose = async (): Promise<void> => {
      await store.cut();
      await eventually(() =>
        expect(store.dataSource.query('SELECT 1')).rejects.toThrow(/not queryable|terminated unexpectedly/),
      );
    };

    const thrownAfter = (
      execution: Execution,
      before: () => Promise<void>,
      thrown: unknown,
    ): Promise<unknown> =>
      fenced(execution, async () => {
        await before();
        throw thrown;
      }).catch((error: unknown) => error);

    it('says so whatever its work makes of that', async () => {
      const execution = await begun();
      const own = new Error('of the handler');
      expect(await thrownAfter(execution, lose, own)).toBe(own);
      expect(execution.explain(own)).toMatchObject({ error: { code: UNAVAILABLE }, cause: own });
      await execution.release();
    });

    it.each([['text'], [null], [undefined]])('throws on what is no object: %s', async (thrown) => {
      const execution = await begun();
      expect(await thrownAfter(execution, lose, thrown)).toBe(thrown);
      await execution.release();
    });

    it('knows it by what the server said, before the connection is seen to break', async () => {
      const execution = await begun();
      const ended = Object.assign(new Error('ended'), { code: '57P01', severity: 'FATAL' });
      expect(await thrownAfter(execution, async () => undefined, ended)).toBe(ended);
      expect(execution.explain(ended)).toMatchObject({ error: { code: UNAVAILABLE }, cause: ended });
      await execution.release();
    });
  });

  it('lets subscribers use its connection after the commit, although the handler has ended', async () => {
    await lock();
    const execution = await store.execution(LEASE, {
      identity: { client: 'c', endpoint: 'e', key: 'other' },
    });
    let heard: unknown;
    afterTheCommit = async ({ queryRunner }) => {
      const taken = queryRunner.query('SELECT pg_advisory_xact_lock_shared($1::bigint)', [store.lockOf()]);
      heard = await taken.then(
        () => 'done',
        (error: unknown) => error,
      );
    };
    await fenced(execution, () => store.note('a'));
    await eventually(isWaiting);
    await execution.complete(RESPONSE, 'returned');
    // Had its statement been cancelled, the server would know by the time it lets somebody else in.
    const late = new Client({ connectionString: store.database.url });
    await late.connect();
    await late.end();
    await rival.query('COMMIT');
    await store.drained();
    expect(heard).toBe('done');
  });
});
