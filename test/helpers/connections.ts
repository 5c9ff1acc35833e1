import type { Pool } from 'pg';
import type { DataSource } from 'typeorm';
import { eventually, type EventuallyOptions } from './conditions.js';
import type { TestDatabase } from './database.js';

/** The pool of a DataSource. */
export function poolOf(dataSource: DataSource): Pool {
  return (dataSource.driver as unknown as { master: Pool }).master;
}

/** Resolves when the pool is idle and the server has no open transaction. */
export async function untilIdle(
  dataSource: DataSource,
  database: TestDatabase,
  patience?: EventuallyOptions,
): Promise<void> {
  const pool = poolOf(dataSource);
  await eventually(() => pool.idleCount === pool.totalCount && pool.waitingCount === 0, patience);
  await eventually(async () => {
    const open = await database.query(
      `SELECT state, query FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND backend_type = 'client backend'`,
    );
    if (open.length > 0) throw new Error(`open transactions: ${JSON.stringify(open)}`);
  }, patience);
}
