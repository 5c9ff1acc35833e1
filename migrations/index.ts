import type { MigrationInterface, QueryRunner } from 'typeorm';
import { idempotencyDdl, type MigrationTarget } from './ddl.js';

export { idempotencyDdl, type IdempotencyDdl, type MigrationTarget } from './ddl.js';

/** A migration as TypeORM's `migrations` option takes it. */
export type MigrationClass = new () => MigrationInterface;

/**
 * The migrations of the idempotency table, to be spread into `DataSourceOptions.migrations`.
 * Later releases only add to them; each runs in TypeORM's own migration transaction.
 *
 * @example
 * ```ts
 * new DataSource({ type: 'postgres', migrations: [...idempotencyMigrations(), 'dist/migrations/*.js'] });
 * ```
 * @throws RangeError for a name that PostgreSQL does not allow.
 */
export function idempotencyMigrations(target: MigrationTarget = {}): MigrationClass[] {
  const { up, down } = idempotencyDdl(target);
  return [
    class CreateIdempotencyRecords implements MigrationInterface {
      // TypeORM orders migrations by the 13 digits at the end of the name.
      readonly name = 'CreateIdempotencyRecords1767225600000';

      async up(runner: QueryRunner): Promise<void> {
        await runner.query(up);
      }

      async down(runner: QueryRunner): Promise<void> {
        await runner.query(down);
      }
    },
  ];
}
