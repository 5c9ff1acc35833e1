import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What was charged. */
export class CreateCharges1770000003000 implements MigrationInterface {
  readonly name = 'CreateCharges1770000003000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE charges (
        id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
        owner      text        NOT NULL,
        amount     integer     NOT NULL,
        ref        text        NOT NULL,
        status     text        NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
      );
      CREATE INDEX charges_owner_ref_idx ON charges (owner, ref);`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE charges');
  }
}
