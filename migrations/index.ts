import type { MigrationInterface, QueryRunner } from 'typeorm';
import { ddlSteps, type MigrationTarget } from './ddl.js';

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
  return ddlSteps(target).map(({ name, up, down }) => {
    return class IdempotencyMigration implements MigrationInterface {
      readonly name = name;

      async up(runner: QueryRunner): Promise<void> {
        await runner.query(up);
      }

      async down(runner: QueryRunner): Promise<void> {
        await runner.query(down);
      }
    };
  });
}
